"""The main job, end to end, on the sample; and by pyannote's own entry points."""

import json
import warnings
from importlib.resources import files

import numpy as np
import pytest
from pyannote.core import Annotation, Segment
from pyannote.database.util import load_rttm
from pyannote.metrics.diarization import DiarizationErrorRate

pytest.importorskip("skimage", reason="the sample needs scikit-image: pip install '.[sample]'")


@pytest.fixture(scope="module")
def made(short_sample):
    return short_sample


@pytest.fixture(scope="module")
def pipeline():
    # stock pyannote.audio, on the shipped folder
    from pyannote.audio import Pipeline

    return Pipeline.from_pretrained(str(files("pyannote_av") / "pretrained" / "late_fusion"))


@pytest.fixture(scope="module")
def output(made, pipeline):
    return pipeline(made["video"])


def der(made, hypothesis):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = load_rttm(made["rttm"])["sample"]
        return DiarizationErrorRate()(reference, hypothesis), reference


def test_golden_error_on_the_sample(made, output):
    error, _ = der(made, output.speaker_diarization)
    alone, _ = der(made, output.audio_only)
    assert error < 0.1
    assert error <= alone + 0.005


@pytest.mark.slow
def test_golden_error_on_the_whole_sample(sample, pipeline):
    output = pipeline(sample["video"])
    error, _ = der(sample, output.speaker_diarization)
    alone, _ = der(sample, output.audio_only)
    assert error < 0.07
    assert error <= alone + 0.005


def test_every_face_has_its_own_speaker(made, output):
    from pyannote_av import FaceTracks

    truth = FaceTracks.read(made["tracks"])
    _, reference = der(made, output.speaker_diarization)
    name = DiarizationErrorRate().optimal_mapping(reference, output.speaker_diarization)
    assert len(output.face_tracks.tracks) == 2
    for track in output.face_tracks.tracks:
        x = output.face_tracks.of(track).box[:, 0].mean()
        nearest = min(truth.tracks, key=lambda t: abs(truth.of(t).box[:, 0].mean() - x))
        assert name[output.face_tracks.speaker[track]] == truth.speaker[nearest]


def test_output_serializes_and_accounts_for_itself(output):
    content = json.loads(json.dumps(output.serialize(), allow_nan=False))
    assert content["speakers"] == output.speaker_diarization.labels()
    assert {turn["modality"] for turn in content["diarization"]} <= {
        "audio",
        "video",
        "audio+video",
    }
    assert output.report.video_used
    assert output.report.real_time_factor > 0
    assert len(output.speaker_embeddings) == len(content["speakers"])


def test_given_diarization_and_given_tracks_are_used(made, pipeline, output):
    given = Annotation(uri="sample")
    given[Segment(2, 6)] = "anna"
    again = pipeline(
        {"video": str(made["video"]), "diarization": given, "face_tracks": output.face_tracks}
    )
    assert again.speaker_diarization.labels() in (["anna"], ["SPEAKER_00", "anna"])
    assert again.report.components["detector"] == "given tracks"
    np.testing.assert_allclose(again.face_tracks.box, output.face_tracks.box, atol=1e-5)


def test_sound_without_picture_is_the_audio_result(made, pipeline, output):
    again = pipeline({"audio": str(made["video"])})
    assert again.speaker_diarization == again.audio_only
    assert not again.report.video_used
    assert "no face" in " ".join(again.report.reasons)
    assert "audio-visual offset (s)" not in again.report.numbers  # there is no estimate
    assert again.audio_only == output.audio_only


def test_time_is_accounted_for_by_stage(output):
    seconds = output.report.seconds
    assert set(seconds) == {"decoding of the sound", "audio", "faces", "fusion"}
    assert set(output.report.parallel_seconds) == {"speaking scores"}
    assert all(value > 0 for value in [*seconds.values(), *output.report.parallel_seconds.values()])
    assert "speaking scores" in str(output.report)


@pytest.mark.slow
def test_optimization_decodes_again_only_when_it_has_to(made, output, monkeypatch):
    from pyannote_av import Pipeline
    from pyannote_av.pipelines.face_tracking import FaceTracking

    decoded = []
    track = FaceTracking.apply

    def watched(self, *args, **kwargs):
        decoded.append(1)
        return track(self, *args, **kwargs)

    monkeypatch.setattr(FaceTracking, "apply", watched)

    pipeline = Pipeline.from_pretrained("late_fusion")
    pipeline.instantiate(pipeline.default_parameters())
    given = output.audio_only.rename_labels(generator="string")
    file = {"video": str(made["video"]), "diarization": given, "face_tracks": output.face_tracks}
    before = dict(file)
    pipeline.training = True
    assert isinstance(pipeline(file), Annotation)
    assert len(decoded) == 1
    # neither what is made of scores, nor how faces are found where they are given
    for change in (
        {"margin": 2.0},
        {"active_speaker": {"threshold": 0.5, "smoothing": 9}},
        {"faces": {"stride": 7}},
    ):
        pipeline.instantiate(change)(file)
        assert len(decoded) == 1
    assert file == before
    # other speech, and other tracks
    file["diarization"] = given.crop(Segment(0, 5))
    pipeline(file)
    assert len(decoded) == 2
    file["face_tracks"] = output.face_tracks.of(output.face_tracks.tracks[0])
    pipeline(file)
    assert len(decoded) == 3


@pytest.mark.slow
def test_while_tuning_the_answer_is_the_same(made, pipeline, output):
    """Whatever is remembered"""
    given = output.audio_only.rename_labels(generator="string")
    file = {"video": str(made["video"]), "diarization": given, "face_tracks": output.face_tracks}
    before = pipeline.parameters(instantiated=True)
    pipeline.training = True
    try:
        pipeline(file)
        for chosen in ({"threshold": 0.5, "smoothing": 5}, {"threshold": -1.0, "smoothing": 15}):
            pipeline.instantiate({"active_speaker": chosen})
            turns = pipeline(file)
            pipeline.training = False
            assert pipeline(dict(file)).speaker_diarization == turns
            pipeline.training = True
    finally:
        pipeline.training = False
        pipeline.instantiate(before)


def test_files_of_a_list_are_decoded_when_their_turn_comes(made, pipeline, tmp_path):
    from pyannote_av.core.io import MediaError

    # there when the list is checked, gone when its turn comes
    missing = tmp_path / "missing.mp4"
    missing.write_bytes(made["video"].read_bytes())
    todo = pipeline([{"audio": str(made["video"]), "uri": "one"}, str(missing)])
    missing.unlink()
    file, result = next(todo)
    assert file["uri"] == "one"
    assert result.speaker_diarization
    with pytest.raises(MediaError, match=r"missing\.mp4"):
        next(todo)
    with pytest.raises(ValueError, match="sample"):
        pipeline([str(made["video"]), str(made["video"])])
