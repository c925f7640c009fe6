"""Files with bytes changed are read, or refused with an error of ours, in bounded time and memory.

Each run is a process of its own, because what breaks a decoder may end it.
"""

import json
import subprocess
import sys
from pathlib import Path

import fuzz
import numpy as np
import pytest

from pyannote_av.core.reading import ReadError, read_npz


def run(kind: str, number: int, seed: int, timeout: float) -> dict:
    command = [sys.executable, str(Path(fuzz.__file__)), "--kind", kind]
    command += ["--number", str(number), "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"the process died: {done.returncode}\n{done.stderr[-2000:]}"
    return json.loads(done.stdout)


@pytest.mark.parametrize(("kind", "number"), [("media", 25), ("data", 40)])
def test_changed_files_are_read_or_refused(kind, number):
    outcome = run(kind, number, seed=0, timeout=120)
    assert outcome["broken"] == []
    assert outcome["inputs"] == number
    # some of both, or nothing was tried
    assert sum(outcome["read"].values()) > number / 20
    assert sum(outcome["refused"].values()) > number / 20


def test_archive_whose_arrays_begin_before_it(tmp_path):
    """Found by the run above: a seek to before the file, whose error named no file"""
    path = tmp_path / "tracks.npz"
    np.savez(path, time=np.zeros(3))
    data = bytearray(path.read_bytes())
    place = data.rindex(b"PK\5\6") + 16  # where the list of members is said to begin
    data[place : place + 4] = (int.from_bytes(data[place : place + 4], "little") + 99).to_bytes(
        4, "little"
    )
    path.write_bytes(data)
    with pytest.raises(ReadError, match=r"tracks\.npz"):
        read_npz(path)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "number"), [("media", 600), ("data", 3000)])
def test_many_changed_files_are_read_or_refused(kind, number):
    outcome = run(kind, number, seed=1, timeout=3000)
    assert outcome["broken"] == []
    assert outcome["inputs"] == number


def test_inputs_follow_from_their_number(tmp_path):
    (tmp_path / "a.bin").write_bytes(bytes(range(256)) * 8)
    seeds = {"a.bin": tmp_path / "a.bin"}
    some = [content for (_, _, content), _ in zip(fuzz.inputs(seeds, 3), range(20), strict=False)]
    late = next(fuzz.inputs(seeds, 3, first=7))
    assert late == (7, "a.bin", some[7])
    assert len(set(some)) == 20
    assert fuzz.change(b"", np.random.default_rng(0), [b"a"]) == b""
