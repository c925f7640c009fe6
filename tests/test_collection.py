"""Collections: every file done once, whatever happens on the way."""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from conversations import voice, write_wav
from copies import Copy, make_jobs
from media import garbage
from typer.testing import CliRunner

from pyannote_av.batch.engines import Engine
from pyannote_av.batch.identity import pipeline_identity
from pyannote_av.batch.jobs import Job, Made
from pyannote_av.batch.ledger import (
    events_path,
    failures_path,
    new_stage,
    read_events,
    read_record,
)
from pyannote_av.batch.manifest import read_manifest
from pyannote_av.batch.run import Limits, StartError, process
from pyannote_av.core.checksums import sha256_of
from pyannote_av.data.build import build_store

HERE = Engine(workers=0)


@pytest.fixture
def jobs(tmp_path) -> list[Job]:
    return make_jobs(tmp_path / "media", 5)


def counted(into: Path, event: str = "done") -> dict[str, int]:
    return dict(Counter(e["uri"] for e in read_events(into) if e["event"] == event))


def unfinished_of(into: Path) -> Path:
    return into / ".pyannote_av" / "unfinished"


def content(into: Path) -> dict[str, str]:
    return {p.name: sha256_of(p) for p in into.iterdir() if p.suffix in (".copy", ".rttm", ".json")}


# --- lists of files ------------------------------------------------------------------------------


def test_a_list_is_read(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text(
        "uri,video,audio,num_speakers,max_speakers\n"
        'monday,media/monday.mp4,,2,\n"a, b",x.mkv,/far/x.wav,,3\n'
    )
    monday, other = read_manifest(path)
    assert monday == Job(
        "monday", {"video": str(tmp_path / "media/monday.mp4")}, {"num_speakers": 2}
    )
    assert other.name == "a, b"
    assert other.media == {"video": str(tmp_path / "x.mkv"), "audio": "/far/x.wav"}
    assert other.options == {"max_speakers": 3}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "line 1: a header with uri, and video or audio"),
        ("uri,num_speakers\n", "line 1: a header with uri"),
        ("uri,vidoe\n", "line 1: unknown column 'vidoe'"),
        ("uri,video,video\n", "line 1: column video is listed twice"),
        ("uri,video\n", "has a header, but no files"),
        ("uri,video\na,x\nb,\n", "line 3: neither video nor audio"),
        ("uri,video\na,x\nb,y\na,z\n", "line 4, column uri: 'a' is already in line 2"),
        ("uri,video\na,x,y\n", "line 2: more fields than the header has"),
        ("uri,video\n../a,x\n", "line 2, column uri: '../a' cannot be a name"),
        ("uri,video\n,x\n", "line 2, column uri: '' cannot be a name"),
        (f"uri,video\n{'a' * 300},x\n", "longer than 248 bytes"),
        ("uri,video,num_speakers\na,x,two\n", "line 2, column num_speakers: 'two' is not a number"),
        ("uri,video,min_speakers\na,x,0\n", "line 2, column min_speakers: '0' is not a number"),
        (
            "uri,video,min_speakers,max_speakers\na,x,3,2\n",
            "line 2: min_speakers=3 is more than max_speakers=2",
        ),
        ('uri,video\na,"x\n', "line 2: unexpected end"),
    ],
)
def test_what_is_wrong_with_a_list_is_said(text, says, tmp_path):
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"list\.csv") as error:
        read_manifest(path)
    assert says in str(error.value)


def test_a_list_that_is_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such file: .*list\.csv"):
        read_manifest(tmp_path / "list.csv")
    (tmp_path / "list.csv").write_bytes(b"uri,video\n\xff\xfe\n")
    with pytest.raises(ValueError, match=r"list\.csv, line 2: not UTF-8 \(byte 0xff\)"):
        read_manifest(tmp_path / "list.csv")


# --- once ----------------------------------------------------------------------------------------


def test_what_is_done_is_not_done_again(jobs, tmp_path):
    into = tmp_path / "out"
    first = process(Copy(), jobs, into, HERE)
    assert sorted(first.done) == [job.name for job in jobs]
    assert first.problems == {"file2": ["odd"]}
    record = read_record(into, "file1")
    assert record["status"] == "done"
    assert record["attempts"] == 1
    assert record["outputs"] == {"file1.copy": sha256_of(into / "file1.copy")}
    again = process(Copy(), jobs, into, HERE)
    assert sorted(again.kept) == sorted(first.done)
    assert not again.done
    assert again.problems == first.problems
    assert set(counted(into).values()) == {1}
    assert not list(unfinished_of(into).iterdir())
    assert len(process(Copy(), jobs, into, HERE, again=True).done) == 5


def test_what_has_changed_is_done_again(jobs, tmp_path):
    into = tmp_path / "out"
    process(Copy(), jobs, into, HERE)
    os.utime(jobs[0].media["audio"])
    write_wav(Path(jobs[1].media["audio"]), voice(300, 1.5, 9))
    jobs[2] = Job(jobs[2].name, jobs[2].media, {"num_speakers": 2})
    jobs[3] = Job(jobs[3].name, jobs[3].media, columns={"face_tracks": Path(__file__)})
    (into / "file4.copy").unlink()
    report = process(Copy(), jobs, into, HERE)
    assert sorted(report.done) == ["file1", "file2", "file3", "file4"]
    assert report.kept == ["file0"]
    assert sha256_of(into / "file1.copy") == sha256_of(jobs[1].media["audio"])
    assert len(process(Copy(identity="other"), jobs, into, HERE).done) == 5


def test_failures_are_tried_so_often(jobs, tmp_path):
    into = tmp_path / "out"
    process(Copy(), jobs[:1], into, HERE)
    jobs[0] = Job(jobs[0].name, jobs[0].media, {"num_speakers": 13})
    report = process(Copy(), jobs, into, HERE, Limits(retries=2))
    assert report.failed == {"file0": "ValueError: 13 is too many"}
    assert len(report.done) == 4
    assert not (into / "file0.copy").exists(), "what was made of it with other options is stale"
    assert counted(into, "failed") == {"file0": 3}

    report = process(Copy(), jobs, into, HERE, Limits(retries=2))
    assert "tried 3 times before" in report.failed["file0"]
    assert "--retry-failed" in report.failed["file0"]
    process(Copy(), jobs, into, HERE, Limits(retries=3))
    assert counted(into, "failed") == {"file0": 4}
    process(Copy(), jobs, into, HERE, Limits(retries=0, retry_failed=True))
    assert counted(into, "failed") == {"file0": 5}
    # another file under the same name has not failed yet
    jobs[0] = Job(jobs[0].name, jobs[0].media)
    assert process(Copy(), jobs, into, HERE, Limits(retries=0)).done == ["file0"]


def test_media_that_cannot_be_looked_at(jobs, tmp_path):
    into = tmp_path / "out"
    process(Copy(), jobs, into, HERE)
    garbage(Path(jobs[0].media["audio"]))
    os.unlink(jobs[1].media["audio"])
    os.unlink(jobs[2].media["audio"])
    os.mkfifo(jobs[2].media["audio"])
    report = process(Copy(), jobs, into, HERE)
    assert sorted(report.failed) == ["file0", "file1", "file2"]
    assert "file1.wav: no such file" in report.failed["file1"]
    assert "is not a regular file" in report.failed["file2"]
    # recordings may be put away once they are done
    assert (into / "file1.copy").is_file()
    assert read_record(into, "file1")["status"] == "done"
    write_wav(Path(jobs[0].media["audio"]), voice(90, 1.5, 0))
    assert "file0" in process(Copy(), jobs[:1], into, HERE).kept


def test_interrupted_between_record_and_outputs(jobs, tmp_path):
    """The record is what counts: what it says is completed"""
    whole, into = tmp_path / "whole", tmp_path / "out"
    for folder in (whole, into):
        process(Copy(), jobs, folder, HERE)
    record = read_record(into, "file3")
    stage = new_stage(into, "file3").rename(unfinished_of(into) / record["stage"])
    os.replace(into / "file3.copy", stage / "file3.copy")
    lines = events_path(into).read_text().splitlines(keepends=True)
    kept = [line for line in lines if not ("file3" in line and '"done"' in line)]
    # and the line before it is cut off
    events_path(into).write_text("".join(kept) + '{"time": "20')
    # somebody else's, of which there is no record
    new_stage(into, "nobody")
    report = process(Copy(), jobs, into, HERE)
    assert len(report.kept) == 5
    assert content(into) == content(whole)
    assert counted(into) == counted(whole) == {job.name: 1 for job in jobs}
    assert not list(unfinished_of(into).iterdir())


def test_outputs_that_are_folders(jobs, tmp_path):
    into = tmp_path / "out"
    work = Copy(into_folder=True)
    for _ in range(2):
        process(work, jobs[:1], into, HERE)
    assert counted(into) == {"file0": 1}
    write_wav(Path(jobs[0].media["audio"]), voice(300, 1.5, 9))
    process(work, jobs[:1], into, HERE)
    assert sha256_of(into / "parts/file0/index.json") == sha256_of(jobs[0].media["audio"])


SCRIPT = """
import sys
from pathlib import Path
from copies import Copy, make_jobs
from pyannote_av.batch.engines import Engine
from pyannote_av.batch.run import process
if __name__ == "__main__":
    media, into, count = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    jobs = make_jobs(media, count)
    print("ready", flush=True)
    report = process(Copy(seconds=0.05), jobs, into, Engine(workers=1))
    sys.exit(len(report.failed))
"""


def start(tmp_path: Path, into: Path, count: int = 20) -> subprocess.Popen:
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    arguments = [str(tmp_path / name) for name in ("script.py", "media")]
    process = subprocess.Popen(
        [sys.executable, *arguments, str(into), str(count)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    process.stdout.readline()
    return process


@pytest.mark.slow
@pytest.mark.parametrize("kills", [(8,), (3, 7, 12, 17)])
def test_killed_again_and_again(kills, tmp_path):
    whole, into = tmp_path / "whole", tmp_path / "out"
    rng = random.Random(0)
    killed = 0
    assert start(tmp_path, whole).wait() == 0
    for target in kills:
        with start(tmp_path, into) as process:
            while process.poll() is None and len(counted(into)) < target:
                time.sleep(0.005)
            time.sleep(rng.uniform(0.0, 0.1))
            killed += process.poll() is None
            process.kill()
    assert killed
    assert start(tmp_path, into).wait() == 0
    assert content(into) == content(whole)
    assert counted(into) == counted(whole) == {f"file{i}": 1 for i in range(20)}


def test_two_at_once(jobs, tmp_path):
    into = tmp_path / "out"
    with start(tmp_path, into) as other:
        deadline = time.monotonic() + 30
        while not read_events(into) and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(RuntimeError, match="another process is writing to"):
            process(Copy(), jobs, into, HERE)
        other.send_signal(signal.SIGKILL)


# --- what hangs, dies, or fills the disk ---------------------------------------------------------


@pytest.mark.slow
def test_a_file_that_cannot_be_opened_in_time(jobs, tmp_path):
    """Somebody else has a lease on it: whoever opens it waits, as on a disk that does not answer"""
    if not hasattr(fcntl, "F_SETLEASE"):
        pytest.skip("leases are a thing of Linux")
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    with open(jobs[1].media["audio"], "rb+") as file:
        try:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError:
            pytest.skip("no leases on this file system")
        limits = Limits(timeout=1.5, retries=0)
        report = process(Copy(), jobs, tmp_path / "out", Engine(workers=1), limits)
    assert report.failed == {"file1": "TimedOut: not finished after 1.5 s: the process was killed"}
    assert len(report.done) == 4
    assert process(Copy(), jobs, tmp_path / "out", HERE).done == ["file1"]


@pytest.mark.slow
def test_work_that_takes_too_long(jobs, tmp_path):
    limits = Limits(timeout=1.0, retries=1)
    report = process(Copy(seconds=30), jobs[:1], tmp_path, Engine(workers=1), limits)
    assert report.failed == {"file0": "TimedOut: not finished after 1 s: the process was killed"}
    assert counted(tmp_path, "failed") == {"file0": 2}
    assert not list(tmp_path.glob("*.copy"))


def test_limits_follow_the_duration():
    assert Limits().of(10.0) == 600.0
    assert Limits().of(3600.0) == 72000.0
    assert Limits(timeout=5.0).of(3600.0) == 5.0


def test_work_that_cannot_begin(jobs, tmp_path):
    with pytest.raises(StartError, match="no weights"):
        process(Copy(identity="unready"), jobs, tmp_path, HERE)
    assert not counted(tmp_path)


@pytest.fixture
def small_disk(tmp_path):
    """300 kB"""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can make a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk(small_disk, tmp_path):
    jobs = make_jobs(tmp_path / "media", 12)  # of 48 kB each
    into = small_disk / "out"
    with pytest.raises(OSError, match="No space left on device") as error:
        process(Copy(), jobs, into, HERE)
    assert "finished files are kept" in str(error.value)
    done = counted(into)
    assert 1 <= len(done) < 12
    assert all((into / f"{name}.copy").is_file() for name in done)
    subprocess.run(["mount", "-o", "remount,size=5m", str(small_disk)], check=True)
    report = process(Copy(), jobs, into, HERE)
    assert sorted(report.kept) == sorted(done)
    assert len(report.done) + len(report.kept) == 12
    assert set(counted(into).values()) == {1}


# --- engines -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": "slurm"}, "unknown engine 'slurm'"),
        ({"name": "ray", "workers": 0}, "at least one worker"),
        ({"address": "auto"}, "need the engine ray"),
    ],
)
def test_engines_that_are_none(options, says):
    with pytest.raises(ValueError, match=says):
        Engine(**options)


def test_ray_is_an_extra(jobs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'pyannote-av\[ray\]'"):
        process(Copy(), jobs, tmp_path, Engine("ray"))


def on_one_gpu(job, result, final):
    assert result.note == "copied on 0", "workers see the GPU that they share, and no other"


@pytest.mark.slow
def test_workers_of_ray_share_gpus(tmp_path, monkeypatch):
    """Ray takes our word for how many there are: it is the sharing that is looked at"""
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    jobs = make_jobs(tmp_path / "media", 6)
    ray.init(num_cpus=3, num_gpus=1, include_dashboard=False, log_to_driver=False)
    try:
        # the third finds no room, and the other two do the work
        engine = Engine("ray", workers=3, gpus=0.5)
        report = process(Copy(seconds=0.2), jobs, tmp_path / "out", engine, tell=on_one_gpu)
    finally:
        ray.shutdown()
    assert len(report.done) == 6
    assert not report.failed


@pytest.mark.slow
def test_ray_with_two_machines_of_which_one_is_lost(tmp_path, monkeypatch):
    """Nothing is lost, nothing done twice, what hangs and what is damaged fail alone"""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    jobs = make_jobs(tmp_path / "media", 12)
    garbage(Path(jobs[3].media["audio"]))
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    lost = []

    def lose(job, result, final):
        if isinstance(result, Made) and not lost:
            lost.append(job.name)
            cluster.remove_node(second, allow_graceful=False)

    try:
        with open(jobs[6].media["audio"], "rb+") as file:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            limits = Limits(timeout=4.0, retries=2)
            engine = Engine("ray", workers=2, address=cluster.address)
            report = process(Copy(seconds=0.3), jobs, tmp_path / "out", engine, limits, tell=lose)
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert lost
    assert sorted(report.failed) == ["file3", "file6"]
    assert "TimedOut" in report.failed["file6"]
    assert "file3.wav" in report.failed["file3"]
    assert len(report.done) == 10
    assert set(counted(tmp_path / "out").values()) == {1}


# --- commands ------------------------------------------------------------------------------------


def run(command, *arguments: object):
    import typer

    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_apply_a_list(tmp_path):
    from pyannote_av.cli.apply import command

    make_jobs(tmp_path, 2)
    garbage(tmp_path / "bad.wav")
    (tmp_path / "list.csv").write_text(
        "uri,audio,num_speakers\none,file0.wav,1\ntwo,file1.wav,\nbad,bad.wav,\n"
    )
    into = tmp_path / "out"
    options = ["--manifest", tmp_path / "list.csv", "--into", into, "--pipeline", "audio"]
    options += ["--workers", 0]
    first = run(command, *options, "--retries", 0)
    assert first.exit_code == 1
    assert "2 files done, 0 done before, 1 failed" in first.output
    assert "bad.wav cannot be opened" in json.loads(failures_path(into).read_text())["bad"]
    assert "SPEAKER one 1" in (into / "one.rttm").read_text()
    before = content(into)
    (tmp_path / "list.csv").write_text("uri,audio,num_speakers\none,file0.wav,1\ntwo,file1.wav,\n")
    again = run(command, *options)
    assert again.exit_code == 0
    assert "0 files done, 2 done before, 0 failed" in again.output
    assert "bad" in json.loads(failures_path(into).read_text()), "this run did not touch it"
    assert content(into) == before


def test_what_apply_does_not_take(tmp_path):
    from pyannote_av.cli.apply import command

    assert "give files, or --manifest" in run(command, "--into", tmp_path).output
    both = run(command, tmp_path / "x.mp4", "--manifest", tmp_path / "l.csv", "--into", tmp_path)
    assert "give files, or --manifest" in both.output
    (tmp_path / "l.csv").write_text("uri,audio\na,a.wav\n")
    options = ["--manifest", tmp_path / "l.csv", "--into", tmp_path / "out"]
    nobody = run(command, *options, "--pipeline", "nobody")
    assert nobody.exit_code == 2
    assert "nobody" in nobody.output
    alone = run(command, *options, "--engine", "ray", "--device", "cuda")
    assert "go together" in alone.output
    assert not (tmp_path / "out").exists()


def test_prepare_a_list(tmp_path):
    from talkers import make_talkers

    from pyannote_av.cli.prepare import command
    from pyannote_av.data.crop_store import CropStore

    make_talkers(tmp_path, "one", duration=0.6, num_faces=1)
    (tmp_path / "list.csv").write_text("uri,video\none,one.mp4\ntwo,one.mp4\n")
    into = tmp_path / "store"
    build_store(into, [{"uri": "two", "video": str(tmp_path / "one.mp4")}])
    done = run(command, "--manifest", tmp_path / "list.csv", "--into", into, "--workers", 0)
    assert done.exit_code == 0, done.output
    # what was there before there were records is kept, too
    assert "1 files written, 1 already present, 0 failed" in done.output
    assert CropStore(into).uris == ["one", "two"]
    assert CropStore(into).verify() == {}
    manifest = json.loads((into / "manifest.json").read_text())
    assert manifest[str(tmp_path / "list.csv")]["all"]["files"] == ["one", "two"]
    assert "give a protocol, or --manifest" in run(command, "--into", into).output


def test_evaluate_goes_on_from_what_is_there(tmp_path):
    import warnings

    from pyannote.database import registry

    from pyannote_av.cli.evaluate import command

    make_jobs(tmp_path, 2)
    (tmp_path / "all.lst").write_text("file0\nfile1\n")
    (tmp_path / "all.rttm").write_text(
        "".join(f"SPEAKER file{i} 1 0.4 0.6 <NA> <NA> a <NA> <NA>\n" for i in range(2))
    )
    (tmp_path / "all.uem").write_text("file0 1 0 1.5\nfile1 1 0 1.5\n")
    (tmp_path / "database.yml").write_text(
        "Protocols:\n  SpeakingScores:\n    SpeakerDiarization:\n      Test:\n        test:\n"
        "          uri: all.lst\n          annotation: all.rttm\n          annotated: all.uem\n"
        "          audio: '{uri}.wav'\n"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        registry.load_database(tmp_path / "database.yml")
    into = tmp_path / "heard"
    options = ["--protocol", "SpeakingScores.SpeakerDiarization.Test", "--pipeline", "audio"]
    first = run(command, *options, "--into", into, "--workers", 0)
    assert first.exit_code == 0, first.output
    again = run(command, *options, "--into", into, "--workers", 0)
    assert again.output == first.output
    assert counted(into / "audio") == {"file0": 1, "file1": 1}
    assert "needs --into" in run(command, *options, "--engine", "ray").output
    garbage(tmp_path / "file1.wav")
    broken = run(command, *options, "--into", into, "--workers", 0)
    assert broken.exit_code == 1
    assert "audio failed on 'file1'" in broken.output


def test_a_pipeline_is_known_by_its_content(tmp_path):
    folder = tmp_path / "pipeline"
    folder.mkdir()
    shipped = Path(__file__).parent.parent / "pyannote_av" / "pretrained" / "audio" / "config.yaml"
    text = shipped.read_text()
    (folder / "config.yaml").write_text(text.replace("threshold: 0.43", "threshold: 0.5"))
    changed = pipeline_identity(folder)
    assert changed != pipeline_identity("audio")
    (folder / "config.yaml").write_text(text)
    assert pipeline_identity(folder) == pipeline_identity("audio")
    (folder / "weights.bin").write_bytes(b"one")
    reference = text.replace("embedding: campplus", "embedding: $model/weights.bin")
    (folder / "config.yaml").write_text(reference)
    one = pipeline_identity(folder)
    (folder / "weights.bin").write_bytes(b"two")
    assert pipeline_identity(folder) not in (one, pipeline_identity("audio"))
    (folder / "weights.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"weights\.bin"):
        pipeline_identity(folder)
