"""Fixtures shared by all tests."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

# before any import of pyannote.audio: no telemetry, no network, no thread contention
os.environ.setdefault("PYANNOTE_METRICS_ENABLED", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "2")

import pytest
from filelock import FileLock


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


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Write a folder once per run, which all processes of pytest-xdist then read."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def make(name: str, write: Callable[[Path], object]) -> Path:
        folder, written = root / f"shared-{name}", root / f"shared-{name}.written"
        with FileLock(root / f"shared-{name}.lock"):
            if not written.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                write(folder)
                written.touch()
        return folder

    return make


@pytest.fixture(scope="session")
def sample(made_once) -> dict[str, Path]:
    """The sample file: `video`, `rttm` and `tracks`. Only to be read."""
    pytest.importorskip("skimage", reason="the sample needs scikit-image: pip install '.[sample]'")
    from pyannote_av.simulation.sample import make_sample

    return sample_files(made_once("sample", make_sample))


@pytest.fixture(scope="session")
def short_sample(made_once, sample) -> dict[str, Path]:
    """8 s of the sample in small pictures: two people take turns, and talk at once."""
    from scenes import SMALL, cut_sample

    def write(folder: Path) -> None:
        scene, files = cut_sample(sample, (12.0, 20.0), size=SMALL), sample_files(folder)
        scene.write(files["video"])
        scene.faces.write(files["tracks"])
        with open(files["rttm"], "w") as rttm:
            scene.reference.write_rttm(rttm)

    return sample_files(made_once("short-sample", write))


def sample_files(folder: Path) -> dict[str, Path]:
    names = {"video": "sample.mp4", "rttm": "sample.rttm", "tracks": "sample.tracks.npz"}
    return {key: folder / name for key, name in names.items()}
