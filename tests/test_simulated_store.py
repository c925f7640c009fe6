"""Simulated conversations written straight to a store of crops."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conversations import content, write_speech

pytest.importorskip("skimage", reason="the portraits need scikit-image: pip install '.[sample]'")

from pyannote.database import registry

from pyannote_av.core.tracks import FaceTracks
from pyannote_av.data.crop_store import CropStore
from pyannote_av.simulation.cast import Cast
from pyannote_av.simulation.conversation import Options, converse
from pyannote_av.simulation.disturbance import Disturbances
from pyannote_av.simulation.faces import public_portraits
from pyannote_av.simulation.files import simulate_files
from pyannote_av.simulation.scene import SceneOptions
from pyannote_av.simulation.speech import SpeechLibrary
from pyannote_av.simulation.statistics import ConversationStatistics
from pyannote_av.simulation.store import segments

OPTIONS = Options(speakers=(2, 3), scene=SceneOptions(size=(320, 180), blur=(0, 0.5)))
ARGUMENTS = {"files": 2, "duration": 8.0, "options": OPTIONS, "seed": 4}
URIS = ["train-4-00000", "train-4-00001"]


@pytest.fixture(scope="module")
def cast(tmp_path_factory) -> Cast:
    speech = write_speech(tmp_path_factory.mktemp("speech"))
    statistics = ConversationStatistics.read("ava_avd")
    return Cast(statistics, SpeechLibrary(speech), public_portraits())


@pytest.fixture(scope="module")
def folder(cast, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    report = simulate_files(cast, folder, store=True, **ARGUMENTS)
    assert (report.written, report.kept, report.failed) == (URIS, [], {})
    return folder


def files(folder) -> list:
    registry.load_database(folder / "database.yml")
    return list(registry.get_protocol("Simulated.SpeakerDiarization.Simulated").train())


def test_the_store_is_sound_and_agrees_with_the_protocol(folder):
    store = CropStore(folder)
    assert store.uris == [file["uri"] for file in files(folder)] == URIS
    assert store.verify() == {}
    for file in files(folder):
        tracks, shard = FaceTracks.read(file["face_tracks"]), store[file["uri"]]
        assert file["annotated"].duration() == 8.0
        assert set(tracks.speaker) == set(tracks.tracks) == set(shard.tracks)
        assert set(np.unique(tracks.label)) <= {0, 1}
        assert not shard.face_tracks.speaker
        assert not shard.problems
        for track, (first, end) in shard.tracks.items():
            times = tracks.of(track).time
            np.testing.assert_allclose(times, np.arange(first, end) / 25, atol=1e-6)
            crops, present = store.crops(file["uri"], track, first, end)
            assert present.all()
            assert (crops.std(axis=(1, 2)) > 3).all()


def test_the_sound_is_the_mixture(cast, folder):
    from pyannote_av.core.io import Video

    store = CropStore(folder)
    for i, file in enumerate(files(folder)):
        made = converse(cast, 8.0, OPTIONS, seed=(4, 0, i))
        heard = store.waveform(file["uri"], 0, 200)
        np.testing.assert_allclose(heard, made.audio, atol=1e-4)
        np.testing.assert_allclose(Video().waveform(file["audio"])[0], heard, atol=1e-4)


def test_crops_are_those_of_the_video(cast, folder, tmp_path):
    """What is cut from the encoded film shows the same faces at the same moments."""
    import cv2

    from pyannote_av.core.io import Video
    from pyannote_av.simulation.files import write_file
    from pyannote_av.vision.crops import crop_tracks

    store, uri = CropStore(folder), URIS[0]
    write_file(cast, tmp_path, uri, 8.0, OPTIONS, (4, 0, 0))
    tracks = FaceTracks.read(tmp_path / "tracks" / f"{uri}.npz")
    frames = Video().frames(tmp_path / "video" / f"{uri}.mp4")
    alike = []
    for segment in crop_tracks(frames, tracks, size=112):
        drawn, _ = store.crops(uri, segment.track, segment.start, segment.end)
        for shown, one in zip(segment.crops[::10], drawn[::10], strict=True):
            # boxes differ by a little, as those of detectors do
            found = cv2.matchTemplate(one, shown[20:92, 20:92], cv2.TM_CCOEFF_NORMED)
            alike.append(found.max())
    assert len(alike) >= 20
    assert min(alike) > 0.75
    assert np.mean(alike) > 0.9


def test_lost_pictures(cast):
    scene = replace(OPTIONS.scene, dropped=0.9)
    options, absent = replace(OPTIONS, scene=scene, disturbances=Disturbances(0, 0, 0, 0)), 0
    for seed in range(4):
        made = converse(cast, 8.0, options, seed=(seed,))
        for segment in segments(made, (seed, 6)):
            kept = made.scene.kept[segment.start : segment.end]
            assert (segment.present == (np.cumsum(kept) > 0)).all()
            first = int(segment.present.argmax())
            same = (segment.crops[1:] == segment.crops[:-1]).all(axis=(1, 2))
            assert (same[first:] == ~kept[first + 1 :]).all()
            absent += not segment.present.all()
    assert absent


def test_long_tracks_come_in_parts(cast):
    cast = replace(cast, statistics=ConversationStatistics.read("ami"))
    options = replace(OPTIONS, scene=replace(OPTIONS.scene, layout="meeting"))
    made = converse(cast, 26.0, options, seed=(8,))
    parts = [(s.track, s.start, len(s)) for s in segments(made, (8, 6))]
    faces = len(made.scene.shots[0].faces)
    assert parts == [(t, s, n) for t in range(faces) for s, n in ((0, 300), (300, 300), (600, 50))]


def test_what_is_complete_is_kept(cast, folder):
    before = content(folder)
    assert simulate_files(cast, folder, store=True, **ARGUMENTS).kept == URIS
    assert content(folder) == before
    with pytest.raises(ValueError, match="this subset was started with other store"):
        simulate_files(cast, folder, **ARGUMENTS)


def test_subsets_of_both_kinds_share_a_folder(cast, tmp_path):
    arguments = {**ARGUMENTS, "files": 1, "duration": 4.0}
    simulate_files(cast, tmp_path, store=True, **arguments)
    simulate_files(cast, tmp_path, subset="test", **arguments)
    registry.load_database(tmp_path / "database.yml")
    protocol = registry.get_protocol("Simulated.SpeakerDiarization.Simulated")
    assert "audio" in next(protocol.train())
    assert "video" in next(protocol.test())


KILLED = """
import sys
from pyannote_av.simulation.cast import Cast
from pyannote_av.simulation.faces import public_portraits
from pyannote_av.simulation.files import simulate_files
from pyannote_av.simulation.speech import SpeechLibrary
from pyannote_av.simulation.statistics import ConversationStatistics
sys.path.insert(0, sys.argv[3])
from test_simulated_store import ARGUMENTS
statistics = ConversationStatistics.read("ava_avd")
cast = Cast(statistics, SpeechLibrary(sys.argv[1]), public_portraits())
simulate_files(cast, sys.argv[2], store=True, **ARGUMENTS)
"""


@pytest.mark.slow
def test_killed_and_resumed_the_store_is_the_same(cast, folder, tmp_path):
    here = str(Path(__file__).parent)
    arguments = [str(cast.library.folder), str(tmp_path), here]
    with subprocess.Popen([sys.executable, "-c", KILLED, *arguments]) as process:
        deadline = time.monotonic() + 60
        while not any(p.stat().st_size > 0 for p in tmp_path.glob("shards/.*/crops.npy")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert not list(tmp_path.glob("audio/*"))
    report = simulate_files(cast, tmp_path, store=True, **ARGUMENTS)
    assert report.written == URIS
    assert content(tmp_path) == content(folder)


def test_it_trains_an_active_speaker_detector(folder):
    from lightning.pytorch import Trainer

    from pyannote_av.models.active_speaker.compact import CompactASD
    from pyannote_av.tasks.active_speaker_detection import ActiveSpeakerDetection

    registry.load_database(folder / "database.yml")
    protocol = registry.get_protocol("Simulated.SpeakerDiarization.Simulated")
    task = ActiveSpeakerDetection(
        protocol, folder, duration=1.0, frames_per_batch=25, num_workers=0
    )
    model = CompactASD(task=task)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(
        max_steps=2, accelerator="cpu", limit_val_batches=0, enable_checkpointing=False, **quiet
    )
    trainer.fit(model)
    assert trainer.global_step == 2


def test_simulate_command_writes_a_store(cast, tmp_path):
    import typer
    from typer.testing import CliRunner

    from pyannote_av.cli.simulate import command

    app = typer.Typer()
    app.command()(command)
    common = ["--into", str(tmp_path), "--speech", str(cast.library.folder), "--store"]
    result = CliRunner().invoke(app, [*common, "--files", "1", "--minutes", "0.1"])
    assert result.exit_code == 0, result.output
    assert CropStore(tmp_path).uris == ["train-0-00000"]
    assert json.loads((tmp_path / "train.json").read_text())["store"] is True
