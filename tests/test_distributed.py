"""Training in several processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_target_speaker_task import embedder, folder  # noqa: F401

from pyannote_av import Model

TESTS = Path(__file__).parent


def run(*command: str, **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        cwd=TESTS,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["HMSANet", "CYSMSD"])
def test_two_processes_train_like_one_with_the_double_batch(kind, folder, tmp_path):  # noqa: F811
    for devices in (2, 1):
        into = tmp_path / str(devices)
        run(str(TESTS / "merged.py"), kind, str(folder), str(into), str(devices))
    two, one = (Model.from_pretrained(tmp_path / name) for name in "21")
    distance = {
        name: (value - two.state_dict()[name]).abs().max().item()
        for name, value in one.state_dict().items()
        if value.is_floating_point()
    }
    assert max(distance.values()) < 1e-4, max(distance, key=distance.get)
    records = [json.loads((tmp_path / n / "01-one" / "stage.json").read_text()) for n in "21"]
    assert [record["lineage"][-1]["steps"] for record in records] == [20, 20]
    first, *_, last = records[0]["history"]
    assert abs(first["loss/val"] - last["loss/val"]) > 1e-3  # something is learnt
    for mine, other in zip(*(record["history"] for record in records), strict=True):
        assert mine["loss/train"] == pytest.approx(other["loss/train"], abs=1e-4)
