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

#: slow cases of tests, of which others run by default; prefixes of `file::test[case]`
SLOW_CASES = (
    "test_active_speaker_detection.py::test_conformance[both]",
    "test_asd_task.py::test_train_validate_save_and_load[0]",
    "test_audio_diarization.py::test_a_mapping_of_the_caller_is_not_written_to[ProtocolFile-False]",
    "test_audio_diarization.py::test_a_mapping_of_the_caller_is_not_written_to[dict-True]",
    "test_audio_diarization.py::test_any_duration[12.34]",
    "test_audio_diarization.py::test_two_threads_give_the_turns_of_one[False]",
    "test_cysmsd.py::test_counts_speakers[150-",
    "test_docs.py::test_code_blocks_run[docs/coming_from_pyannote.md]",
    "test_docs.py::test_code_blocks_run[docs/how_it_works.md]",
    "test_embedded_relation.py::test_it_learns_to_tell_people_apart[handcrafted]",
    "test_export.py::test_cysmsd[mean]",
    "test_export.py::test_relation_of_embeddings[gmu]",
    "test_face_tracking.py::test_real_clips[single/person_2.mp4",
    "test_io.py::test_part_equals_slice_of_whole[30.mkv-how3-pyav]",
    "test_io.py::test_part_equals_slice_of_whole[index.avi-how7",
    "test_io.py::test_part_equals_slice_of_whole[late.mp4-how2",
    "test_io.py::test_part_equals_slice_of_whole[one-key-frame.mp4-how1",
    "test_io.py::test_part_equals_slice_of_whole[open-gop.mp4-how5",
    "test_io.py::test_part_equals_slice_of_whole[stream.ts-how4-decord]",
    "test_media_bounds.py::test_hostile_file[20000000 in a fragment]",
    "test_media_bounds.py::test_hostile_file[gaps that creep]",
    "test_media_bounds.py::test_hostile_file[pictures that grow, TS]",
    "test_media_bounds.py::test_hostile_file[sound that changes a thousand times]",
    "test_recipes.py::test_floors_of_real_protocols[ami",
    "test_recipes.py::test_training_configurations[ami-hmsanet]",
    "test_recipes.py::test_training_configurations[misp2022-hmsanet]",
    "test_recipes.py::test_training_configurations[msdwild-hmsanet]",
    "test_recipes.py::test_training_configurations[simulated-compact]",
    "test_recipes.py::test_training_configurations[simulated-lrasd]",
    "test_scorers.py::test_windows_are_averaged_with_their_weights[talknet]",
    "test_trust.py::test_what_is_damaged_is_said_with_its_name[model.bin-<lambda>5]",
    "test_trust.py::test_what_is_damaged_is_said_with_its_name[model.ckpt-<lambda>5]",
    "test_trust.py::test_what_is_damaged_is_said_with_its_name[model.safetensors-<lambda>5]",
    "test_tuning.py::test_every_pipeline_is_tuned[counting]",
    "test_window_pipelines.py::test_a_list_of_files[enrolment]",
    "test_window_pipelines.py::test_a_list_of_files[joint]",
    "test_window_pipelines.py::test_a_list_of_files[vbx]",
    "test_window_pipelines.py::test_again_is_the_same[enrolment]",
    "test_window_pipelines.py::test_again_is_the_same[joint]",
    "test_window_pipelines.py::test_again_is_the_same[vbx]",
    "test_window_pipelines.py::test_from_pretrained[enrolment]",
    "test_window_pipelines.py::test_from_pretrained[joint]",
    "test_window_pipelines.py::test_from_pretrained[vbx]",
    "test_window_pipelines.py::test_in_the_second_trial_nothing_is_done_again[counting]",
    "test_window_pipelines.py::test_missing_faces_are_no_faces[enrolment]",
    "test_window_pipelines.py::test_missing_faces_are_no_faces[joint]",
    "test_window_pipelines.py::test_missing_faces_are_no_faces[vbx]",
    "test_window_pipelines.py::test_nobody_speaks[joint]",
    "test_window_pipelines.py::test_number_of_speakers[enrolment]",
    "test_window_pipelines.py::test_number_of_speakers[joint]",
    "test_window_pipelines.py::test_number_of_speakers[vbx]",
    "test_window_pipelines.py::test_stock_optimize[counting]",
    "test_window_tasks.py::test_files_that_are_not_all_there_are_named[SpeakerCounting]",
    "test_window_tasks.py::test_interrupted_training_ends_with_the_same_weights[moment0]",
    "test_window_tasks.py::test_relations_are_learnt[dimnet]",
)


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark slow cases."""
    for item in items:
        if f"{item.path.name}::{item.name}".startswith(SLOW_CASES):
            item.add_marker(pytest.mark.slow)


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
