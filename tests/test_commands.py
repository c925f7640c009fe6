"""Commands as newcomers use them: quick, with clear answers, and interruptible."""

import subprocess
import sys

import pytest

from pyannote_av import __version__
from pyannote_av.cli import main
from pyannote_av.core.workers import Failure, SerialPool
from pyannote_av.core.workers import run as run_jobs

#: modules that take seconds to import
HEAVY = ("torch", "pyannote.audio", "lightning", "matplotlib", "cv2", "scipy")

PROGRAM = f"""
import sys
from pyannote_av.cli import main
sys.argv = ["pyannote-av", *sys.argv[1:]]
try:
    main()
finally:
    print("IMPORTED", [name for name in {HEAVY!r} if name in sys.modules])
"""


def run(monkeypatch, *arguments) -> int:
    monkeypatch.setattr("sys.argv", ["pyannote-av", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code or 0


def imported(*arguments) -> str:
    """What a command prints, with the heavy modules that it imported in the last line."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "arguments", [["--version"], ["--help"], ["train", "--keys"], ["push", "--help"], ["doctor"]]
)
def test_trivial_commands_import_nothing_heavy(arguments):
    assert imported(*arguments).splitlines()[-1] == "IMPORTED []"


def test_files_that_are_done_are_skipped_without_loading_anything(short_sample, tmp_path):
    from pyannote_av.cli.apply import apply_all

    sound = short_sample["audio"] if "audio" in short_sample else short_sample["video"]
    assert not apply_all([sound], tmp_path, "audio")
    again = imported("apply", sound, "--into", tmp_path, "--pipeline", "audio")
    assert "already done, skipped" in again
    assert again.splitlines()[-1] == "IMPORTED []"


def test_info_imports_only_what_detects_faces(short_sample):
    shown = imported("info", short_sample["video"])
    assert "faces in 5 pictures" in shown
    assert "torch" not in shown.splitlines()[-1]
    assert "pyannote" not in shown.splitlines()[-1]
    assert "matplotlib" not in shown.splitlines()[-1]


def test_version(monkeypatch, capsys):
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"pyannote-av {__version__}\n"


def test_addresses_are_answered_as_in_python(tmp_path, monkeypatch, capsys):
    address = "https://example.org/talk.mp4"
    for command in (("apply", address, "-o", tmp_path), ("info", address)):
        assert run(monkeypatch, *command) in (1, 2)
        said = " ".join(capsys.readouterr().err.split())
        assert f"{address} is an address: download it first" in said


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        (("--min-speakers", 4, "--max-speakers", 2), "min_speakers=4 is more than max_speakers=2"),
        (("--num-speakers", 2, "--min-speakers", 3), "min_speakers=3 is more than num_speakers=2"),
    ],
)
def test_bounds_that_contradict_each_other(bounds, message, tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, "apply", tmp_path, "--into", tmp_path, *bounds) == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("command", "advice"), [("apply", "run the same command again to continue"), ("info", "")]
)
def test_interrupted_commands_end_with_130(command, advice, tmp_path, monkeypatch, capsys):
    from pyannote_av.cli import apply, info

    def interrupted(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(apply, "apply_all", interrupted)
    monkeypatch.setattr(info, "describe", interrupted)
    options = ("--into", tmp_path) if command == "apply" else ()
    assert run(monkeypatch, command, tmp_path / "talk.wav", *options) == 130
    said = capsys.readouterr().err
    assert said.startswith("interrupted")
    assert advice in said


@pytest.mark.parametrize("cause", [None, FileNotFoundError("gone")])
def test_a_missing_file_is_not_tried_again(cause):
    def work(job):
        if cause is not None:
            raise ValueError("no such file") from cause
        raise FileNotFoundError("no such file")

    with SerialPool(work) as pool:
        (attempt,) = run_jobs(pool, ["talk"], retries=3)
    assert attempt.final
    assert isinstance(attempt.value, Failure)


def test_results_depend_on_device_and_weights(tmp_path):
    from pyannote_av.batch.diarization import Diarize

    def identity(**options) -> str:
        return Diarize("hmsanet", **options).identity

    (tmp_path / "model.safetensors").write_bytes(b"some weights")
    first = identity(segmentation=str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    known = [identity(), identity(device="cuda"), first, identity(segmentation=str(tmp_path))]
    assert len(set(known)) == 4
    assert identity(device="cuda:1") == known[1]
    with pytest.raises(FileNotFoundError, match="segmentation of hmsanet: no such file"):
        identity(segmentation=str(tmp_path / "nothing"))
