"""Folders of results: nothing that was not written here is replaced, removed or followed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from conversations import voice, write_wav
from test_cli import run as run_command

from pyannote_av.batch.diarization import Diarize
from pyannote_av.batch.engines import Engine
from pyannote_av.batch.jobs import Job, Made
from pyannote_av.batch.ledger import (
    Ledger,
    events_path,
    failures_path,
    new_stage,
    read_events,
    read_record,
    record_path,
)
from pyannote_av.batch.outputs import place_of
from pyannote_av.batch.preparation import Prepare
from pyannote_av.batch.run import BatchReport, process
from pyannote_av.cli.apply import apply_all, apply_manifest
from pyannote_av.core.atomic import HOUSEKEEPING, locked, replacing, write_text
from pyannote_av.core.checksums import sha256_of
from pyannote_av.sharing.atomic_folder import new_folder

HERE = Engine(workers=0)


class Write:
    """Work that takes no time: <name>.txt, and <name>.more with the option `more`."""

    verb = "writing"

    def __init__(self, identity="one", more=False, before=lambda: None):
        self.identity, self.more, self.before = identity, more, before
        self.count = 0

    def load(self):
        pass

    def outputs(self, name: str, every: bool = False) -> list[str]:
        return [f"{name}.txt", *([f"{name}.more"] if self.more or every else [])]

    def process(self, job: Job, folder: Path) -> Made:
        self.count += 1
        self.before()
        for output in self.outputs(job.name):
            (folder / output).write_text(f"{self.identity} {job.name}")
        return Made(self.outputs(job.name))


class Silent(Write):
    """Does not say what it writes, as work of older versions."""

    outputs = None

    def process(self, job: Job, folder: Path) -> Made:
        self.count += 1
        (folder / f"{job.name}.txt").write_text(f"{self.identity} {job.name}")
        return Made([f"{job.name}.txt"])


class WriteShard(Write):
    """shards/<name> with an index."""

    def outputs(self, name: str, every: bool = False) -> list[str]:
        return [f"shards/{name}"]

    def process(self, job: Job, folder: Path) -> Made:
        self.count += 1
        (folder / "shards" / job.name).mkdir(parents=True)
        (folder / "shards" / job.name / "rows.npy").write_text(self.identity)
        index = {"sha256": {"rows.npy": "0"}, "of": self.identity}
        (folder / "shards" / job.name / "index.json").write_text(json.dumps(index))
        return Made(self.outputs(job.name))


@pytest.fixture
def job(tmp_path) -> Job:
    write_wav(tmp_path / "talk.wav", voice(90, 1.5, 0))
    return Job("talk", {"audio": str(tmp_path / "talk.wav")})


@pytest.fixture
def into(tmp_path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def do(work, job: Job, into: Path, **options) -> BatchReport:
    return process(work, [job], into, HERE, **options)


def tree(folder: Path) -> dict[str, str]:
    """All files and links that are no housekeeping, with their content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if HOUSEKEEPING not in path.parts and (path.is_symlink() or path.is_file()):
            name = str(path.relative_to(folder))
            found[name] = (
                os.readlink(path) if path.is_symlink() else path.read_text(errors="replace")
            )
    return found


def rewrite(into: Path, name: str = "talk", **changes) -> dict:
    """Change the record of a file."""
    record = {**json.loads(record_path(into, name).read_text()), **changes}
    record_path(into, name).write_text(json.dumps(record))
    return record


# --- records of somebody else ---------------------------------------------------------------------


@pytest.fixture
def victims(tmp_path, into) -> Path:
    """What must be there in the end: outside of the folder of results, and in it."""
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "index.json").write_text("{}")
    (tmp_path / "victim" / "thesis.txt").write_text("years")
    (into / "notes.txt").write_text("mine")
    (into / "talk.more").mkdir()
    (into / "talk.more" / "thesis.txt").write_text("years")
    (into / "way").symlink_to(tmp_path / "victim")
    (into / "circle").symlink_to("circle")
    return tmp_path


def digest_at(into: Path, output: str) -> str:
    """Digest that a record would have to know; of anything where there is none."""
    with suppress(OSError, ValueError):
        path = into / output
        return sha256_of(path / "index.json" if path.is_dir() else path)
    return "0" * 64


@pytest.mark.parametrize("make", [Write, Silent])
@pytest.mark.parametrize("fields", [("outputs",), ("replaced",), ("outputs", "replaced")])
@pytest.mark.parametrize(
    "output",
    [
        *("../victim", "../victim/thesis.txt", "sub/../../victim", "{absolute}", "way"),
        *("way/thesis.txt", "circle/x", ".", "", "./", "a\0b", "notes.txt", "talk.more"),
        *(".pyannote_av", ".pyannote_av/lock", ".PYANNOTE_AV/records", "\ud800", "x" * 5000),
    ],
)
def test_records_never_lead_to_what_was_not_written_here(
    output, fields, make, job, into, victims, caplog
):
    output = output.replace("{absolute}", str(victims / "victim"))
    do(make(), job, into)
    before = tree(victims)
    claimed = {output: digest_at(into, output), "talk.txt": sha256_of(into / "talk.txt")}
    # what was written to a stage is to be moved
    stage = new_stage(into, "talk").rename(into / HOUSEKEEPING / "unfinished" / ("a" * 32))
    (stage / "talk.txt").write_text("one talk")
    with suppress(OSError, ValueError):
        if Path(output).is_absolute():
            raise ValueError
        (stage / output).parent.mkdir(parents=True, exist_ok=True)
        (stage / output).write_text("evil")
        if "replaced" in fields:
            claimed[output] = sha256_of(stage / output)
    was = {**claimed, output: digest_at(into, output)}
    content = {"outputs": claimed, "replaced": was}
    rewrite(into, stage="a" * 32, **{field: content[field] for field in fields})
    events_path(into).write_text("")
    if output not in ("notes.txt", "talk.more", "x" * 5000):
        assert read_record(into, "talk") is None
        assert str(record_path(into, "talk")) in caplog.text
    # and then other work takes the place of that
    for work in (make(), make("two"), make("three", more=True)):
        do(work, job, into)
        after = tree(victims)
        changed = {name for name in {*before, *after} if before.get(name) != after.get(name)}
        assert changed <= {"out/talk.txt"}
    assert (into / HOUSEKEEPING / "lock").exists()


def deep(record: dict) -> str:
    return "[" * 100_000


def huge(record: dict) -> str:
    return json.dumps({**record, "more": "x" * 2**25})


@pytest.mark.parametrize(
    "content",
    [
        *("", "null", "[]", "7", '"done"', "{", "\0", '{"status": "done"}', deep, huge),
        *({"uri": "other"}, {"uri": 7}, {"key": 7}, {"attempts": "1"}, {"attempts": -(10**9)}),
        *({"outputs": []}, {"outputs": {"talk.txt": 7}}, {"problems": "x"}, {"problems": [1]}),
        *({"stage": "../../../victim"}, {"stage": None}, {"stage": ".."}, {"replaced": []}),
        *({"status": ["done"]}, {"status": "failed"}, {"status": "failed", "error": []}),
        {"status": "failed", "error": "x", "stage": 7, "problems": 7, "outputs": 7},
    ],
)
def test_records_that_are_none_are_ignored(content, job, into, caplog):
    do(Write(), job, into)
    record = json.loads(record_path(into, "talk").read_text())
    if isinstance(content, dict):
        content = json.dumps({**record, **content})
    record_path(into, "talk").write_text(content if isinstance(content, str) else content(record))
    (into / "talk.txt").unlink()
    assert do(Write(), job, into).done == ["talk"]
    assert str(record_path(into, "talk")) in caplog.text
    assert read_record(into, "talk")["status"] == "done"


def test_a_record_without_outputs_is_not_enough(job, into):
    do(Write(), job, into)
    rewrite(into, outputs={})
    assert "not written by pyannote-av" in do(Write(), job, into).failed["talk"]
    (into / "talk.txt").unlink()
    rewrite(into, outputs={})
    assert do(Write(), job, into).done == ["talk"]


def test_a_record_is_a_file(job, into, caplog):
    for make in (os.mkfifo, os.mkdir):
        do(Write(), job, into)
        record_path(into, "talk").unlink()
        make(record_path(into, "talk"))
        assert read_record(into, "talk") is None
        assert str(record_path(into, "talk")) in caplog.text
        (os.rmdir if make is os.mkdir else os.unlink)(record_path(into, "talk"))
        (into / "talk.txt").unlink()


@pytest.mark.parametrize(
    "line", ["[1]", "7", '{"stage": 7}', "[" * 10**5, "\udcff", '{"time": "20', "x" * 3 * 2**20]
)
def test_events_of_somebody_else(line, job, into):
    do(Write(), job, into)
    events_path(into).write_text(
        f"{line}\n" + events_path(into).read_text(), errors="surrogateescape"
    )
    assert len([one for one in read_events(into) if one.get("event") == "done"]) == 1
    new_stage(into, "talk")
    assert do(Write(), job, into).kept == ["talk"]


@pytest.mark.parametrize(
    "name",
    ["", "records", "unfinished", "lock", "events.jsonl", "files.json", "failures.json"],
)
@pytest.mark.parametrize("where", ["outside", "nowhere"])
def test_links_in_place_of_housekeeping_are_refused(name, where, job, into, tmp_path):
    is_folder = name in ("", "records", "unfinished")
    target = tmp_path / "target"
    if where == "outside":
        target.mkdir() if is_folder else target.write_text("mine")
        if is_folder:
            (target / ("a" * 32)).mkdir()
            (target / ("a" * 32) / "thesis.txt").write_text("years")
    link = into / HOUSEKEEPING / name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(target)
    before = tree(tmp_path)
    with pytest.raises(ValueError, match="move it") as error:
        do(Write(), job, into)
    assert str(link) in str(error.value)
    assert tree(tmp_path) == before
    assert not list(tmp_path.glob("*/talk.txt"))


def test_only_what_was_begun_here_is_thrown_away(job, into, tmp_path):
    do(Write(), job, into)
    unfinished = into / HOUSEKEEPING / "unfinished"
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "thesis.txt").write_text("years")
    (unfinished / ("a" * 32)).symlink_to(tmp_path / "victim")
    (unfinished / ("b" * 32)).mkdir()
    (unfinished / ("b" * 32) / "way").symlink_to(tmp_path / "victim")
    os.mkfifo(unfinished / ("b" * 32) / ".name")
    (unfinished / "mine").mkdir()
    do(Write(), job, into)
    assert (tmp_path / "victim" / "thesis.txt").read_text() == "years"
    assert {path.name for path in unfinished.iterdir()} == {"a" * 32, "mine"}


@pytest.mark.parametrize("kind", ["link", "other", "folder"])
def test_a_stage_of_somebody_else_is_not_moved(kind, job, into, tmp_path):
    do(Write(), job, into)
    (tmp_path / "secret").write_text("secret")
    (into / "talk.txt").unlink()
    record = read_record(into, "talk")
    stage = new_stage(into, "talk")
    stage = stage.rename(stage.with_name(record["stage"]))
    if kind == "link":
        (stage / "talk.txt").symlink_to(tmp_path / "secret")
        rewrite(into, outputs={"talk.txt": sha256_of(tmp_path / "secret")})
    elif kind == "other":
        (stage / "talk.txt").write_text("other")
    else:
        (stage / "talk.txt").mkdir()
    events_path(into).write_text("")
    assert do(Write(), job, into).done == ["talk"]
    assert tree(into) == {"talk.txt": "one talk"}


# --- files of others ------------------------------------------------------------------------------


def test_a_file_of_somebody_else_is_kept(job, into):
    (into / "talk.txt").write_text("mine")
    work = Write()
    report = do(work, job, into)
    assert f"{into}/talk.txt exists and was not written by pyannote-av" in report.failed["talk"]
    assert "move it, or use --overwrite" in report.failed["talk"]
    assert tree(into) == {"talk.txt": "mine"}
    assert work.count == 0, "that is found out before the work"
    # it does not count as an attempt
    (into / "talk.txt").unlink()
    assert do(work, job, into).done == ["talk"]
    assert tree(into) == {"talk.txt": "one talk"}


def test_overwriting_replaces_plain_files_only(job, into, tmp_path):
    (into / "talk.txt").write_text("mine")
    assert do(Write(), job, into, again=True).done == ["talk"]
    assert tree(into) == {"talk.txt": "one talk"}
    (into / "talk.txt").unlink()
    (into / "talk.txt").mkdir()
    (into / "talk.txt" / "thesis.txt").write_text("years")
    assert "is a folder" in do(Write(), job, into, again=True).failed["talk"]
    assert tree(into) == {"talk.txt/thesis.txt": "years"}
    (into / "talk.txt" / "thesis.txt").unlink()
    (into / "talk.txt").rmdir()
    (tmp_path / "target").write_text("mine")
    (into / "talk.txt").symlink_to(tmp_path / "target")
    assert "leads out of" in do(Write(), job, into, again=True).failed["talk"]
    (into / "talk.txt").unlink()
    (into / "talk.txt").symlink_to("target")
    (into / "target").write_text("mine")
    assert "a link" in do(Write(), job, into, again=True).failed["talk"]
    assert (into / "target").read_text() == "mine"
    assert (tmp_path / "target").read_text() == "mine"


def test_an_output_that_was_changed_is_kept(job, into):
    do(Write(), job, into)
    (into / "talk.txt").write_text("corrected")
    for work in (Write(), Write("two")):
        assert "was changed after" in do(work, job, into).failed["talk"]
        assert work.count == 0
        assert tree(into) == {"talk.txt": "corrected"}
    assert do(Write("two"), job, into, again=True).done == ["talk"]
    assert tree(into) == {"talk.txt": "two talk"}
    # ours, as it was written: no need to ask
    assert do(Write("three"), job, into).done == ["talk"]
    assert tree(into) == {"talk.txt": "three talk"}


def test_a_file_that_appears_during_the_work_is_kept(job, into):
    work = Write(before=lambda: (into / "talk.txt").write_text("mine"))
    assert "was not written by pyannote-av" in do(work, job, into).failed["talk"]
    assert tree(into) == {"talk.txt": "mine"}
    assert read_record(into, "talk")["status"] == "failed"
    (into / "talk.txt").unlink()
    assert do(Write(), job, into).done == ["talk"]


def test_outputs_that_are_out_of_date_are_removed_if_they_are_ours(job, into):
    do(Write(more=True), job, into)
    (into / "other.more").write_text("mine")
    do(Write("two"), job, into)
    assert tree(into) == {"talk.txt": "two talk", "other.more": "mine"}
    do(Write("three", more=True), job, into)
    (into / "talk.more").write_text("corrected")
    do(Write("four"), job, into)
    assert tree(into)["talk.more"] == "corrected"


def test_what_is_there_stays_when_doing_it_again_fails(job, into):
    def fail():
        raise ValueError("no")

    do(Write(), job, into)
    assert do(Write(before=fail), job, into, again=True).failed
    assert tree(into) == {"talk.txt": "one talk"}
    assert do(Write(), job, into).kept == ["talk"]


def test_folders_are_replaced_if_they_hold_nothing_else(job, into):
    do(WriteShard(), job, into)
    assert do(WriteShard("two"), job, into).done == ["talk"]
    shard = into / "shards" / "talk"
    assert (shard / "rows.npy").read_text() == "two"
    (shard / "thesis.txt").write_text("years")
    before = tree(into)
    work = WriteShard("three")
    assert "was not written by pyannote-av" in do(work, job, into).failed["talk"]
    assert work.count == 0
    (shard / "thesis.txt").unlink()
    (shard / "index.json").write_text("{}")
    assert do(WriteShard("three"), job, into).failed
    assert tree(into).keys() == before.keys() - {"shards/talk/thesis.txt"}


def test_a_store_may_not_lie_behind_a_link(job, into, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (into / "shards").symlink_to(tmp_path / "elsewhere")
    assert "leads out of" in do(WriteShard(), job, into).failed["talk"]
    assert not list((tmp_path / "elsewhere").iterdir())


def test_killed_while_a_result_takes_the_place_of_another(job, into):
    """What the record says is completed, if that is still the former result"""
    for content, done in (("one talk", "kept"), ("corrected", "failed")):
        shutil.rmtree(into)
        do(Write(), job, into)
        do(Write("two"), job, into)
        record = read_record(into, "talk")
        stage = new_stage(into, "talk")
        stage = stage.rename(stage.with_name(record["stage"]))
        os.replace(into / "talk.txt", stage / "talk.txt")
        (into / "talk.txt").write_text(content)
        events_path(into).write_text("")
        assert "talk" in getattr(do(Write("two"), job, into), done)
        assert tree(into) == {"talk.txt": "two talk" if done == "kept" else "corrected"}


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["x.json", "x" * 250 + ".json", "会" * 83 + ".txt", "a." + "s" * 253]
)
def test_temporary_names_fit_where_the_name_fits(name, tmp_path):
    with replacing(tmp_path / name) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == Path(name).suffix or len(Path(name).suffix) > 32
        temporary.write_text("new")
    write_text(tmp_path / name, "newer")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "newer"}


def test_temporary_names_cannot_be_foreseen(tmp_path):
    names = []
    for _ in range(2):
        with replacing(tmp_path / "x.json") as temporary:
            temporary.touch()
            names.append(temporary.name)
    assert len(set(names)) == 2


def test_names_that_are_too_long_are_refused_before_the_work(job, into):
    for name, fits in (("x" * 251, True), ("会" * 83, True), ("x" * 252, False)):
        work = Write()
        report = do(work, Job(name, job.media), into)
        assert (report.done == [name]) == fits
        assert work.count == fits
        if fits:
            assert do(work, Job(name, job.media), into).kept == [name]
        else:
            assert "too long" in report.failed[name]


@pytest.mark.parametrize("output", ["talk.rttm", "shards/talk", "sub/x.json"])
def test_places_of_outputs(output, into):
    assert place_of(into, output) == into / output


# --- commands -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    """Sound under names that housekeeping had, or has."""
    folder = tmp_path_factory.mktemp("media")
    write_wav(folder / "talk.wav", voice(90, 1.5, 0))
    for name in ("files", "failures", "records", "events", "lock", ".pyannote_av"):
        shutil.copy(folder / "talk.wav", folder / f"{name}.wav")
    (folder / "broken.wav").write_bytes(b"nothing")
    return folder


def told_by(apply, *arguments, **options) -> list[str]:
    lines: list[str] = []
    apply(*arguments, pipeline="audio", tell=lines.append, **options)
    return lines


@pytest.mark.slow
def test_media_may_be_called_as_housekeeping(media, into):
    names = ("files", "failures", "records", "events", "lock", ".pyannote_av")
    files = [media / f"{name}.wav" for name in (*names, "broken")]
    assert list(apply_all(files, into, "audio")) == [media / "broken.wav"]
    assert {path.name for path in into.iterdir()} == {
        HOUSEKEEPING,
        *(f"{name}.{kind}" for name in names for kind in ("html", "json", "rttm")),
    }
    assert all("diarization" in json.loads(path.read_text()) for path in into.glob("*.json"))
    # and the files are those of before when they come alone
    assert not apply_all([media / "files.wav"], into, "audio")
    assert list(json.loads(failures_path(into).read_text())) == [str(media / "broken.wav")]


def test_lists_and_files_are_done_alike(media, into, tmp_path):
    """What one has done, the other does not do again; both take no file for a result"""
    (tmp_path / "list.csv").write_text(f"uri,video\ntalk,{media}/talk.wav\n")
    for kind in ("rttm", "json"):
        (into / f"talk.{kind}").write_text("mine")
    assert (
        "not written by pyannote-av" in apply_all([media / "talk.wav"], into, "audio").popitem()[1]
    )
    report = apply_manifest(tmp_path / "list.csv", into, "audio", engine=HERE)
    assert "not written by pyannote-av" in report.failed["talk"]
    assert tree(into) == {"talk.rttm": "mine", "talk.json": "mine"}
    for kind in ("rttm", "json"):
        (into / f"talk.{kind}").unlink()
    assert not apply_all([media / "talk.wav"], into, "audio")
    assert not failures_path(into).exists()
    assert apply_manifest(tmp_path / "list.csv", into, "audio", engine=HERE).kept == ["talk"]
    (line,) = told_by(apply_all, [media / "talk.wav"], into)
    assert "already done, skipped" in line
    # other options, other result
    line, *summary = told_by(apply_all, [media / "talk.wav"], into, num_speakers=1)
    assert "1 speakers" in line
    assert [one.split(":")[0].strip() for one in summary] == ["SPEAKER_00"]


def test_failures_of_other_runs_are_kept(media, into, tmp_path, monkeypatch, capsys):
    broken = tmp_path / "broken.wav"
    shutil.copy(media / "broken.wav", broken)
    options = ["--into", into, "--pipeline", "audio", "--workers", 0]
    assert run_command(monkeypatch, "apply", broken, media / "broken.wav", *options) == 1
    assert f"2 of 2 files failed, see {failures_path(into)}" in capsys.readouterr().out
    assert run_command(monkeypatch, "apply", media / "talk.wav", *options) == 0
    assert len(json.loads(failures_path(into).read_text())) == 2
    shutil.copy(media / "talk.wav", broken)
    assert run_command(monkeypatch, "apply", broken, *options) == 0
    assert list(json.loads(failures_path(into).read_text())) == [str(media / "broken.wav")]


def test_trust_is_part_of_what_is_done():
    one, other = Diarize("audio"), Diarize("audio", trust=True)
    assert not one.trust
    assert one.identity != other.identity


@pytest.mark.parametrize("command", ["apply", "evaluate"])
def test_commands_can_be_told_to_trust(command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    run_command(monkeypatch, command, "--help")
    assert "--trust" in capsys.readouterr().out


def test_two_at_once(media, into, monkeypatch, capsys):
    """The second is told so, and nothing is lost"""
    hold = (
        "import sys; from pathlib import Path; from pyannote_av.core.atomic import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    options = ["--into", into, "--pipeline", "audio", "--workers", 0]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", hold, str(into)], **pipes) as other:
        assert other.stdout.readline() == "held\n"
        assert run_command(monkeypatch, "apply", media / "talk.wav", *options) == 2
        assert "another process is writing to" in capsys.readouterr().err
        assert not tree(into)
    assert run_command(monkeypatch, "apply", media / "talk.wav", *options) == 0


def test_a_lock_is_not_held_by_two_threads(into):
    told = []

    def other():
        try:
            with locked(into):
                told.append("locked")
        except RuntimeError as error:
            told.append(str(error))

    with locked(into):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert "another process" in told[0]


# --- folders of older versions --------------------------------------------------------------------


def as_before(into: Path, records: bool) -> None:
    """Lay a folder out as older versions did: with records of lists, without those of files."""
    home = into / HOUSEKEEPING
    if records:
        (home / "records").rename(into / "records")
        (home / "events.jsonl").rename(into / "events.jsonl")
    else:
        (home / "files.json").rename(into / "files.json")
    shutil.rmtree(home)


def test_lists_that_an_older_version_began(job, into):
    do(Write(), job, into)
    as_before(into, records=True)
    assert do(Write(), job, into).kept == ["talk"]
    assert do(Write("two"), job, into).done == ["talk"], "it is ours: the record says so"
    assert tree(into)["talk.txt"] == "two talk"
    assert do(Write("two"), job, into).kept == ["talk"], "the new record goes before the old one"
    (into / "records" / "talk.json").write_text("{")
    assert do(Write("two"), job, into).kept == ["talk"]


def test_records_of_older_versions_are_not_read_behind_a_link(job, into, tmp_path):
    do(Write(), job, into)
    as_before(into, records=True)
    (into / "records").rename(tmp_path / "elsewhere")
    (into / "records").symlink_to(tmp_path / "elsewhere")
    assert read_record(into, "talk") is None


def test_files_that_an_older_version_did(media, into, tmp_path):
    assert not apply_all([media / "talk.wav"], into, "audio")
    as_before(into, records=False)
    before = tree(into)
    for _ in range(2):
        (line,) = told_by(apply_all, [media / "talk.wav"], into)
        assert "done by an older version, which did not record its options; skipped" in line
    assert tree(into) == before
    # another of the same name, and one that is not complete
    (tmp_path / "talk.wav").write_bytes((media / "talk.wav").read_bytes())
    assert not apply_all([tmp_path / "talk.wav"], into, "audio")
    assert (into / "talk.wav.rttm").is_file()
    (into / "talk.json").unlink()
    (line,) = told_by(apply_all, [media / "talk.wav"], into)
    assert "FAILED" in line
    assert "talk.rttm exists and was not written" in line


@pytest.mark.parametrize(
    "content",
    [
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("[]", '{"a": 7}')),
        "[" * 10**5,
        '{"talk": "/elsewhere"}',
    ],
)
@pytest.mark.parametrize("name", ["files.json", ".pyannote_av/files.json"])
def test_lists_of_names_of_somebody_else(name, content, media, into):
    (into / HOUSEKEEPING).mkdir()
    (into / name).write_text(content)
    assert not apply_all([media / "talk.wav"], into, "audio", formats=["rttm"])
    expected = "talk.wav.rttm" if "elsewhere" in content else "talk.rttm"
    assert (into / expected).is_file()


# --- disks ----------------------------------------------------------------------------------------


def test_what_cannot_be_noted_is_not_said_to_be_done(job, into):
    """A line of events that is cut off stops the run; the next one completes it"""
    with Ledger(into, Write()) as ledger:

        class Full:
            def write(self, line: bytes) -> int:
                return len(line) // 2

        ledger._events = Full()
        with pytest.raises(OSError, match="cannot write to") as error:
            process(Write(), [job], ledger, HERE)
        assert "No space left" in str(error.value)
    assert do(Write(), job, into).done == ["talk"]


# --- stores ---------------------------------------------------------------------------------------


def test_prepare_leaves_folders_of_others(into, tmp_path):
    from talkers import make_talkers

    from pyannote_av.data.build import build_store
    from pyannote_av.data.crop_store import CropStore

    make_talkers(tmp_path, "one", duration=0.6, num_faces=1)
    job = Job("one", {"video": str(tmp_path / "one.mp4")})
    mine = into / "shards" / "one"
    mine.mkdir(parents=True)
    (mine / "thesis.txt").write_text("years")
    assert "not written by pyannote-av" in do(Prepare(into), job, into).failed["one"]
    assert tree(into) == {"shards/one/thesis.txt": "years"}
    shutil.rmtree(mine)
    # one that is there without a record, of other media, is replaced as far as it is a shard
    build_store(into, [{"uri": "one", "video": job.media["video"]}])
    make_talkers(tmp_path, "one", duration=0.8, num_faces=1)
    assert do(Prepare(into), job, into).done == ["one"]
    assert CropStore(into).verify() == {}


@pytest.mark.parametrize("content", ["mine", "[]", '{"name": "my web application"}', "[" * 10**5])
def test_prepare_keeps_a_manifest_of_somebody_else(content, into, tmp_path):
    from pyannote_av.cli.prepare import prepare

    (into / "manifest.json").write_text(content)
    (tmp_path / "list.csv").write_text("uri,video\none,one.mp4\n")
    with pytest.raises(ValueError, match=r"manifest\.json exists and was not written"):
        prepare(None, into, manifest=tmp_path / "list.csv")
    assert tree(into) == {"manifest.json": content}


# --- folders that appear at once ------------------------------------------------------------------


def write_folder(into: Path, *names: str, overwrite: bool = True) -> None:
    with new_folder(into, overwrite=overwrite) as folder:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("new")


def test_a_folder_is_replaced(tmp_path):
    write_folder(tmp_path / "into", "config.yaml", "a/model.safetensors")
    with pytest.raises(FileExistsError, match="already exists"):
        write_folder(tmp_path / "into", "config.yaml", overwrite=False)
    (tmp_path / "into" / "config.yaml").write_text("old")
    write_folder(tmp_path / "into", "config.yaml", "a/model.safetensors", "README.md")
    assert tree(tmp_path) == dict.fromkeys(
        ("into/README.md", "into/a/model.safetensors", "into/config.yaml"), "new"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["into"]


@pytest.mark.parametrize(
    "name",
    [
        *("thesis.txt", "thesis.json", "README.md", "model.safetensors", ".hidden"),
        *("a/thesis.odt", "a/model.safetensors", ".git/HEAD"),
    ],
)
def test_a_folder_with_files_of_others_is_not_replaced(name, tmp_path):
    into = tmp_path / "into"
    write_folder(into, "config.yaml", "a/weights.npz")
    (into / name).parent.mkdir(parents=True, exist_ok=True)
    (into / name).write_text("years")
    before = tree(tmp_path)
    with pytest.raises(FileExistsError, match=f"has no {name}"):
        write_folder(into, "config.yaml", "a/weights.npz")
    assert tree(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["into"]


def test_a_file_that_comes_while_a_folder_is_written_is_kept(tmp_path):
    into = tmp_path / "into"
    write_folder(into, "config.yaml")

    def write_and_wait():
        with new_folder(into, overwrite=True) as folder:
            (folder / "config.yaml").write_text("new")
            (into / "thesis.txt").write_text("years")

    with pytest.raises(FileExistsError, match=r"thesis\.txt"):
        write_and_wait()
    assert tree(into)["thesis.txt"] == "years"


@pytest.mark.parametrize("target", ["folder", "empty", "file", "nowhere"])
def test_links_are_not_replaced_by_folders(target, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "config.yaml").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "into").symlink_to(target)
    before = tree(tmp_path)
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="symbolic link"):
            write_folder(tmp_path / "into", "config.yaml", overwrite=overwrite)
    assert tree(tmp_path) == before


def test_targets_of_links_in_a_folder_are_kept(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    into = tmp_path / "into"
    write_folder(into, "config.yaml", "thesis.txt")
    (into / "thesis.txt").unlink()
    (into / "thesis.txt").symlink_to(tmp_path / "mine" / "thesis.txt")
    write_folder(into, "config.yaml", "thesis.txt")
    (into / "way").symlink_to(tmp_path / "mine")
    with pytest.raises(FileExistsError, match="has no way"):
        write_folder(into, "config.yaml", "thesis.txt")
    assert tree(tmp_path / "mine") == {"thesis.txt": "years"}


def test_the_former_folder_comes_back_when_the_new_one_cannot_be_put_there(tmp_path, monkeypatch):
    into = tmp_path / "into"
    write_folder(into, "config.yaml")
    (into / "config.yaml").write_text("old")
    replace = os.replace

    def write_and_lose():
        with new_folder(into, overwrite=True) as folder:
            (folder / "config.yaml").write_text("new")

            def fail_once(source, target):
                if source == folder:
                    raise OSError("no")
                replace(source, target)

            monkeypatch.setattr(os, "replace", fail_once)

    with pytest.raises(OSError, match="no"):
        write_and_lose()
    assert tree(tmp_path) == {"into/config.yaml": "old"}
