"""Recipes, on miniature corpora of the real layouts and formats."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import corpora
import numpy as np
import pytest
import torch
from media import FLASHES, read_time, sound_offset, write_media
from pyannote.core import Segment, Timeline

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pyannote_av import Model  # noqa: E402
from pyannote_av.core.checksums import sha256_of  # noqa: E402
from pyannote_av.core.io import Video  # noqa: E402
from pyannote_av.core.tracks import FaceTracks, Label  # noqa: E402
from pyannote_av.data.face_embeddings import build_face_embeddings  # noqa: E402
from pyannote_av.data.speaker_embeddings import build_speaker_embeddings  # noqa: E402
from pyannote_av.formats.lists import read_names  # noqa: E402
from pyannote_av.training import TrainingConfig, train  # noqa: E402
from pyannote_av.training.config import ModelConfig  # noqa: E402
from pyannote_av.training.fitting import freeze_others  # noqa: E402
from pyannote_av.training.from_config import make_model  # noqa: E402
from recipes import NAMES, Expected, load  # noqa: E402
from recipes.__main__ import main  # noqa: E402
from recipes.database import database, write_database  # noqa: E402
from recipes.evaluate import describe, open_protocol  # noqa: E402
from recipes.fetch import Download, fetch, get, unpack  # noqa: E402
from recipes.media import Cut  # noqa: E402
from recipes.prepare import prepare  # noqa: E402

#: lists and numbers of files of the miniature corpora
LISTS = {
    "ava_avd": {"train": 1, "val": 1, "test": 1},
    "ami": {"train": 1, "dev": 1, "test": 1},
    "misp2022": {"train": 1, "train_near": 1, "dev": 1, "dev_near": 1},
    "msdwild": {"few_train": 2, "few_val": 1, "many_val": 1},
    "ava_activespeaker": {"train": 1, "val": 1},
    "simulated": {"train": 1, "development": 1, "test": 1},
}


def small(name: str):
    """A recipe that expects a miniature corpus"""
    return replace(load(name), expected={n: Expected(k) for n, k in LISTS[name].items()})


def content(folder: Path) -> dict[str, str]:
    """What there is in a folder: checksum by path"""
    return {
        str(path.relative_to(folder)): sha256_of(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Miniature corpora, each made once"""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = corpora.MAKERS[name](tmp_path_factory.mktemp(name))
        return made[name]

    return make


@pytest.fixture(scope="module")
def prepared(raw, tmp_path_factory):
    """Miniature corpora, prepared once"""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(f"prepared-{name}")
            report = prepare(small(name), raw(name), made[name])
            assert report.failed == {}
            assert report.files == LISTS[name]
        return made[name]

    return make


@pytest.mark.parametrize("name", LISTS)
def test_prepare_and_evaluate(name, raw, prepared, capsys):
    recipe, tmp_path = small(name), prepared(name)
    before = content(tmp_path)
    again = prepare(recipe, raw(name), tmp_path)
    assert again.made == 0
    assert again.kept > 0
    assert content(tmp_path) == before  # idempotent

    for protocol in recipe.protocols:
        for subset in protocol.subsets:
            for file in open_protocol(recipe, tmp_path, protocol.name, subset):
                annotated = file["annotated"].extent()
                assert file["annotation"].uri == file["uri"]
                assert file["annotation"].get_timeline().extent() in annotated
                assert file["lab"].extent() in annotated
                info = Video().probe(file["video"])
                assert info.video is not None
                if "face_tracks" in protocol.columns:  # a corpus without
                    continue
                tracks = FaceTracks.read(file["face_tracks"])
                assert tracks.uri == file["uri"]
                assert annotated.start <= tracks.time.min() <= tracks.time.max() <= annotated.end

    # the reference as a hypothesis has no error
    subset = next(s for s in reversed(recipe.protocols[0].subsets))
    listed = recipe.protocols[0].subsets[subset]
    scores = tmp_path.parent / f"{name}.json"
    common = [name, "evaluate", "--data", str(tmp_path), "--subset", subset]
    if recipe.metric == "diarization":
        common += ["--hypothesis", str(tmp_path / f"{listed}.rttm")]
    assert main([*common, "--json", str(scores)]) == 0
    figures = json.loads(scores.read_text())
    assert figures["reference"]["files"] == LISTS[name][listed]
    if recipe.metric == "diarization":
        total = [r for r in figures["systems"] if r["vad"] == "automatic" and r["rule"] == "Full"]
        assert all(record["der"] == pytest.approx(0, abs=1e-6) for record in total)
        assert total
    assert "floor" in capsys.readouterr().out


#: parameters that make networks and batches small
SMALL = {
    "ActiveSpeakerDetection": {"frames_per_batch": 30, "duration": 0.6},
    "TargetSpeakerSegmentation": {"batch_size": 2, "duration": 0.8, "max_targets": 2},
    "PairwiseRelation": {"ways": 2, "per_recording": 2, "duration": 0.3, "step": 0.1},
    "SpeakerCounting": {"batch_size": 2},
}
HMSA = {"width": 16, "heads": 2, "num_mels": 16, "channels": [4, 4, 4, 4], "face_size": 28}
HMSA |= {"visual": "compact", "disa_layers": 1}


@pytest.fixture(scope="module")
def learnt_from(prepared, tmp_path_factory):
    """Database and store of a miniature corpus, voices and faces included"""
    made: dict[str, tuple[Path, Path]] = {}

    def make(name: str) -> tuple[Path, Path]:
        if name not in made:
            from pyannote_av.cli.prepare import prepare as cut_out

            folder = tmp_path_factory.mktemp(f"learn-{name}")
            path, recipe = folder / "database.yml", load(name)
            write_database([recipe], path, {name: str(prepared(name))})
            protocol, subsets = recipe.protocols[0], ("train", "development")
            subsets = [subset for subset in subsets if subset in protocol.subsets]
            name_ = recipe.full_name(protocol)
            report = cut_out(name_, folder / "store", subsets, database=path)
            assert not report.failed
            build_speaker_embeddings(report.store)
            build_face_embeddings(report.store)
            made[name] = path, folder / "store"
        return made[name]

    return make


CONFIGURATIONS = sorted((ROOT / "recipes").glob("*/train/*.yaml"))
#: networks that are large, and a corpus of long films
SLOW = ("avrnet", "loconet", "talknet", "lrasd", "hmsanet", "ava_avd")


def configured() -> Iterator:
    """From scratch"""
    for path in CONFIGURATIONS:
        if "finetune" not in path.name:
            recipe = path.parts[-3]
            marks = [pytest.mark.slow] if {path.stem, recipe} & {*SLOW} else []
            yield pytest.param(path, id=f"{recipe}-{path.stem}", marks=marks)


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_training_configurations_are_understood(path):
    config = TrainingConfig.read(path)
    assert config.plan()
    assert (config.model.checkpoint is not None) == path.stem.endswith("-finetune")
    if config.model.checkpoint is None:
        model = make_model(config.model)
        for stage in config.plan():
            assert freeze_others(model, stage.train)


@pytest.fixture(scope="module")
def backbones(tmp_path_factory) -> Path:
    """Backbones of AVR-Net, with random weights"""
    return make_model(ModelConfig(name="AVRNet")).save(tmp_path_factory.mktemp("backbones"))


@pytest.mark.parametrize("path", [*configured()])
def test_training_configurations(path, learnt_from, tmp_path, request):
    """A few steps of each, from scratch and then fine-tuned"""
    torch.set_num_threads(1)
    database, store = learnt_from(path.parts[-3])
    scratch = tmp_path / "scratch"
    for config in (path, path.with_name(f"{path.stem}-finetune.yaml")):
        read = TrainingConfig.read(config)
        small = {**SMALL[read.task.name], "store": str(store), "num_workers": 0}
        given = [f"task.params.{key}={value}" for key, value in small.items()]
        given += [f"database={database}", "loggers=[]", "trainer.accelerator=cpu"]
        given += ["trainer.limit_train_batches=1", "trainer.limit_val_batches=9"]
        given += ["trainer.enable_progress_bar=false"]
        if isinstance(read.stages, list):
            given += [f"stages.{stage.name}.max_epochs=1" for stage in read.stages]
        else:
            given.append("stages.epochs=1")
        if config == path:
            given.append(f"into={scratch}")
            given += [f"model.params.{k}={v}" for k, v in HMSA.items() if "hmsa" in path.name]
            if "avrnet" in path.name:
                given.append(f"stages.relation.start={request.getfixturevalue('backbones')}")
        else:
            given += [f"into={tmp_path / 'tuned'}", f"model.checkpoint={scratch}"]
        model = train(TrainingConfig.read(config, given))
        assert all(value.isfinite().all() for value in model.state_dict().values())
    assert len(model.lineage) > len(Model.from_pretrained(scratch).lineage) > 0


def test_scores_of_an_active_speaker_scorer(prepared, tmp_path, capsys):
    data = ["--data", str(prepared("ava_activespeaker"))]
    common = ["ava_activespeaker", "evaluate", *data, "--pipeline", "synchrony"]
    assert main([*common, "--json", str(tmp_path / "scores.json")]) == 0
    (overall, *_) = json.loads((tmp_path / "scores.json").read_text())["synchrony"]
    assert overall["faces"] == 50  # two seconds at 25 Hz
    assert overall["speaking"] == 25


def test_scores_of_a_pipeline(prepared, tmp_path):
    data = ["--data", str(prepared("simulated"))]
    common = ["simulated", "evaluate", *data, "--pipeline", "audio"]
    hypothesis = prepared("simulated") / "test.rttm"
    assert main([*common, "--hypothesis", str(hypothesis), "--json", str(tmp_path / "s.json")]) == 0
    systems = json.loads((tmp_path / "s.json").read_text())["systems"]
    der = {r["system"]: r["der"] for r in systems if r["vad"] == "automatic" if r["rule"] == "Full"}
    assert der[str(hypothesis)] == pytest.approx(0, abs=1e-6)
    assert der["audio"] > 50  # these are tones


@pytest.mark.parametrize("get", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_sample(get, sample, tmp_path, capsys):
    raw = tmp_path / "raw" if get else sample["video"].parent
    if get:
        assert main(["sample", "get", "--into", str(raw)]) == 0
    to = ["--into", str(tmp_path / "made")]
    assert main(["sample", "prepare", "--source", str(raw), *to]) == 0
    (file,) = open_protocol(load("sample"), tmp_path / "made", None, "test")
    assert len(file["annotation"].labels()) == 2
    assert main(["sample", "evaluate", "--data", str(tmp_path / "made")]) == 0
    assert "visible_speech     99." in capsys.readouterr().out


def test_clock_of_ava_avd(prepared):
    """Movie times become clip times, of turns, tracks, speech and pictures alike"""
    tmp_path = prepared("ava_avd")
    names = {"a": "spk00", "b": "spk01"}
    for which, subset in ((1, "train"), (2, "development"), (3, "test")):
        (file,) = open_protocol(load("ava_avd"), tmp_path, "Clips", subset)
        assert file["annotated"] == Timeline([Segment(0, 300)])
        expected = corpora.annotation(file["uri"], names)
        found = [(s.start - 10, s.end - 10, n) for s, _, n in file["annotation"].itertracks(True)]
        truth = [(s.start, s.end, n) for s, _, n in expected.itertracks(True)]
        assert [n for *_, n in found] == [n for *_, n in truth]
        np.testing.assert_allclose([f[:2] for f in found], [t[:2] for t in truth], atol=1e-6)
        assert file["lab"].extent() == Segment(10.1, 12.6)
        tracks = FaceTracks.read(file["face_tracks"])
        assert list(tracks.speaker.values()) == ["spk00"]
        assert tracks.time[0] == pytest.approx(10.1)
        assert (tracks.label == Label.SPEAKING_AUDIBLE).sum() == 20
        info = Video().probe(file["video"])
        assert info.duration == pytest.approx(300, abs=0.1)
        frames, _ = Video().crop(file["video"], Segment(30, 30.04))
        # the picture drawn at 20-second step before: seconds of the movie, in 16 bits of ms
        drawn = (900 + 300 * (which - 1) + 20) * 1000 % 65536 / 1000
        assert read_time(frames[0]) == pytest.approx(drawn, abs=1e-6)
        (cut,) = open_protocol(load("ava_avd"), tmp_path, "ReferenceCut", subset)
        assert cut["annotated"].extent() == Segment(10.1, 12.6)


def test_cut_keeps_picture_and_sound_together(tmp_path):
    source = write_media(tmp_path / "long.mp4", duration=5.0, size=(192, 128))
    problems: list[str] = []
    Cut(source, 1.0, 4.0).write("x", tmp_path / "cut.mkv", problems)
    assert problems == []
    frames, times = Video().crop(tmp_path / "cut.mkv", Segment(0, 10))
    assert len(times) == 75
    drawn = np.array([read_time(frame) for frame in frames])
    np.testing.assert_allclose(drawn, times + 1.0, atol=0.001)
    waveform = Video().waveform(tmp_path / "cut.mkv")

    def heard(t):
        from media import bursts

        return bursts(t + 1.0)

    assert FLASHES[1] > 1.0
    assert abs(sound_offset(waveform, heard)) < 0.002
    assert waveform.shape[1] == pytest.approx(48000, abs=700)
    Cut(source, 1.0, 4.0).write("x", tmp_path / "again.mkv", problems)
    assert sha256_of(tmp_path / "again.mkv") == sha256_of(tmp_path / "cut.mkv")


def test_cut_of_a_short_file_is_reported(tmp_path):
    source = write_media(tmp_path / "long.mp4", duration=3.0)
    problems: list[str] = []
    Cut(source, 1.0, 6.0).write("x", tmp_path / "cut.mkv", problems)
    assert "pictures of 2.00 s between 1 and 6 s" in problems[-1]


def test_gallery_of_ami(prepared):
    (file,) = open_protocol(load("ami"), prepared("ami"), None, "test")
    frames, times = Video().crop(file["video"], Segment(0, 9))
    assert len(times) == 75
    assert frames.shape[1:] == (96, 128, 3)
    assert frames[70][:48, :64].mean() > 5  # the first camera goes on
    assert frames[70][:48, 64:].mean() < 5  # the second has ended
    assert frames[70][48:, 64:].mean() < 5  # there is no fourth
    assert (prepared("ami") / "seats" / "TS3003c.csv").read_text().splitlines() == [
        "camera,column,row,speaker",
        "Closeup1,0,0,b",
        "Closeup2,1,0,",
        "Closeup3,0,1,a",
    ]
    assert Video().waveform(file["video"]).shape[1] == pytest.approx(48000, abs=700)


class Interrupted(BaseException):
    """As KeyboardInterrupt is one, but nobody's but ours"""


def test_interrupted_anywhere_and_resumed(raw, tmp_path):
    """Whatever step is the last, going on gives what a run without interruption gives"""
    recipe, source = small("msdwild"), raw("msdwild")
    whole = tmp_path / "work"
    prepare(recipe, source, whole)
    expected = content(whole)

    def reading(read, step):
        step()
        tracks = read()
        step()
        return tracks

    for last in random.Random(0).sample(range(12), 5):
        shutil.rmtree(whole)
        steps = iter(range(last))

        def step(steps=steps):
            if next(steps, None) is None:
                raise Interrupted

        def files(folder, step=step):
            for file in recipe.files(folder):
                step()
                yield replace(
                    file, tracks=replace(file.tracks, read=partial(reading, file.tracks.read, step))
                )

        with pytest.raises(Interrupted):
            prepare(replace(recipe, files=files), source, whole)
        assert not list(whole.glob("*.lst"))
        prepare(recipe, source, whole)
        assert content(whole) == expected


def without_paths(made: dict[str, str]) -> dict[str, str]:
    """But for the file that says where everything is"""
    return {path: digest for path, digest in made.items() if path != "database.yml"}


def test_killed_and_resumed(raw, prepared, tmp_path):
    source, into = raw("ami"), tmp_path / "work"
    command = [sys.executable, "-m", "recipes", "ami", "prepare", "--partial"]
    command += ["--source", str(source), "--into", str(into)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    # killed while it writes the first video
    while not list(into.glob("video/.*")) and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not list(into.glob("*.lst"))
    prepare(small("ami"), source, into)
    assert without_paths(content(into)) == without_paths(content(prepared("ami")))


def test_workers_make_the_same(raw, prepared, tmp_path):
    prepare(small("simulated"), raw("simulated"), tmp_path, workers=2)
    assert without_paths(content(tmp_path)) == without_paths(content(prepared("simulated")))


def test_changed_source_is_prepared_anew(tmp_path):
    source = corpora.simulated(tmp_path / "raw")
    recipe = small("simulated")
    made = prepare(recipe, source, tmp_path / "out").made
    tracks = source / "tracks" / "test-0-00000.npz"
    one = FaceTracks.read(tracks)
    replace(one, box=one.box / 2).write(tracks)
    report = prepare(recipe, source, tmp_path / "out")
    assert (report.made, report.kept) == (1, made - 1)


# --- what is wrong with a corpus -----------------------------------------------------------------


def test_missing_media_name_the_file(tmp_path, capsys):
    source = corpora.msdwild(tmp_path / "raw")
    gone = source / "RELEASED_dark_labels" / "00003.mp4"
    gone.unlink()
    report = prepare(small("msdwild"), source, tmp_path / "out")
    assert list(report.failed) == ["00003"]
    assert str(gone) in report.failed["00003"]
    assert not list((tmp_path / "out").glob("*.lst"))  # nobody trains on half a corpus unawares
    arguments = ["msdwild", "prepare", "--source", str(source), "--into", str(tmp_path / "out")]
    assert main(arguments) == 1
    assert str(gone) in capsys.readouterr().out
    assert main([*arguments, "--partial"]) == 1
    assert (tmp_path / "out" / "few_val.lst").read_text() == ""
    assert (tmp_path / "out" / "few_train.lst").read_text() == "00001\n00002\n"


def test_short_and_damaged_media(tmp_path):
    source = corpora.simulated(tmp_path / "raw")
    corpora.media(source / "video" / "train-0-00000.mp4", duration=1.0)
    broken = source / "video" / "test-0-00000.mp4"
    broken.write_bytes(broken.read_bytes()[:200])
    report = prepare(small("simulated"), source, tmp_path / "out")
    assert list(report.failed) == ["test-0-00000"]
    assert "test-0-00000.mp4" in report.failed["test-0-00000"]
    (problem,) = report.problems
    assert "'train-0-00000': video ends at 1.0" in problem
    assert problem.endswith("its scored region at 3 s")


def test_media_that_vanish_later_name_the_file(tmp_path):
    source = corpora.simulated(tmp_path / "raw")
    prepare(small("simulated"), source, tmp_path / "out")
    (file,) = open_protocol(load("simulated"), tmp_path / "out", None, "test")
    (source / "video" / "test-0-00000.mp4").unlink()
    with pytest.raises(FileNotFoundError, match=r"test-0-00000\.mp4"):
        file["video"]


def test_incomplete_corpus(tmp_path):
    source = corpora.ami(tmp_path / "raw", cameras=1)
    with pytest.raises(ValueError, match="list 'train' has 1 files, not 136: the download is not"):
        prepare(load("ami"), source, tmp_path / "out", media=False)
    report = prepare(load("ami"), source, tmp_path / "out", media=False, partial=True)
    assert "list 'dev' has 1 files, not 18, 0.00 hours of speech, not 8.77" in report.problems


def test_list_with_a_file_twice(tmp_path):
    source = corpora.ami(tmp_path, cameras=0)
    path = corpora.write(source / "lists" / "dev.meetings.txt", "IS1008b\n\nIS1008b\n")
    with pytest.raises(
        ValueError, match=r"dev.meetings.txt, line 3: 'IS1008b' is already in line 1"
    ):
        prepare(small("ami"), source, tmp_path / "out", media=False)
    assert read_names(corpora.write(path, "IS1008b")) == ["IS1008b"]


def test_file_in_two_lists(tmp_path):
    source = corpora.ami(tmp_path, cameras=0)
    corpora.write(source / "lists" / "dev.meetings.txt", "ES2002a\n")
    for kind, where in (("rttm", "only_words/rttms"), ("uem", "uems")):
        source_file = source / where / "train" / f"ES2002a.{kind}"
        shutil.copy(source_file, source / where / "dev")
    with pytest.raises(ValueError, match="'ES2002a' is listed twice, in lists 'train' and 'dev'"):
        prepare(small("ami"), source, tmp_path / "out", media=False)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("SPEAKER ES2002a 1 -0.5 1.0 <NA> <NA> a <NA> <NA>", "negative start -0.5"),
        ("SPEAKER ES2002a 1 0.5 -1.0 <NA> <NA> a <NA> <NA>", "negative duration -1.0"),
        ("SPEAKER ES2002a 1 nan 1.0 <NA> <NA> a <NA> <NA>", "nan, 1.0: times must be finite"),
        ("SPEAKER ES2002a 1 0.5 x <NA> <NA> a <NA> <NA>", "times must be numbers"),
        ("SPEAKER ES2002a 1 0.5", "4 fields where at least 5 are expected"),
        ("SPEAKER other 1 0.5 1.0 <NA> <NA> a <NA> <NA>", "'other' where 'ES2002a' is expected"),
        ("SPEAKER ES2002a 1 2.5 1.5 <NA> <NA> a <NA> <NA>", "does not cover the reference"),
    ],
)
def test_malformed_reference(tmp_path, line, says):
    source = corpora.ami(tmp_path, cameras=0)
    path = source / "only_words" / "rttms" / "train" / "ES2002a.rttm"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ValueError, match=says) as error:
        prepare(small("ami"), source, tmp_path / "out", media=False)
    assert f"{path}, line 4" in str(error.value)


def test_malformed_boxes(tmp_path):
    source = corpora.msdwild(tmp_path / "raw")
    path = source / "RELEASED_dark_labels" / "00001.csv"
    text = path.read_text()
    for added, says in (
        ("7,face,0,1,1,9,9,0", "line 62: face '0' is already in line 9"),
        ("70,face,0,1,nan,9,9,0", "line 62: frame 70"),
        ("70,face,0,1", "line 62: 4 fields where 8 are expected"),
        ("x,face,0,1,1,9,9,0", "line 62: invalid literal"),
    ):
        path.write_text(text + added + "\n")
        report = prepare(small("msdwild"), source, tmp_path / "out")
        assert list(report.failed) == ["00001"]
        assert f"{path}, {says}" in report.failed["00001"]


def test_second_preparation_at_the_same_time(raw, tmp_path):
    from filelock import FileLock

    with (
        FileLock(tmp_path / ".lock"),
        pytest.raises(RuntimeError, match="another process is preparing"),
    ):
        prepare(small("simulated"), raw("simulated"), tmp_path)


# --- downloads -----------------------------------------------------------------------------------


@pytest.fixture
def server():
    """Serves ``files``; the first ``breaks`` answers end in the middle"""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            data = self.server.files.get(self.path)
            if data is None:
                self.send_error(404)
                return
            asked = self.headers.get("Range")
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
            self.server.asked.append((self.path, start))
            if start >= len(data):
                self.send_error(416)
                return
            self.send_response(206 if asked else 200)
            part = data[start:]
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            if self.server.breaks > 0:
                self.server.breaks -= 1
                part = part[: len(part) // 2]
                self.close_connection = True
            self.wfile.write(part)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.asked, server.breaks = {}, [], 0
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_download_goes_on_where_it_stopped(server, tmp_path):
    import hashlib

    data = np.random.default_rng(0).bytes(100_000)
    digest = hashlib.sha256(data).hexdigest()
    server.files["/a"] = data
    server.breaks = 3
    with pytest.raises(ConnectionError, match="could not download"):
        fetch(f"{server.url}/a", tmp_path / "a", digest, tries=1)
    assert not (tmp_path / "a").exists()
    assert fetch(f"{server.url}/a", tmp_path / "a", digest, pause=0.01) == digest
    assert (tmp_path / "a").read_bytes() == data
    assert [start for _, start in server.asked] == [0, 50_000, 75_000, 87_500]
    fetch(f"{server.url}/a", tmp_path / "a", digest)
    assert len(server.asked) == 4  # it is there


def test_wrong_checksum(server, tmp_path):
    server.files["/a"] = b"something else"
    with pytest.raises(ValueError, match=r"/a has sha256 [0-9a-f]{64}, not the expected 0000"):
        fetch(f"{server.url}/a", tmp_path / "a", "0" * 64)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a").write_bytes(b"changed")
    with pytest.raises(ValueError, match="remove it to download it again"):
        fetch(f"{server.url}/a", tmp_path / "a", "0" * 64)


def test_files_without_checksum_stay_the_same(server, tmp_path):
    server.files["/a"] = b"first"
    downloads = [Download(f"{server.url}/a", "x/a"), Download(f"{server.url}/none", "x/b")]
    paths, failed = get(downloads, tmp_path)
    assert paths == [tmp_path / "x" / "a"]
    assert "404" in failed[f"{server.url}/none"]  # and the other one is there all the same
    (tmp_path / "x" / "a").unlink()
    server.files["/a"] = b"second"
    _, failed = get(downloads[:1], tmp_path)
    assert "not the expected" in failed[f"{server.url}/a"]


def archive(path: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:bz2") as file:
        file.add(path, arcname="labels")
    return buffer.getvalue()


def test_archives(server, tmp_path):
    corpora.write(tmp_path / "made" / "a.csv", "hello\n" * 1000)
    server.files["/a.tar.bz2"] = archive(tmp_path / "made")
    download = Download(f"{server.url}/a.tar.bz2", "labels/a.tar.bz2", unpack=True)
    get([download], tmp_path / "good")
    assert (tmp_path / "good" / "labels" / "labels" / "a.csv").is_file()

    server.files["/a.tar.bz2"] = server.files["/a.tar.bz2"][:-40]
    _, failed = get([download], tmp_path / "bad")
    (reason,) = failed.values()
    assert "a.tar.bz2 is not an intact archive" in reason
    assert not (tmp_path / "bad" / "labels" / "labels").exists()

    evil = tmp_path / "evil.tar"
    with tarfile.open(evil, "w") as file:
        file.add(tmp_path / "made" / "a.csv", arcname="../../escaped.csv")
    with pytest.raises(ValueError, match="not an intact archive"):
        unpack(evil, tmp_path / "inside" / "deep")
    assert not (tmp_path / "escaped.csv").exists()


# --- the declarations ----------------------------------------------------------------------------


def test_root_database_is_what_recipes_declare():
    folders = {name: f"data/{name}" for name in NAMES}
    assert (ROOT / "database.yml").read_text() == database(map(load, NAMES), folders)


@pytest.mark.parametrize("name", NAMES)
def test_readme_and_declaration(name):
    readme = (ROOT / "recipes" / name / "README.md").read_text()
    for heading in ("## Licence", "## Get", "## Prepare", "## Results"):
        assert heading in readme
    recipe = load(name)
    assert recipe.name == name
    assert all(recipe.full_name(protocol) in readme for protocol in recipe.protocols)


def test_unknown_names(tmp_path, raw, capsys):
    with pytest.raises(ValueError, match="no recipe 'voxceleb'; choose from sample, ava_avd"):
        load("voxceleb")
    with pytest.raises(FileNotFoundError, match="python -m recipes ami prepare"):
        open_protocol(load("ami"), tmp_path, None, "test")
    prepare(small("simulated"), raw("simulated"), tmp_path, media=False)
    (tmp_path / "test.lst").write_text("")
    with pytest.raises(ValueError, match="Conversations, test: there are no files"):
        open_protocol(load("simulated"), tmp_path, None, "test")
    with pytest.raises(ValueError, match="no protocol 'X' in simulated"):
        open_protocol(load("simulated"), tmp_path, "X", "test")
    with pytest.raises(ValueError, match="has no subset 'dev'; it has train, development, test"):
        open_protocol(load("simulated"), tmp_path, None, "dev")
    assert main(["ami", "prepare", "--source", str(tmp_path / "nowhere")]) == 1
    assert "no such folder" in capsys.readouterr().err


# --- the real annotations ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(shared_data, tmp_path_factory):
    """Real annotations, prepared without media, each once"""
    folder = tmp_path_factory.mktemp("real")

    def make(name: str) -> Path:
        if not (folder / name).exists():
            source = shared_data / "annotations" / name
            if not source.is_dir():
                pytest.skip(f"annotations of {name} are not on this machine")
            prepare(load(name), source, folder / name, media=False)
        return folder / name

    return make


@pytest.mark.parametrize(
    ("name", "subset", "files", "floor", "floor_collar"),
    [
        pytest.param("ava_avd", "train", 243, 4.26, 2.73, marks=pytest.mark.slow),
        pytest.param("ava_avd", "development", 54, 4.82, 3.16, marks=pytest.mark.slow),
        pytest.param("ava_avd", "test", 54, 4.79, 2.92, marks=pytest.mark.slow),
        pytest.param("ami", "train", 136, None, None, marks=pytest.mark.slow),
        ("ami", "development", 18, 13.45, 8.24),
        ("ami", "test", 16, 14.55, 9.55),
    ],
)
def test_floors_of_real_protocols(real, name, subset, files, floor, floor_collar):
    found = open_protocol(load(name), real(name), None, subset)
    assert len(found) == files
    if floor is None:
        return
    figures = describe(found)
    assert figures["floor"] == pytest.approx(floor, abs=0.005)
    assert figures["floor_collar"] == pytest.approx(floor_collar, abs=0.005)


@pytest.mark.slow
def test_speakers_of_ava_avd(real):
    counts = [
        len(file["annotation"].labels())
        for subset in ("train", "development", "test")
        for file in open_protocol(load("ava_avd"), real("ava_avd"), None, subset)
    ]
    assert (min(counts), max(counts)) == (2, 24)
    assert np.mean(counts) == pytest.approx(7.7, abs=0.05)


@pytest.mark.slow
def test_visible_speech_of_ava_avd(real, shared_data):
    """35.8 % of speech is by a face that its row says is heard speaking, by name

    The figure depends on how rows of 24 to 30 pictures a second become time: 33.6 to 36.5 %. Where
    all rows of a track bear the name most of them have, as in prepared tracks, it is 40.5 %.
    """
    import pandas as pd

    from pyannote_av.evaluation.conditions import visible_speech
    from recipes.ava_avd.recipe import clip

    columns = ["movie", "time", "x1", "y1", "x2", "y2", "label", "entity", "name"]
    total = np.zeros(2)
    files = open_protocol(load("ava_avd"), real("ava_avd"), None, "test")
    for file in files:
        movie, which, start = clip(file["uri"])
        path = shared_data / "annotations" / "ava_avd" / "tracks" / f"{movie}.csv.gz"
        rows = pd.read_csv(path, names=columns)
        named = rows.name.str.fullmatch(rf"{which:02d}spk\d+")
        inside = (rows.time >= start) & (rows.time < start + 300)
        rows = rows[named & inside & (rows.label == "SPEAKING_AUDIBLE")]
        track, names = pd.factorize(rows.entity + " " + rows.name)
        tracks = FaceTracks(
            rows.time.to_numpy() - start,
            track,
            rows[["x1", "y1", "x2", "y2"]].to_numpy(),
            speaker={i: name.split()[-1][2:] for i, name in enumerate(names)},
        )
        total += visible_speech(file["annotation"], tracks, file["annotated"])
    assert 100 * total[0] / total[1] == pytest.approx(35.8, abs=1.0)
    assert describe(files)["visible_speech"] == pytest.approx(40.5, abs=0.1)


@pytest.mark.slow
def test_shipped_statistics_are_reproduced(shared_data, tmp_path):
    command = [sys.executable, "-m", "recipes.simulated.statistics", str(shared_data)]
    subprocess.run([*command, "--into", str(tmp_path)], check=True, cwd=ROOT)
    shipped = ROOT / "pyannote_av" / "simulation" / "fitted"
    for name in ("ava_avd", "ami"):
        expected = (shipped / f"{name}.json").read_bytes()
        assert (tmp_path / f"{name}.json").read_bytes() == expected


def test_a_recipe_of_ones_own_needs_no_change_of_the_package(tmp_path, monkeypatch, capsys):
    (tmp_path / "my_corpora").mkdir()
    (tmp_path / "my_corpora" / "talks.py").write_text(
        "from recipes import Recipe\n"
        "RECIPE = Recipe(name='talks', database='Talks', licence='mine', "
        "files=lambda folder: (), protocols=())\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["my_corpora.talks", "get", "--into", str(tmp_path / "raw")]) == 0
    assert "Talks: mine" in capsys.readouterr().out
    assert main(["my_corpora.nothing", "get"]) == 1
    assert "no recipe 'my_corpora.nothing'" in capsys.readouterr().err
