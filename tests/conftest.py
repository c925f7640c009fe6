"""Fixtures shared by all tests."""

import os
from pathlib import Path

# before any import of pyannote.audio: no telemetry, no network, no thread contention
os.environ.setdefault("PYANNOTE_METRICS_ENABLED", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "2")

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real clips and public weights kept outside the repository; skips where absent."""
    folder = Path(
        os.environ.get(
            "PYANNOTE_AV_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"
        )
    )
    if not folder.is_dir():
        pytest.skip("real test clips are not on this machine (set PYANNOTE_AV_TEST_DATA)")
    return folder
