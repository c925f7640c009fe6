"""Tuning: the same trials whatever happens, nothing computed twice, and a pipeline in the end."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyannote.audio
import pyannote.pipeline
import pytest
import torch
import typer
import yaml
from media import write_media
from pyannote.core import Annotation, Segment, SlidingWindow, SlidingWindowFeature, Timeline
from pyannote.database.util import load_rttm
from pyannote.pipeline.parameter import Categorical, Uniform
from scipy.io import wavfile
from typer.testing import CliRunner

from pyannote_av import Pipeline
from pyannote_av.clustering.windowed_file import ScoredFaces
from pyannote_av.core.atomic import locked
from pyannote_av.core.caching import Entry, checksum
from pyannote_av.core.tracks import FaceSamples, FaceTracks, PictureStats
from pyannote_av.fusion.targets import FaceFeatures
from pyannote_av.pipelines.speaking_scores import SpeakingScores
from pyannote_av.tuning.evaluator import Evaluation
from pyannote_av.tuning.freezing import flat, freeze
from pyannote_av.tuning.hashing import file_checksum, pipeline_checksum
from pyannote_av.tuning.search import optimize
from pyannote_av.tuning.serialization import from_bytes, to_bytes
from pyannote_av.tuning.trials import SAMPLERS, Schedule, finished

SAMPLE = Path(pyannote.audio.__file__).parent / "sample" / "sample.wav"
PROTOCOL = "Small.SpeakerDiarization.Small"
#: what is tuned of AudioDiarization in most tests
FREEZE = ("clustering.method",)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def write_corpus(folder: Path, spans: dict[str, tuple[int, int]]) -> Path:
    """database.yml of excerpts of pyannote's sample, by name and seconds."""
    rate, samples = wavfile.read(SAMPLE)
    reference = load_rttm(SAMPLE.with_suffix(".rttm"))["sample"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "list.txt").write_text("".join(f"{uri}\n" for uri in spans))
    for uri, (start, end) in spans.items():
        wavfile.write(folder / f"{uri}.wav", rate, samples[start * rate : end * rate])
        turns = Annotation(uri=uri)
        for turn, track, label in reference.itertracks(yield_label=True):
            if inside := turn & Segment(start, end):
                turns[Segment(inside.start - start, inside.end - start), track] = label
        with open(folder / f"{uri}.rttm", "w") as file:
            turns.write_rttm(file)
        (folder / f"{uri}.uem").write_text(f"{uri} 1 0.000 {end - start:.3f}\n")
    return write_database(folder, audio="{uri}.wav")


def write_database(folder: Path, **columns: str) -> Path:
    entries = {"annotation": "{uri}.rttm", "annotated": "{uri}.uem", **columns}
    files = {"uri": "list.txt"} | entries
    content = {
        "Databases": {"Small": "./{uri}.wav"},
        "Protocols": {
            "Small": {"SpeakerDiarization": {"Small": {"scope": "file", "development": files}}}
        },
    }
    path = folder / "database.yml"
    path.write_text(yaml.safe_dump(content))
    return path


def files_of(database: Path) -> list:
    from pyannote_av.core.protocols import files_of

    return files_of(PROTOCOL, ["development"], database)["development"]


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), {"one": (6, 14), "two": (14, 22)})


@pytest.fixture(scope="module")
def files(database) -> list:
    return files_of(database)


@pytest.fixture(scope="module")
def undisturbed(files, tmp_path_factory) -> Path:
    """A study of 14 trials: TPE draws the last ones from what was found"""
    into = tmp_path_factory.mktemp("undisturbed") / "study"
    optimize("audio", files, into, trials=14, freeze=FREEZE)
    return into


def trials(into: Path) -> list[dict]:
    """What was tried, and what came out"""
    rows = json.loads((into / "trials.json").read_text())["trials"]
    return [{name: row[name] for name in ("trial", "state", "values", "params")} for row in rows]


def entries(cache: Path) -> dict[str, float]:
    """When entries of a cache were written"""
    return {path.name: path.stat().st_mtime_ns for path in cache.glob("??/*.entry")}


def run(*arguments) -> tuple[int, str]:
    from pyannote_av.cli.optimize import command

    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    return result.exit_code, result.output


# entries


def test_entries_are_what_was_kept():
    rng = np.random.default_rng(0)
    tracks = FaceTracks(
        time=[0.0, 0.04],
        track=[3, 3],
        box=[[0.1, 0.1, 0.2, 0.3]] * 2,
        uri="x",
        frame_size=(64, 48),
        embeddings={3: np.ones(4, np.float32)},
        stats=PictureStats(frames=2),
    )
    window = SlidingWindow(duration=1.5, step=0.1, start=0.2)
    scores = rng.random((4, 5, 2)).astype(np.float32)
    samples = FaceSamples(np.array([3]), np.array([1]), rng.random((1, 8)))
    speaking = SpeakingScores(
        3, 5, np.ones(2, bool), np.array([0.5, np.nan], np.float32), scores, scores
    )
    turns = Annotation(uri="x")
    turns[Segment(0.1, 0.30000000000000004), "t"] = "a"
    value = {
        "plain": [None, True, 3, 0.1, "word", (1, (2.0,))],
        np.int64(7): ScoredFaces(tracks, samples),
        "speaking": [speaking],
        "features": {3: [FaceFeatures(2, scores[0].astype(np.float16), np.ones(5, bool))]},
        "feature": SlidingWindowFeature(scores, window, labels=["a", "b"]),
        "turns": (turns, turns.get_timeline()),
        "nothing": np.zeros((0, 3)),
    }
    entry = Entry("stage", 1.25, value)
    back = from_bytes(to_bytes(entry))
    assert (back.name, back.seconds) == ("stage", 1.25)
    assert checksum(back.value) == checksum(value)
    assert back.value[7].tracks == tracks
    assert back.value["turns"][0] == turns
    assert back.value["feature"].labels == ["a", "b"]
    back.value["nothing"][:] = 1  # may be written to


def test_entries_that_are_not_whole_are_not_read():
    content = to_bytes(Entry("stage", 1.0, np.arange(100)))
    rng = np.random.default_rng(0)
    for damaged in (b"", content[:40], content[:-1], rng.bytes(200)):
        with pytest.raises(ValueError, match="damaged"):
            from_bytes(damaged)
    flipped = bytearray(content)
    flipped[-10] ^= 1
    with pytest.raises(ValueError, match="damaged"):
        from_bytes(bytes(flipped))


def test_records_of_other_versions_are_computed_again(tmp_path, monkeypatch, caplog):
    from pyannote_av.tuning import serialization
    from pyannote_av.tuning.cache import Cache

    address, features = "ab" * 32, FaceFeatures(2, np.zeros((5, 3)), np.ones(5, bool))
    cache = Cache(tmp_path)
    cache.write(address, Entry("features", 1.0, {3: [features]}))
    assert Cache(tmp_path).read(address) is not None
    # a version that does not have this class
    records = {k: v for k, v in serialization._RECORDS.items() if v is not FaceFeatures}
    monkeypatch.setattr(serialization, "_RECORDS", records)
    assert Cache(tmp_path).read(address) is None
    assert "written by another version" in caplog.text
    assert "computed again" in caplog.text
    assert not cache.path(address).exists()


def test_code_is_no_entry():
    import pickle

    with pytest.raises(ValueError, match="damaged"):
        from_bytes(pickle.dumps(np.arange(3)))
    with pytest.raises(TypeError, match="cannot be cached"):
        to_bytes(Entry("stage", 1.0, object()))


# checksums


def test_checksums_are_of_content(tmp_path):
    path = tmp_path / "one.wav"
    path.write_bytes(b"sound" * 1000)
    file = {"uri": "one", "audio": str(path), "lab": Timeline([Segment(0, 1)])}
    same = file_checksum(file)
    other = tmp_path / "two.wav"
    other.write_bytes(path.read_bytes())
    assert file_checksum({**file, "uri": "two", "audio": other, "annotation": 1}) == same
    other.write_bytes(b"Sound" + path.read_bytes()[5:])
    assert file_checksum({**file, "audio": str(other)}) != same
    assert file_checksum({**file, "lab": Timeline([Segment(0, 1 + 1e-9)])}) != same
    with pytest.raises(FileNotFoundError, match="'one': there is no audio"):
        file_checksum({**file, "audio": str(tmp_path / "gone.wav")})


def test_checksums_of_pipelines_are_of_what_they_are_made_of():
    pipeline = Pipeline.from_pretrained("audio")
    first = pipeline_checksum(pipeline)
    assert pipeline_checksum(Pipeline.from_pretrained("audio")) == first
    pipeline.instantiate({"clustering": {"threshold": 0.7}})  # hyper-parameters are in keys
    assert pipeline_checksum(pipeline) == first
    pipeline.embedding_exclude_overlap = False
    assert pipeline_checksum(pipeline) != first
    pipeline.embedding_exclude_overlap = True
    with torch.no_grad():
        next(pipeline.segmentation_model.parameters()).view(-1)[0] += 1e-3
    assert pipeline_checksum(pipeline) != first


# freezing


def test_freezing():
    pipeline = Pipeline.from_pretrained("audio")
    freeze(pipeline, ["segmentation", "clustering.threshold=0.7"])
    found = flat(pipeline.parameters(frozen=True))
    assert found == {"segmentation.min_duration_off": 0.0, "clustering.threshold": 0.7}
    assert flat(pipeline.parameters(instantiated=True))["clustering.threshold"] == 0.7


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["threshold=1"],
            "unknown hyper-parameter 'threshold'; choose from segmentation.min_duration_off",
        ),
        (["clustering=1"], "clustering is a group"),
        (["clustering.threshold=5"], "cannot be 5; allowed: values from 0 to 2"),
        (["clustering.threshold=no"], "cannot be False"),
        (["clustering.method=nearest"], "allowed: one of average, centroid"),
        (["clustering.threshold=1", "clustering.threshold=2"], "frozen at 1"),
        (["clustering", "segmentation"], "nothing to tune"),
    ],
)
def test_what_cannot_be_frozen(names, message):
    with pytest.raises(ValueError, match=message):
        freeze(Pipeline.from_pretrained("audio"), names)


# studies


def test_the_first_trial_is_what_the_pipeline_has(undisturbed):
    found = trials(undisturbed)
    assert [one["trial"] for one in found] == list(range(14))
    given = flat(Pipeline.from_pretrained("audio").parameters(instantiated=True))
    given.pop("clustering.method")
    assert found[0]["params"] == given
    assert len({str(one["params"]) for one in found}) == 14


def test_the_best_pipeline_makes_the_errors_of_the_best_trial(undisturbed, files):
    from pyannote.audio import Pipeline as Stock

    found = trials(undisturbed)
    best = min(found, key=lambda one: one["values"][0])
    for load in (Pipeline, Stock):
        pipeline = load.from_pretrained(undisturbed / "best")
        params = flat(pipeline.parameters(instantiated=True))
        assert {name: params[name] for name in best["params"]} == best["params"]
        metric = pipeline.get_metric()
        for file in files:
            plain = {"uri": file["uri"], "audio": str(file["audio"])}
            hypothesis = pipeline(plain).speaker_diarization
            metric(file["annotation"], hypothesis, uem=file["annotated"])
        assert abs(metric) == best["values"][0]


def test_tables_and_picture(undisturbed):
    lines = (undisturbed / "trials.csv").read_text().splitlines()
    assert lines[0].startswith("trial,state,diarization error rate,seconds,clustering.")
    assert len(lines) == 15
    assert (undisturbed / "importance.png").read_bytes().startswith(b"\x89PNG")
    content = json.loads((undisturbed / "trials.json").read_text())
    assert content["cache"]["entries"] == 4  # segmentation and embeddings, of two files


@pytest.mark.slow
def test_going_on_is_as_if_never_stopped(undisturbed, files, tmp_path):
    written = []
    for total in (1, 4, 4, 14):
        optimize("audio", files, tmp_path / "study", total, freeze=FREEZE, cache=tmp_path / "cache")
        written.append(entries(tmp_path / "cache"))
    # the first trial computes what is slow, and no later one does so again
    assert len(written[0]) == 4
    assert all(one == written[0] for one in written)
    assert trials(tmp_path / "study") == trials(undisturbed)


SCRIPT = """
import sys
from pyannote_av.cli.optimize import command
import typer
typer.run(command)
"""


def begin(database: Path, into: Path, *options) -> subprocess.Popen:
    """The command, in a process of its own"""
    command = [sys.executable, "-c", SCRIPT, "audio", PROTOCOL, "--into", into]
    command += ["--database", database, *options, "--freeze", *FREEZE]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([str(one) for one in command], env=environment)


def wait_for(into: Path, done: int, process: subprocess.Popen) -> None:
    """Until so many trials are recorded"""
    journal = into / "study.journal"
    while process.poll() is None:
        if journal.exists() and journal.read_bytes().count(b'"op_code":4') >= done:
            return
        time.sleep(0.01)


@pytest.mark.slow
def test_killed_and_begun_again_it_ends_the_same(undisturbed, database, files, tmp_path):
    into = tmp_path / "study"
    process = begin(database, into, "--trials", 14)
    wait_for(into, 3, process)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    # killed while it wrote
    with open(into / "study.journal", "a") as journal:
        journal.write('{"op_code":5,"wor')
    before = entries(into / "cache")
    assert before
    optimize("audio", files, into, trials=14, freeze=FREEZE)
    assert trials(into) == trials(undisturbed)
    # nothing was computed again
    assert before.items() <= entries(into / "cache").items()
    assert len(entries(into / "cache")) == 4


@pytest.mark.slow
def test_two_processes(undisturbed, files, tmp_path):
    into = tmp_path / "study"
    optimize("audio", files, into, trials=4, processes=2, freeze=FREEZE)
    # what is random is the same for any number of processes
    assert trials(into) == trials(undisturbed)[:4]
    assert len(entries(into / "cache")) == 4


@pytest.mark.slow
def test_two_processes_and_two_more(undisturbed, database, files, tmp_path):
    into = tmp_path / "study"
    process = begin(database, into, "--trials", 9, "--processes", 2)
    wait_for(into, 2, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    # those that it had begun end with it, and are waited for
    result = optimize("audio", files, into, trials=9, processes=2, freeze=FREEZE)
    # what is random is the same for any number of processes
    assert trials(into) == trials(undisturbed)[:9]
    assert result.value == min(one["values"][0] for one in trials(undisturbed)[:9])
    assert len(entries(into / "cache")) == 4


@pytest.mark.slow
def test_a_process_that_dies_does_not_stop_the_others(undisturbed, database, tmp_path):
    into = tmp_path / "study"
    process = begin(database, into, "--trials", 100, "--processes", 2)
    wait_for(into, 4, process)
    # workers are forked from a process that has imported what they need
    rows = subprocess.check_output(["ps", "-wweo", "pid=,ppid=,args="], text=True).splitlines()
    rows = [(int(pid), int(parent), line) for pid, parent, line in (r.split(None, 2) for r in rows)]
    (server,) = [
        pid for pid, parent, line in rows if parent == process.pid and "forkserver" in line
    ]
    workers = [pid for pid, parent, _ in rows if parent == server]
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    assert process.wait() == 0
    found = trials(into)
    assert [one["trial"] for one in found] == list(range(100))
    assert found[:10] == trials(undisturbed)[:10]


class Toy(pyannote.pipeline.Pipeline):
    """Two hyper-parameters, and nothing to run"""

    def __init__(self):
        super().__init__()
        self.threshold, self.method = Uniform(0, 1), Categorical(["one", "other"])


@pytest.mark.parametrize("objectives", [1, 2])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_trials_depend_on_results_that_all_processes_wait_for(sampler, objectives):
    toy = Toy().instantiate({"threshold": 0.5, "method": "one"})
    schedule = Schedule(toy, objectives, seed=0, sampler=sampler, lag=4)

    def rate(trial) -> float:
        return abs(trial.params["threshold"] - 0.3) + 0.1 * (trial.params["method"] == "one")

    def evaluated(trial):
        return finished(trial, Evaluation([rate(trial)] * objectives, [rate(trial)], 1.0))

    found = []
    for number in range(24):
        ready = list(map(evaluated, found))
        trial, (params, limits) = schedule.next(ready)
        assert (params, limits) == (trial.params, [])
        # the last three need not be done yet
        early, _ = schedule.next([*ready[: max(0, number - 3)], *found[max(0, number - 3) :]])
        assert early.params == trial.params
        found.append(trial)
    assert found[0].params == {"threshold": 0.5, "method": "one"}
    assert len({one.params["threshold"] for one in found}) == 24
    if sampler == "TPESampler":
        assert np.mean(list(map(rate, found[14:]))) < np.mean(list(map(rate, found[:10])))


def test_trials_worse_than_the_median_are_pruned():
    toy = Toy().instantiate({"threshold": 0.5, "method": "one"})
    schedule = Schedule(toy, 1, seed=0, sampler="RandomSampler", prune=True)
    trials = []
    for rate in (0.1, 0.2, 0.3, 0.4, 0.5):
        trial, (_, limits) = schedule.next(trials)
        assert limits == []
        trials.append(finished(trial, Evaluation([rate], [2 * rate, rate, rate], 1.0)))
    trial, (_, limits) = schedule.next(trials)
    assert limits == [0.6, 0.3]
    # pruned trials are compared with nothing
    trials.append(finished(trial, Evaluation(None, [0.9], 1.0)))
    assert schedule.next(trials)[1][1] == limits
    with pytest.raises(
        ValueError, match="the error rate of a trial is nan: do the files have a reference"
    ):
        finished(trial, Evaluation([np.nan], [np.nan], 1.0))


@pytest.mark.slow
def test_a_study_is_about_one_thing(undisturbed, files, tmp_path):
    def again(pipeline="audio", files=files, freeze=FREEZE, **options):
        optimize(pipeline, files, undisturbed, trials=14, freeze=freeze, **options)

    again()
    for changes, what in (
        ({"seed": 1}, r"seed \(0, not 1\)"),
        ({"num_speakers": "oracle"}, "references"),
        ({"cost": True}, "objectives"),
        ({"freeze": ()}, "tuned"),
        ({"freeze": ("clustering.method=centroid",)}, "clustering.method"),
        ({"files": files[:1]}, r"files \(two\)"),
    ):
        with pytest.raises(ValueError, match=rf"study with other settings: .*{what}"):
            again(**changes)
    config = yaml.safe_load((undisturbed / "best" / "config.yaml").read_text())
    config["pipeline"]["params"]["embedding_exclude_overlap"] = False
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ValueError, match="other settings: pipeline"):
        again(pipeline=tmp_path)


def test_one_at_a_time(files, tmp_path):
    with locked(tmp_path), pytest.raises(RuntimeError, match="another process is writing to"):
        optimize("audio", files, tmp_path, trials=1)


def test_studies_of_earlier_versions_are_not_continued(files, tmp_path):
    with open(tmp_path / "study.journal", "w") as journal:
        for record in (
            {"op_code": 0, "study_name": "tuning", "directions": [1]},
            {"op_code": 4, "study_id": 0, "datetime_start": "2025-01-01T00:00:00.000000+00:00"},
            {"op_code": 8, "trial_id": 0, "user_attr": {"place": 0}},
        ):
            journal.write(json.dumps({"worker_id": "a", **record}) + "\n")
    with pytest.raises(ValueError, match=r"not written by this version .*; --cache"):
        optimize("audio", files, tmp_path, trials=1)


@pytest.mark.slow
def test_another_corpus_is_another_one_whatever_it_is_called(files, tmp_path):
    """Under the same cache"""
    cache = tmp_path / "cache"
    first = write_corpus(tmp_path / "corpus", {"one": (6, 10)})
    optimize("audio", files_of(first), tmp_path / "1", trials=1, freeze=FREEZE, cache=cache)
    kept = entries(cache)
    renamed = write_corpus(tmp_path / "renamed", {"other": (6, 10)})
    optimize("audio", files_of(renamed), tmp_path / "2", trials=1, freeze=FREEZE, cache=cache)
    assert entries(cache) == kept
    write_corpus(tmp_path / "corpus", {"one": (7, 11)})
    changed = files_of(first)
    with pytest.raises(ValueError, match=r"files \(one\); references \(one\) changed"):
        optimize("audio", changed, tmp_path / "1", trials=1, freeze=FREEZE, cache=cache)
    optimize("audio", changed, tmp_path / "3", trials=1, freeze=FREEZE, cache=cache)
    assert kept.items() < entries(cache).items()


def test_oracle_number_of_speakers(undisturbed, files, tmp_path):
    cache = undisturbed / "cache"
    result = optimize(
        "audio", files, tmp_path, trials=3, freeze=FREEZE, num_speakers="oracle", cache=cache
    )
    found = trials(tmp_path)
    assert [one["params"] for one in found] == [one["params"] for one in trials(undisturbed)[:3]]
    assert result.value <= trials(undisturbed)[0]["values"][0]


def test_pruned_trials_count(undisturbed, files, tmp_path):
    cache = undisturbed / "cache"
    files = files[::-1]  # of the first one, errors differ
    optimize("audio", files, tmp_path, trials=12, freeze=FREEZE, prune=True, cache=cache)
    found, all_of_it = trials(tmp_path), trials(undisturbed)
    assert [one["trial"] for one in found] == list(range(12))
    assert [one["state"] for one in found[:5]] == ["complete"] * 5
    pruned = [one for one in found if one["state"] == "pruned"]
    assert pruned
    assert all(one["values"] is None for one in pruned)
    # as long as nothing is drawn from what was found
    for one, other in zip(found[:10], all_of_it, strict=False):
        assert one["params"] == other["params"]
        assert one["values"] in (None, other["values"])


@pytest.mark.slow
def test_errors_against_cost(undisturbed, files, tmp_path):
    cache = undisturbed / "cache"
    optimize("audio", files, tmp_path, trials=1, freeze=FREEZE, cost=True, cache=cache)
    # an earlier front with a pipeline that is not on the later one
    (tmp_path / "front" / "0").rename(tmp_path / "front" / "99")
    written = json.loads((tmp_path / "trials.json").read_text())
    (tmp_path / "trials.json").write_text(json.dumps({**written, "front": {"99": [0.5, 0.1]}}))
    result = optimize("audio", files, tmp_path, trials=6, freeze=FREEZE, cost=True, cache=cache)
    assert set((tmp_path / "front").iterdir()) == set(result.front)
    found = trials(tmp_path)
    rates = [one["values"][0] for one in trials(undisturbed)[:6]]
    assert [one["values"][0] for one in found] == rates
    # as if nothing had been computed before
    before = json.loads((undisturbed / "trials.json").read_text())["trials"][0]["seconds"]
    assert all(0.2 < 16 * one["values"][1] / before < 2 for one in found)
    assert result.value == min(rates)
    assert result.front
    for folder, (rate, cost) in result.front.items():
        assert not any(r < rate and c < cost for r, c in (one["values"] for one in found))
        params = flat(Pipeline.from_pretrained(folder).parameters(instantiated=True))
        assert found[int(folder.name)]["params"].items() <= params.items()


def test_files_are_found_where_the_database_says(undisturbed, database, tmp_path):
    """And preprocessors of a pipeline do not make it forget"""
    bare = tmp_path / "corpus"
    write_corpus(bare, {"one": (6, 14), "two": (14, 22)})
    write_database(bare)
    config = yaml.safe_load((undisturbed / "best" / "config.yaml").read_text())
    path = str(bare / "one.rttm")
    loader = {"name": "pyannote_av.formats.loaders.MediaPath", "params": {"path": path}}
    config |= {"preprocessors": {"notes": loader}, "params": {}}
    config["params"] = flat_to_nested(trials(undisturbed)[0]["params"])
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    files = files_of(bare / "database.yml")
    # which files are read is not for a configuration to say, unless it is trusted
    with pytest.raises(ValueError, match=r"formats\.loaders\.MediaPath"):
        optimize(tmp_path, files, tmp_path / "study", trials=3, freeze=FREEZE)
    optimize(tmp_path, files, tmp_path / "study", trials=3, freeze=FREEZE, trust=True)
    assert trials(tmp_path / "study") == trials(undisturbed)[:3]
    assert len(entries(tmp_path / "study" / "cache")) == 4
    for path in bare.glob("*.wav"):
        path.unlink()
    with pytest.raises(ValueError, match="'one' has no audio, no video"):
        optimize("audio", files_of(bare / "database.yml"), tmp_path / "other", trials=1)


def flat_to_nested(params: dict) -> dict:
    nested: dict = {"clustering": {"method": "average"}}
    for name, value in params.items():
        group, inner = name.split(".")
        nested.setdefault(group, {})[inner] = value
    return nested


# the command


def test_command(database, undisturbed, tmp_path):
    options = ["--database", database, "--into", tmp_path / "study", "--trials", 2]
    options += ["--cache", undisturbed / "cache", "--freeze", *FREEZE]
    code, output = run("audio", PROTOCOL, *options)
    assert code == 0, output
    assert "% after 2 trials" in output
    assert trials(tmp_path / "study") == trials(undisturbed)[:2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pipeline": "nothing"}, "neither a shipped pipeline"),
        ({"protocol": "Small.SpeakerDiarization.Other"}, "no protocol"),
        ({"--subset": "test"}, "has no subset 'test'"),
        ({"--database": "nowhere.yml"}, "no such file"),
        ({"--freeze": "clustering.treshold=0.5"}, "unknown hyper-parameter 'clustering.treshold'"),
        ({"--sampler": "GridSampler"}, "no sampler 'GridSampler'"),
        ({"--num-speakers": "2"}, "must be 'auto' or 'oracle'"),
    ],
)
def test_command_says_what_is_wrong(changes, message, database, tmp_path):
    arguments = {"pipeline": "audio", "protocol": PROTOCOL, "--database": database}
    arguments |= {"--into": tmp_path / "study", "--trials": 1, **changes}
    named = [part for name, value in arguments.items() for part in ([name, value])[-2:]]
    named = [part for part in named if part not in ("pipeline", "protocol")]
    code, output = run(*named)
    assert code == 1, output
    assert message in " ".join(output.split())
    assert not (tmp_path / "study" / "best").exists()


def test_what_cannot_be_tuned_says_so(files, tmp_path):
    (tmp_path / "config.yaml").write_text(
        "pipeline: {name: pyannote_av.pipelines.face_tracking.FaceTracking}"
    )
    with pytest.raises(TypeError, match="FaceTracking has no error rate"):
        optimize(tmp_path, files, tmp_path / "study")
    bare = {"uri": "x", "audio": str(files[0]["audio"])}
    with pytest.raises(ValueError, match="'x' has no annotation"):
        optimize("audio", [bare], tmp_path / "study")
    with pytest.raises(ValueError, match="no files"):
        optimize("audio", [], tmp_path / "study")


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_file_on_which_the_pipeline_fails_is_named(processes, tmp_path):
    database = write_corpus(tmp_path / "corpus", {"one": (6, 8)})
    (tmp_path / "corpus" / "one.wav").write_bytes(b"RIFF nothing of the kind" * 20)
    with pytest.raises(RuntimeError, match="file 'one': MediaError"):
        optimize("audio", files_of(database), tmp_path / "study", 1, processes)


# all pipelines

ROOT = "pyannote_av.pipelines."
#: class, its options, and what is tuned
KINDS = {
    "audio": ("audio_diarization.AudioDiarization", {}),
    "late_fusion": ("late_fusion.LateFusion", {}),
    "target": (
        "target_speaker_diarization.TargetSpeakerDiarization",
        {"segmentation": "$model/hmsanet"},
    ),
    "similarity": ("similarity_diarization.SimilarityDiarization", {}),
    "relation": ("relation_diarization.RelationDiarization", {"relation": "$model/relation"}),
    "counting": ("counting_diarization.CountingDiarization", {"counter": "$model/counter"}),
    "enrolment": ("enrolment.EnrolmentDiarization", {}),
    "joint": ("joint_diarization.JointDiarization", {}),
    "vbx": ("vbx_diarization.VBxDiarization", {"plda": "$model/plda"}),
    "active_speaker": ("active_speaker_detection.ActiveSpeakerDetection", {}),
}
VOICE, FACE = 192, 128
WITHOUT_FACES = ("audio", "active_speaker")


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """Networks and a PLDA that know nothing"""
    from pyannote_av.clustering.cysmsd import CYSMSD
    from pyannote_av.clustering.embedded import RelationOfEmbeddings
    from pyannote_av.clustering.plda import fit_plda, save_plda
    from pyannote_av.models.hmsanet.model import HMSANet

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(40), 6)
    voices = rng.standard_normal((40, VOICE))[who] + 0.7 * rng.standard_normal((len(who), VOICE))
    folder = tmp_path_factory.mktemp("models")
    tiny = {"width": 16, "heads": 2, "channels": (4, 4, 8, 8), "cgima_layers": 1}
    tiny |= {"disa_layers": 1, "visual": "compact", "face_size": 32, "attention_window": 8}
    HMSANet(**tiny).save(folder / "hmsanet")
    RelationOfEmbeddings(VOICE, FACE, widths=(16, 8), blocks=(1, 1)).save(folder / "relation")
    CYSMSD(VOICE, FACE, width=32, heads=2, max_speakers=4).save(folder / "counter")
    save_plda(folder / "plda", fit_plda(voices, who, 16))
    return folder


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    """database.yml of 4 s of two people who talk, in a picture with moving stripes for faces"""
    folder = tmp_path_factory.mktemp("film")
    write_corpus(folder, {"film": (6, 10)})
    _, samples = wavfile.read(folder / "film.wav")
    rng = np.random.default_rng(0)
    pictures = rng.integers(60, 200, (100, 96, 128, 3), dtype=np.uint8)
    write_media(
        folder / "film.mp4",
        duration=4.0,
        size=(128, 96),
        draw=lambda t: pictures[min(int(t * 25 + 0.5), 99)],
        audio_signal=lambda t: np.interp(t, np.arange(len(samples)) / 16000, samples / 32768),
    )
    time = np.tile(np.arange(100) / 25, 2)
    box = np.repeat([[0.05, 0.1, 0.45, 0.9], [0.55, 0.1, 0.95, 0.9]], 100, axis=0)
    FaceTracks(time, np.repeat([0, 1], 100), box).write(folder / "film.npz")
    return write_database(folder, video="{uri}.mp4", face_tracks="{uri}.npz")


@pytest.fixture
def folder(request, models, tmp_path) -> Path:
    """Pipeline folder of a kind"""
    name, params = KINDS[request.param]
    params = dict(params)
    if request.param not in WITHOUT_FACES:
        params |= {"scorer": "synchrony", "embedder": None}
    if request.param == "active_speaker":
        params["scorer"] = "synchrony"
    config = {"pipeline": {"name": ROOT + name, "params": params}}
    made = tmp_path / request.param
    made.mkdir()
    (made / "config.yaml").write_text(yaml.safe_dump(config))
    for value in params.values():
        if str(value).startswith("$model/"):
            model = str(value).removeprefix("$model/")
            copy = shutil.copytree if (models / model).is_dir() else shutil.copyfile
            copy(models / model, made / model)
    return made


# two in every run: the others differ in what they cluster
@pytest.mark.parametrize(
    "folder",
    [pytest.param(kind, marks=[] if kind == "counting" else [pytest.mark.slow]) for kind in KINDS],
    indirect=True,
)
def test_every_pipeline_is_tuned(folder, film, tmp_path):
    into = tmp_path / "study"
    # where speech is, what is seen depends on; all the rest is tuned
    options = ["--database", film, "--into", into, "--trials", 1]
    for name in ("speech", "audio", "first_pass"):
        if name in flat_groups(folder):
            options += ["--freeze", name]
    code, output = run(folder, PROTOCOL, *options)
    assert code == 0, output
    before = entries(into / "cache")
    assert before
    options[options.index("--trials") + 1] = 3
    code, output = run(folder, PROTOCOL, *options)
    assert code == 0, output
    found = trials(into)
    assert len({str(one["params"]) for one in found}) == 3
    after = entries(into / "cache")
    if folder.name in ("similarity", "relation"):
        # who is compared depends on who is seen talking, which is tuned
        assert before.items() <= after.items()
    else:
        assert after == before

    best = min(found, key=lambda one: one["values"][0])
    pipeline = Pipeline.from_pretrained(into / "best")
    params = flat(pipeline.parameters(instantiated=True))
    assert best["params"].items() <= params.items()
    (file,) = files_of(film)
    metric = pipeline.get_metric()
    given = {name: file[name] for name in ("uri", "video", "face_tracks")}
    output = pipeline(given)
    turns = getattr(output, "speaker_diarization", None)
    if turns is None:
        turns = output.speaking_annotation()
    assert metric(file["annotation"], turns, uem=file["annotated"]) == best["values"][0]


def flat_groups(folder: Path) -> set[str]:
    return {name.split(".")[0] for name in flat(Pipeline.from_pretrained(folder).parameters())}
