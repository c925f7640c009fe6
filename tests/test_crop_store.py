"""The store of crops: what is in it is what the videos show, whatever happens on the way."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from media import garbage, truncate, write_media
from talkers import make_talkers

from pyannote_av.core.checksums import fingerprint
from pyannote_av.core.io import Video
from pyannote_av.core.tracks import FaceTracks, Label
from pyannote_av.data.build import build_store
from pyannote_av.data.crop_store import CropStore
from pyannote_av.vision.crops import crop_video


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("media")
    return [make_talkers(folder, f"talk{i}", seed=i) for i in range(3)]


@pytest.fixture(scope="module")
def store(files, tmp_path_factory) -> CropStore:
    folder = tmp_path_factory.mktemp("store")
    report = build_store(folder, files)
    assert report.written == [file["uri"] for file in files]
    assert not report.failed
    assert not report.problems
    return CropStore(folder)


def copied(file: dict, folder: Path) -> dict:
    """The same file, to be damaged."""
    paths = {key: shutil.copy(file[key], folder) for key in ("video", "face_tracks")}
    return {"uri": file["uri"], **paths}


def test_crops_are_those_of_the_video(files, store):
    assert list(store) == ["talk0", "talk1", "talk2"]
    for file in files:
        uri, tracks = file["uri"], FaceTracks.read(file["face_tracks"])
        assert store[uri].tracks == {0: (0, 50), 1: (0, 50)}
        for segment in crop_video(tracks, file):
            crops, present = store.crops(uri, segment.track, segment.start, segment.end)
            assert (crops == segment.crops).all()
            assert (present == segment.present).all()


def test_sound_is_that_of_the_video(files, store):
    whole = Video().waveform(files[0]).numpy()[0]
    stored = store.waveform("talk0", 0, 50)
    assert stored.shape == (32000,)
    assert stored.dtype == np.float32
    assert np.abs(stored - whole[:32000]).max() < 1 / 32768
    assert (store.waveform("talk0", 10, 12) == stored[6400:7680]).all()


@given(st.integers(-20, 70), st.integers(0, 80))
@settings(max_examples=30, deadline=None)
def test_any_stretch_is_part_of_the_whole(store, start, length):
    whole, there = store.crops("talk1", 1, -20, 150)
    crops, present = store.crops("talk1", 1, start, start + length)
    assert (crops == whole[start + 20 : start + 20 + length]).all()
    assert (present == there[start + 20 : start + 20 + length]).all()
    assert (crops[~present] == 0).all()
    sound = store.waveform("talk1", -20, 150)
    part = store.waveform("talk1", start, start + length)
    assert (part == sound[640 * (start + 20) : 640 * (start + 20 + length)]).all()


def test_labels_are_not_in_it(store):
    tracks = store["talk0"].face_tracks
    assert (tracks.label == Label.UNKNOWN).all()
    assert tracks.speaker == {}
    assert len(tracks) == 100


def test_survives_being_sent_to_another_process(store):
    crops, _ = store.crops("talk0", 0, 0, 50)
    sent = pickle.dumps(store)
    assert len(sent) < 1000
    assert (pickle.loads(sent).crops("talk0", 0, 0, 50)[0] == crops).all()


def test_unknown_names(store, tmp_path):
    assert "talk9" not in store
    with pytest.raises(KeyError, match="'talk9' is not in the store"):
        store["talk9"]
    with pytest.raises(KeyError, match="no track 7"):
        store.crops("talk0", 7, 0, 1)
    with pytest.raises(FileNotFoundError, match="build_store"):
        CropStore(tmp_path)


def test_uris_may_be_anything(files, tmp_path):
    names = ["a b c", ".hidden", "Ä%2F", "x" * 200]
    report = build_store(tmp_path / "store", [{**files[0], "uri": name} for name in names])
    assert report.written == names
    assert list(report.store) == sorted(names)
    assert all(name in report.store for name in names)
    # nothing outside of the folder of shards
    assert len(list((tmp_path / "store" / "shards").iterdir())) == len(names)


def test_files_already_written_are_not_decoded_again(files, tmp_path):
    first = build_store(tmp_path, files[:2])
    written = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("crops.npy")}
    second = build_store(tmp_path, files)
    assert first.written == second.kept == ["talk0", "talk1"]
    assert second.written == ["talk2"]
    assert all(path.stat().st_mtime_ns == time for path, time in written.items())


def test_changed_media_and_tracks_are_noticed_by_content(files, tmp_path):
    file = copied(files[0], tmp_path)
    build_store(tmp_path / "store", [file])
    os.utime(file["video"])
    assert build_store(tmp_path / "store", [file]).kept == ["talk0"]
    shutil.copy(files[1]["video"], file["video"])
    assert build_store(tmp_path / "store", [file]).written == ["talk0"]
    tracks = FaceTracks.read(file["face_tracks"])
    tracks.of(1).write(file["face_tracks"])
    report = build_store(tmp_path / "store", [file])
    assert report.written == ["talk0"]
    assert list(CropStore(tmp_path / "store")["talk0"].tracks) == [1]


def test_fingerprint_sees_changes_in_the_middle(tmp_path):
    path = tmp_path / "file"
    data = bytearray(5 * 2**20)
    path.write_bytes(data)
    before = fingerprint(path)
    data[len(data) // 2 + 5] = 1
    path.write_bytes(data)
    assert fingerprint(path) != before


def test_damage_is_found(files, tmp_path):
    store = build_store(tmp_path, files[:2]).store
    assert store.verify() == {}
    path = store["talk1"].folder / "crops.npy"
    data = bytearray(path.read_bytes())
    data[-5] ^= 255
    path.write_bytes(data)
    assert list(store.verify()) == ["talk1"]
    assert "crops.npy" in store.verify()["talk1"]
    truncate(path, 0.5)
    with pytest.raises(ValueError, match="damaged"):
        CropStore(tmp_path).crops("talk1", 0, 0, 5)
    (path.parent / "index.json").write_text("{}")
    with pytest.raises(ValueError, match="damaged"):
        CropStore(tmp_path)["talk1"]
    assert list(CropStore(tmp_path).verify()) == ["talk1"]
    # and mended
    assert build_store(tmp_path, files[:2]).written == ["talk1"]
    assert CropStore(tmp_path).verify() == {}


def test_one_bad_file_does_not_stop_the_others(files, tmp_path):
    bad = {**files[0], "uri": "bad", "video": str(garbage(tmp_path / "bad.mp4"))}
    nothing = {"uri": "nothing", "face_tracks": files[0]["face_tracks"]}
    absent = {**files[0], "uri": "absent", "video": str(tmp_path / "absent.mp4")}
    report = build_store(tmp_path / "store", [bad, nothing, files[0], absent, files[1]])
    assert report.written == ["talk0", "talk1"]
    assert set(report.failed) == {"bad", "nothing", "absent"}
    assert "bad.mp4" in report.failed["bad"]
    assert "no video" in report.failed["nothing"]
    assert "absent.mp4" in report.failed["absent"]
    shutil.copy(files[2]["video"], bad["video"])
    again = build_store(tmp_path / "store", [bad, files[0], files[1]])
    assert again.written == ["bad"]
    assert again.kept == ["talk0", "talk1"]


def test_two_files_of_one_name(files, tmp_path):
    with pytest.raises(ValueError, match="two files are called 'talk0'"):
        build_store(tmp_path, [files[0], files[0]])


def test_file_without_tracks_and_file_without_sound(files, tmp_path):
    empty = {**files[0], "face_tracks": FaceTracks.empty()}
    mute = write_media(tmp_path / "mute.mp4", duration=2.0, audio=False)
    mute = {**files[1], "video": str(mute)}
    report = build_store(tmp_path / "store", [empty, mute])
    assert not report.failed
    assert report.problems == {"talk1": ["file 'talk1' has no sound"]}
    store = CropStore(tmp_path / "store")
    assert store["talk0"].tracks == {}
    assert len(store["talk0"].face_tracks) == 0
    assert (store.waveform("talk1", 0, 10) == 0).all()
    assert store.verify() == {}


def test_faces_are_looked_for_where_there_are_no_tracks(tmp_path):
    from pyannote_av.pipelines.face_tracking import FaceTracking

    file = make_talkers(tmp_path, "unknown", duration=0.6, num_faces=1)
    del file["face_tracks"]
    report = build_store(tmp_path / "store", [file])
    assert not report.failed
    found = FaceTracking(embedder=None)(file["video"])
    kept = report.store["unknown"].face_tracks
    assert (kept.box == found.box).all()
    assert report.store["unknown"].tracks.keys() == set(found.tracks)


def test_faces_absent_for_seconds(tmp_path):
    file = make_talkers(tmp_path, "long", duration=4.0, num_faces=1)
    tracks = FaceTracks.read(file["face_tracks"])
    here = (tracks.time < 0.5) | (tracks.time > 3.2)
    tracks.take(here).write(file["face_tracks"])
    store = build_store(tmp_path / "store", [file]).store
    assert store["long"].tracks == {0: (0, 100)}
    assert len(store["long"].pieces) == 2
    crops, present = store.crops("long", 0, 0, 100)
    assert (present == here).all()
    assert (crops[~here] == 0).all()
    assert crops[here].any(axis=(1, 2)).all()


def test_thirty_frames_per_second_and_sound_that_ends_early(tmp_path):
    file = make_talkers(tmp_path, "fast", fps=30, audio_end=1.0)
    store = build_store(tmp_path / "store", [file]).store
    assert store["fast"].tracks == {0: (0, 50), 1: (0, 50)}
    assert store["fast"].index["samples"] == 16000
    sound = store.waveform("fast", 0, 50)
    assert len(sound) == 32000
    assert (sound[16000:] == 0).all()
    assert np.abs(sound[:16000]).max() > 0.01


def test_tracks_that_go_on_after_the_pictures(files, tmp_path):
    file = copied(files[0], tmp_path)
    tracks = FaceTracks.read(file["face_tracks"])
    later = np.arange(50, 75) / 25
    more = FaceTracks(
        time=np.concatenate([tracks.time, later]),
        track=np.concatenate([tracks.track, np.zeros(25)]),
        box=np.concatenate([tracks.box, tracks.box[:25]]),
    )
    report = build_store(tmp_path / "store", [{**file, "face_tracks": more}])
    assert report.problems["talk0"][-1].startswith("25 of 125 boxes of file 'talk0' lie where")


@pytest.mark.slow
def test_several_processes_and_one_that_dies(files, tmp_path, monkeypatch):
    """A file that kills its process is named; the others are written"""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "from pathlib import Path\n"
        "open_ = Path.mkdir\n"
        "def mkdir(self, *args, **kwargs):\n"
        "    if self.name == '.talk1.partial':\n"
        "        os._exit(9)\n"
        "    return open_(self, *args, **kwargs)\n"
        "Path.mkdir = mkdir\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    report = build_store(tmp_path / "store", files, num_workers=2)
    assert report.failed == {"talk1": "the process that worked on it died (exit code 9)"}
    assert sorted(report.written + report.kept) == ["talk0", "talk2"]
    assert report.store.verify() == {}


KILLED = """
import json, sys, time
from pyannote_av.data import build as crop_store_build
from pyannote_av.data.crop_store import CropStore
sound = crop_store_build._sound
def slow(job, problems):
    if job.uri == "talk1":
        print("in the middle", flush=True)
        time.sleep(60)
    return sound(job, problems)
crop_store_build._sound = slow
crop_store_build.build_store(sys.argv[1], json.loads(sys.argv[2]))
"""


def test_killed_in_the_middle(files, tmp_path):
    plain = [{key: file[key] for key in ("uri", "video", "face_tracks")} for file in files]
    command = [sys.executable, "-c", KILLED, str(tmp_path), json.dumps(plain)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "in the middle\n"
        with pytest.raises(RuntimeError, match="another process is writing"):
            build_store(tmp_path, files)
        process.send_signal(signal.SIGKILL)
    assert list(CropStore(tmp_path)) == ["talk0"]
    assert (tmp_path / "shards" / ".talk1.partial").is_dir()
    report = build_store(tmp_path, files)
    assert report.kept == ["talk0"]
    assert report.written == ["talk1", "talk2"]
    assert report.store.verify() == {}
    assert not list((tmp_path / "shards").glob(".*"))


def test_memory_does_not_grow_with_the_number_of_files(store):
    """Memory maps hold file descriptors: few are kept open"""
    from pyannote_av.data import crop_store

    before = crop_store._OPEN_SHARDS
    crop_store._OPEN_SHARDS = 2
    try:
        fresh = CropStore(store.folder)
        for _ in range(3):
            for uri in fresh:
                fresh.crops(uri, 0, 0, 1)
        assert len(fresh._shards) == 2
    finally:
        crop_store._OPEN_SHARDS = before


def test_a_protocols_files_can_be_given_as_they_are(files, tmp_path):
    from talkers import make_protocol

    report = build_store(tmp_path, make_protocol(files[:1]).train())
    assert report.written == ["talk0"]
    start = time.perf_counter()
    assert build_store(tmp_path, make_protocol(files[:1]).train()).kept == ["talk0"]
    assert time.perf_counter() - start < 1
