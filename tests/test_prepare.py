"""``pyannote-av prepare`` and the strict columns of protocols."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
from pyannote.database import registry
from talkers import make_talkers
from typer.testing import CliRunner

from pyannote_av.cli.prepare import command, files_of, prepare
from pyannote_av.core.checksums import sha256_of
from pyannote_av.data.crop_store import CropStore
from pyannote_av.formats.loaders import StrictLAB, StrictRTTM, StrictUEM

NAME = "Drawn.SpeakerDiarization.Talkers"
COLUMNS = """\
          annotation: annotation/{uri}.rttm_strict
          annotated: annotated/{uri}.uem_strict
          lab: lab/{uri}.lab_strict
          video: "{uri}.mp4"
          face_tracks: "{uri}.npz"
"""


def write_corpus(folder: Path, train: list[str], development: list[str]) -> Path:
    """A protocol of small videos; returns its ``database.yml``"""
    for kind in ("annotation", "annotated", "lab"):
        (folder / kind).mkdir()
    for seed, uri in enumerate(train + development):
        file = make_talkers(folder, uri, duration=1.0, seed=seed)
        rttm = file["annotation"].to_rttm()
        (folder / "annotation" / f"{uri}.rttm_strict").write_text(rttm)
        (folder / "annotated" / f"{uri}.uem_strict").write_text(f"{uri} 1 0.0 1.0\n")
        (folder / "lab" / f"{uri}.lab_strict").write_text("0.0 1.0 speech\n")
    (folder / "train.lst").write_text("".join(f"{uri}\n" for uri in train))
    (folder / "development.lst").write_text("".join(f"{uri}\n" for uri in development))
    text = "Protocols:\n  Drawn:\n    SpeakerDiarization:\n      Talkers:\n        scope: file\n"
    for subset in ("train", "development"):
        text += f"        {subset}:\n          uri: {subset}.lst\n{COLUMNS}"
    path = folder / "database.yml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), ["one", "two"], ["three"]).parent


@pytest.fixture
def database(corpus, tmp_path):
    return shutil.copytree(corpus, tmp_path / "corpus") / "database.yml"


def run(*arguments: object, workers: int = 0):
    import typer

    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [*map(str, arguments), "--workers", str(workers)])


def test_prepare_twice(database, tmp_path):
    into = tmp_path / "store"
    done = run(NAME, "--into", into, "--database", database)
    assert done.exit_code == 0, done.output
    assert "3 files written, 0 already present, 0 failed" in done.output
    store = CropStore(into)
    assert store.uris == ["one", "three", "two"]
    assert store.verify() == {}
    assert len(store["one"].tracks) == 2
    manifest = json.loads((into / "manifest.json").read_text())
    assert manifest[NAME]["train"] == {"files": ["one", "two"], "failed": {}, "problems": {}}
    assert manifest[NAME]["development"]["files"] == ["three"]
    again = run(NAME, "--into", into, "--database", database)
    assert "0 files written, 3 already present, 0 failed" in again.output


def test_voices_and_a_first_pass_are_kept_beside_the_faces(database, tmp_path):
    from pyannote_av.data.first_pass import read_first_pass
    from pyannote_av.data.speaker_embeddings import read_speaker_embeddings
    from pyannote_av.models.embedding.voiceprints import num_windows

    into = tmp_path / "store"
    result = run(NAME, "--into", into, "--database", database, "--voices", "--first-pass")
    assert result.exit_code == 0, result.output
    voices = read_speaker_embeddings(CropStore(into))
    assert sorted(voices) == ["one", "three", "two"]
    assert voices["one"].shape == (num_windows(25), 192)
    said = read_first_pass(CropStore(into))
    assert sorted(said) == ["one", "three", "two"]
    assert len(said["one"]) == 100


def test_identities_are_kept_beside_the_faces(database, tmp_path):
    from pyannote_av.data.face_embeddings import FaceEmbeddings

    into = tmp_path / "store"
    result = run(NAME, "--into", into, "--database", database, "--identities")
    assert result.exit_code == 0, result.output
    store = CropStore(into)
    identities = FaceEmbeddings(store)
    for uri in store.uris:
        assert uri in identities
        assert len(identities[uri].vector) == len(store[uri].face_samples.track)


@pytest.mark.slow
def test_subset_and_workers_give_the_same(database, tmp_path):
    common = [NAME, "--database", database, "--subset", "train"]
    done = run(*common, "--into", tmp_path / "a", workers=1)
    assert done.exit_code == 0, done.output
    assert CropStore(tmp_path / "a").uris == ["one", "two"]
    prepare(NAME, tmp_path / "b", ["train"], database=database)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert set(json.loads((tmp_path / "a" / "manifest.json").read_text())[NAME]) == {"train"}


def content(store: Path) -> dict[str, str]:
    return {
        str(path.relative_to(store)): sha256_of(path)
        for path in sorted((store / "shards").rglob("*"))
        if path.is_file()
    }


@pytest.mark.slow
def test_killed_and_resumed(database, tmp_path):
    prepare(NAME, tmp_path / "whole", database=database)
    into = tmp_path / "store"
    arguments = [NAME, "--into", str(into), "--database", str(database)]
    code = "import sys, typer; from pyannote_av.cli.prepare import command; typer.run(command)"
    process = subprocess.Popen([sys.executable, "-c", code, *arguments])
    deadline = time.monotonic() + 60
    while not list(into.glob("shards/*")) and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (into / "manifest.json").exists()
    report = prepare(NAME, into, database=database)
    assert len(report.written) + len(report.kept) == 3
    assert content(into) == content(tmp_path / "whole")


def test_one_bad_file_does_not_stop_the_others(database, tmp_path):
    folder = database.parent
    (folder / "one.mp4").write_bytes(b"no video at all")
    (folder / "two.npz").unlink()
    done = run(NAME, "--into", tmp_path / "store", "--database", database)
    assert done.exit_code == 1
    assert "1 files written, 0 already present, 2 failed" in done.output
    assert str(folder / "one.mp4") in done.output
    assert "two.npz" in done.output
    manifest = json.loads((tmp_path / "store" / "manifest.json").read_text())[NAME]
    assert sorted(manifest["train"]["failed"]) == ["one", "two"]
    assert manifest["development"]["files"] == ["three"]
    # repaired, it goes on
    for seed, uri in enumerate(("one", "two")):
        make_talkers(folder, uri, duration=1.0, seed=seed)
    assert run(NAME, "--into", tmp_path / "store", "--database", database).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["Drawn.SpeakerDiarization.Nobody"], "no protocol 'Drawn.SpeakerDiarization.Nobody'"),
        (["Nobody.SpeakerDiarization.Talkers"], f"choose from .*{NAME}"),
        (["Talkers"], "'Talkers' is not a protocol: names read DATABASE.TASK.PROTOCOL"),
        ([NAME, "--subset", "dev"], "no subset 'dev'; choose from train, development, test"),
        ([NAME, "--subset", "test"], f"{NAME} has no subset 'test'"),
    ],
)
def test_unknown_names(database, tmp_path, arguments, says):
    done = run(*arguments, "--into", tmp_path / "store", "--database", database)
    assert done.exit_code == 1
    assert not (tmp_path / "store").exists()
    assert re.search(says, done.output.replace("\n", " "))


def test_no_database(tmp_path):
    done = run(NAME, "--into", tmp_path / "store", "--database", tmp_path / "nowhere.yml")
    assert done.exit_code == 1
    assert "no such file" in done.output


def test_malformed_database(database, tmp_path):
    database.write_text("Protocols:\n  - {uri}.mp4\n")
    done = run(NAME, "--into", tmp_path / "store", "--database", database)
    assert done.exit_code == 1
    assert "line 2" in done.output


def test_file_listed_twice(database):
    (database.parent / "development.lst").write_text("two\nthree\n")
    with pytest.raises(ValueError, match="'two' is in train and again in development"):
        files_of(NAME, database=database)


# --- strict columns ------------------------------------------------------------------------------


def first(database: Path):
    """First file of the protocol; pyannote.database reads references on the way to it"""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Replacing existing")
        registry.load_database(database)
    return next(iter(registry.get_protocol(NAME).train()))


def test_columns_load(database):
    one = first(database)
    assert one["annotation"].uri == "one"
    assert sorted(one["annotation"].labels()) == ["person0", "person1"]
    assert one["annotated"].duration() == 1
    assert one["lab"].duration() == 1


def test_absent_uri_is_an_error(database):
    path = database.parent / "annotation" / "one.rttm_strict"
    path.write_text("SPEAKER tw0 1 0.1 0.2 <NA> <NA> a <NA> <NA>\n")
    with pytest.raises(ValueError, match=r"one.rttm_strict has no entry for 'one'; it has 'tw0'"):
        first(database)


def test_empty_reference_is_silence(database):
    (database.parent / "annotation" / "one.rttm_strict").write_text("")
    assert not first(database)["annotation"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("SPEAKER one 1 -0.1 0.2 <NA> <NA> a <NA> <NA>", "negative start"),
        ("SPEAKER one 1 0.1 nan <NA> <NA> a <NA> <NA>", "must be finite"),
        ("SPEAKER one 1 0.1 -0.2 <NA> <NA> a <NA> <NA>", "negative duration"),
        ("nonsense one 1 0.1 0.2 <NA> <NA> a", "is not an RTTM type"),
    ],
)
def test_malformed_lines_are_named(database, tmp_path, line, says):
    path = database.parent / "annotation" / "one.rttm_strict"
    path.write_text(f"SPEAKER one 1 0.1 0.2 <NA> <NA> a <NA> <NA>\n{line}\n")
    with pytest.raises(ValueError, match=says) as error:
        first(database)
    assert f"{path}, line 2" in str(error.value)
    done = run(NAME, "--into", tmp_path / "store", "--database", database)
    assert done.exit_code == 1
    assert says in done.output


def test_missing_files_are_named(database):
    one, folder = first(database), database.parent
    (folder / "one.mp4").unlink()
    with pytest.raises(FileNotFoundError, match=r"one\.mp4"):
        one["video"]
    (folder / "lab" / "one.lab_strict").unlink()
    with pytest.raises(FileNotFoundError, match=r"one\.lab_strict"):
        one["lab"]


def test_loaders_of_several_files(tmp_path):
    rttm = tmp_path / "all.rttm_strict"
    line = "SPEAKER {} 1 0.1 0.2 <NA> <NA> a <NA> <NA>\n"
    rttm.write_text(line.format("x") + line.format("y"))
    load = StrictRTTM(rttm)
    assert load({"uri": "x"}).uri == "x"
    rttm.unlink()
    assert load({"uri": "y"}).uri == "y"  # read once
    (tmp_path / "all.uem_strict").write_text("x 1 0 3\nx 1 2 4\n")
    with pytest.raises(ValueError, match=r"all.uem_strict, line 2"):
        StrictUEM(tmp_path / "all.uem_strict")({"uri": "x"})
    (tmp_path / "x.lab_strict").write_text("0 1 laughter\n")
    with pytest.raises(ValueError, match=r"x.lab_strict, line 1"):
        StrictLAB(tmp_path / "x.lab_strict")({"uri": "x"})


def test_other_protocols_keep_their_loaders():
    """Suffixes of pyannote.database are not ours, whatever is installed last"""
    from importlib.metadata import entry_points

    ours = [
        point.name
        for point in entry_points(group="pyannote.database.loader")
        if point.value.startswith("pyannote_av")
    ]
    assert {".rttm_strict", ".uem_strict", ".lab_strict"} <= set(ours)
    assert not {".rttm", ".uem", ".lab", ".stm", ".map"} & set(ours)
