"""From first pass to target speakers, and from probabilities to turns."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pyannote.core import Annotation, Segment, Timeline

from pyannote_av.core.runs import true_runs
from pyannote_av.core.tracks import FaceTracks, TrackSegment
from pyannote_av.fusion.activities import (
    Durations,
    changes,
    confidences,
    confine,
    difference,
    enforce,
    exclusive,
    from_annotation,
    likeliest,
    to_annotation,
)
from pyannote_av.fusion.identities import FaceIdentities, FaceIdentity
from pyannote_av.fusion.targets import (
    FaceFeatures,
    TargetSpeaker,
    agreement,
    find_targets,
    join_faces,
)
from pyannote_av.models.hmsanet.model import HMSANet
from pyannote_av.pipelines.collectors import VisualFeatureCollector
from pyannote_av.pipelines.inference import AVInference

TINY = {"width": 16, "heads": 2, "channels": (4, 4, 8, 8), "cgima_layers": 1, "disa_layers": 1}
TINY |= {"visual": "compact", "face_size": 32, "attention_window": 8}

probabilities = arrays(
    np.float32,
    st.tuples(st.integers(1, 120), st.integers(1, 4)),
    elements=st.floats(0, 1, width=32),
)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return HMSANet(**TINY).eval()


def voice(seed: int) -> np.ndarray:
    vector = np.random.default_rng(seed).standard_normal(192).astype(np.float32)
    return vector / np.linalg.norm(vector)


# probabilities to turns


@given(probabilities, st.floats(0, 0.3), st.floats(0, 0.3))
@settings(max_examples=60, deadline=None)
def test_no_turn_and_no_gap_is_too_short(probability, on, off):
    active = enforce(probability > 0.5, Durations(on, off))
    for column in active.T:
        runs = true_runs(column)
        assert all(end - first >= round(100 * on) for first, end in runs)
        if not on:
            assert all(b[0] - a[1] >= round(100 * off) for a, b in pairwise(runs))


@given(probabilities)
@settings(max_examples=60, deadline=None)
def test_turns_and_back(probability):
    active, names = probability > 0.5, [f"s{k}" for k in range(probability.shape[1])]
    annotation = to_annotation(active, names, "file")
    assert (from_annotation(annotation, names, len(active)) == active).all()
    found = confidences(annotation, names, probability)
    assert len(found) == len(list(annotation.itertracks()))
    assert all(0.5 <= value <= 1 for value in found.values())
    only = exclusive(active, probability)
    assert (only.sum(axis=1) == active.any(axis=1)).all()
    assert (only <= active).all()


@given(probabilities)
@settings(max_examples=40, deadline=None)
def test_oracle_speech_is_always_somebodys(probability):
    speech = Timeline([Segment(0.1, 0.5), Segment(0.7, 0.9)])
    active = confine(probability > 0.5, probability, speech)
    time = (np.arange(len(active)) + 0.5) / 100
    inside = ((time > 0.1) & (time < 0.5)) | ((time > 0.7) & (time < 0.9))
    assert (active.any(axis=1) == inside).all()


@given(probabilities, st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_so_many_speakers(probability, seed):
    count = np.random.default_rng(seed).integers(0, 4, len(probability))
    active = likeliest(probability, count)
    assert (active.sum(axis=1) == np.minimum(count, probability.shape[1])).all()
    for chosen, row in zip(active, probability, strict=True):
        if chosen.any() and not chosen.all():
            assert row[chosen].min() >= row[~chosen].max()


def test_changes_are_told_in_a_sentence():
    before, after = np.zeros((500, 2), bool), np.zeros((500, 2), bool)
    before[:400, 0] = True
    after[:100, 0] = after[100:200, 1] = True  # 1 s is given to another, 2 s are removed
    after[450:500] = True  # 0.5 s of two speakers are added
    assert changes(before, after) == (
        "100.0 % of the speech: 1.0 s given to another speaker, 1.0 s added, 2.0 s removed"
    )
    assert changes(before, before).startswith("0.0 %")


def test_difference_is_an_error_rate_by_name():
    first, second = Annotation(), Annotation()
    first[Segment(0, 2)] = "a"
    first[Segment(1, 3)] = "b"
    second[Segment(0, 1.5)] = "a"
    second[Segment(1.5, 3.5)] = "c"
    names = ["a", "b", "c"]
    before, after = (from_annotation(x, names, 400) for x in (first, second))
    # from 1 to 2 s one of two is missed, from 1.5 to 2 s "c" is not "a"; from 2 to 3 s "c" is not
    # "b"; from 3 s on nobody should speak
    assert difference(before, after) == pytest.approx((1 + 0.5 + 1 + 0.5) / 4)
    assert difference(before, before) == 0
    assert difference(before[:, :2], after) == difference(before, after)


# target speakers


def identities(*groups) -> FaceIdentities:
    count = len(groups)
    nothing = np.zeros((count, count), bool)
    rows = [FaceIdentity(tracks, np.zeros(0, int), np.zeros(0)) for tracks in groups]
    return FaceIdentities(rows, nothing, nothing, {})


def test_everybody_becomes_a_target():
    one = FaceFeatures(10, np.ones((5, 3)), np.ones(5, bool))
    features = {1: [one], 2: [one], 3: [one]}
    tracks = FaceTracks(
        time=np.arange(3) / 25,
        track=np.array([1, 2, 3]),
        box=np.tile([0.1, 0.1, 0.2, 0.2], (3, 1)),
        speaker={1: "SPEAKER_00"},
    )
    voiceprints = np.stack([voice(0), np.zeros(192, np.float32)])
    labels = ["SPEAKER_00", "SPEAKER_01"]
    targets = find_targets(
        labels, voiceprints, tracks, identities((1,), (2, 3)), features, offset=0.2
    )
    assert [target.label for target in targets] == [*labels, "SPEAKER_02"]
    assert [target.tracks for target in targets] == [(1,), (), (2, 3)]
    assert [len(target.faces) for target in targets] == [1, 0, 2]
    assert targets[1].voiceprint is None
    assert targets[2].voiceprint is None
    features, present = targets[0].face(0, 30, 3)
    assert present.nonzero()[0].tolist() == [15, 16, 17, 18, 19]  # 0.2 s later
    assert (features[present] == 1).all()
    assert (features[~present] == 0).all()


def faces_in(*spans) -> list[FaceFeatures]:
    return [FaceFeatures(a, np.ones((b - a, 3)), np.ones(b - a, bool)) for a, b in spans]


def test_faces_join_the_voice_they_speak_with():
    targets = [
        TargetSpeaker("a", voice(0), faces_in((0, 50)), (1,)),
        TargetSpeaker("b", voice(1)),
        TargetSpeaker("c", None, faces_in((0, 50)), (2,)),  # next to a's face
        TargetSpeaker("d", None, faces_in((100, 150)), (3, 4)),
        TargetSpeaker("e", None, faces_in((100, 150)), (5,)),  # next to d
        TargetSpeaker("f", None, faces_in((200, 220)), (6,)),  # silent
    ]
    heard = np.stack(
        [
            *(voice(k) for k in (0, 1, 0)),
            voice(0) + 0.3 * voice(3),  # d sounds much like a,
            voice(0) + 0.1 * voice(3),  # but e sounds more like a
            np.zeros(192),
        ]
    )
    joined = join_faces(targets, 2, heard, 0.5)
    assert [target.label for target in joined] == ["a", "b", "c", "d", "f"]
    assert joined[0].tracks == (1, 5)
    assert joined[0].visible(0, 220).sum() == 100
    assert joined[0].voiceprint is targets[0].voiceprint
    assert joined[1:] == [targets[k] for k in (1, 2, 3, 5)]
    # those who sound like nobody stay, and voices that nothing is known of get nobody
    assert join_faces(targets, 2, heard, 1.1) == targets
    unknown = [TargetSpeaker("a"), *targets[2:4]]
    assert join_faces(unknown, 1, heard[:3], -1.0) == unknown
    assert join_faces(targets[:2], 2, heard[:2], 0.5) == targets[:2]
    # faces that are silent while the voice speaks are not joined to it
    agrees = np.array([[True, True], [True, True], [False, True], [True, True]])
    joined = join_faces(targets, 2, heard, 0.5, agrees)
    assert joined[0].tracks == (1, 3, 4)


def test_a_face_agrees_with_a_voice_if_it_speaks_with_it():
    targets = [
        TargetSpeaker("a", voice(0)),
        TargetSpeaker("b", voice(1)),
        TargetSpeaker("c", None, faces_in((0, 100)), (1,)),
        TargetSpeaker("d", None, faces_in((45, 55)), (2,)),
    ]
    turns = np.zeros((400, 2), bool)
    turns[:200, 0] = turns[190:, 1] = True  # 1.9 s of a alone, 2 s of b alone
    posteriors = np.zeros((400, 4))
    posteriors[:70, 2] = posteriors[200:250, 2] = 0.6
    posteriors[70:190, 2] = 0.4
    # d is visible for 0.1 s of a alone: too little to know; and silent while b speaks
    assert agreement(targets, turns, posteriors).tolist() == [[True, False], [True, True]]
    posteriors[60:70, 2] = 0.4
    posteriors[250:268, 2] = 0.6
    assert agreement(targets, turns, posteriors).tolist() == [[False, True], [True, True]]
    assert agreement(targets[:2], turns, posteriors[:, :2]).shape == (0, 2)


@given(st.integers(0, 50))
@settings(max_examples=30, deadline=None)
def test_joining_faces_does_not_depend_on_their_order(seed):
    rng = np.random.default_rng(seed)
    voices = [TargetSpeaker(f"v{k}", voice(k)) for k in range(2)]
    begin = rng.integers(0, 100, 4)
    faces = [
        TargetSpeaker(f"f{k}", None, faces_in((a, a + 30)), (k,))
        for k, a in enumerate(begin.tolist())
    ]
    prints = np.stack([voice(int(k)) for k in rng.integers(0, 3, 4)])
    prints += 0.05 * rng.standard_normal(prints.shape)
    order = rng.permutation(4)
    one, other = (
        join_faces(
            [*voices, *(faces[k] for k in o)], 2, np.concatenate([prints[:2], prints[o]]), 0.5
        )
        for o in (np.arange(4), order)
    )
    assert [{*t.tracks} for t in one[:2]] == [{*t.tracks} for t in other[:2]]
    assert {t.label for t in one} == {t.label for t in other}
    # nobody is in two places at once
    for target in one:
        total = sum(face.present.sum() for face in target.faces)
        assert total - target.visible(0, 200).sum() < 5 * max(1, len(target.faces))


def test_features_are_kept_while_tracking(model):
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 255, (20, 112, 112), np.uint8)
    present = rng.random(20) > 0.2
    collector = VisualFeatureCollector(model)
    collector.update(TrackSegment(7, 100, crops, present))
    (stretch,) = collector.compute()[7]
    given = torch.from_numpy(crops)[None, None], torch.from_numpy(present)[None, None]
    with torch.inference_mode():
        expected = model.visual_features(*given)[0, 0].numpy()
    assert stretch.start == 100
    np.testing.assert_allclose(stretch.features, expected, atol=5e-3)
    assert collector.seconds > 0


# sliding


def targets_of(model, num_frames, rng) -> list[TargetSpeaker]:
    features = rng.standard_normal((num_frames, model.visual_dimension)).astype(np.float32)
    face = FaceFeatures(0, features, np.ones(num_frames, bool))
    return [TargetSpeaker("a", voice(1), [face]), TargetSpeaker("b", voice(2))]


def test_a_short_file_is_one_forward_pass(model):
    rng = np.random.default_rng(0)
    waveform, heard = torch.randn(1, 64 * 640) * 0.1, np.stack([voice(i) for i in range(16)])
    targets = targets_of(model, 64, rng)
    found = AVInference(model, duration=8.0)(waveform, targets, heard)
    assert found.shape == (256, 2)
    faces = np.stack([target.face(0, 64, model.visual_dimension)[0] for target in targets])
    with torch.inference_mode():
        expected = model(
            waveform[None],
            torch.from_numpy(faces)[None],
            torch.tensor([[True, False]])[..., None].expand(1, 2, 64),
            voiceprints=torch.from_numpy(np.stack([voice(1), voice(2)]))[None],
            speaker_features=torch.from_numpy(heard)[None],
        )[0]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("samples", [640 * 63 + 17, 640 * 201, 16000 * 9 + 1])
def test_every_length_is_covered(model, samples):
    rng = np.random.default_rng(0)
    waveform = torch.randn(1, samples) * 0.1
    targets = targets_of(model, samples // 640, rng)
    seen = []
    slide = AVInference(model, duration=2.0, step=1.0, batch_size=3)
    found = slide(
        waveform, targets, progress=lambda completed, total: seen.append((completed, total))
    )
    assert found.shape == (4 * (samples // 640), 2)
    assert np.isfinite(found).all()
    assert (found > 0).all()
    assert seen[-1][0] == seen[-1][1]
    other = AVInference(model, duration=2.0, step=1.0, batch_size=1)(waveform, targets)
    np.testing.assert_allclose(found, other, atol=1e-5)


def test_faces_without_voice_are_asked_only_where_they_are_seen(model):
    waveform = torch.randn(1, 640 * 250) * 0.1
    features = np.ones((20, model.visual_dimension), np.float32)
    face = TargetSpeaker("c", None, [FaceFeatures(30, features, np.ones(20, bool))])
    crowd = [TargetSpeaker(f"s{i}", voice(i)) for i in range(3)]
    slide = AVInference(model, duration=2.0, step=2.0)
    found = slide(waveform, [*crowd, face])
    assert (found[400:, 3] == 0).all()
    assert (found[:200, 3] > 0).all()
    # and not at all when there are voices enough
    full = AVInference(model, duration=2.0, step=2.0, max_targets=3)(waveform, [*crowd, face])
    assert (full[:, 3] == 0).all()
    np.testing.assert_allclose(full[400:, :3], found[400:, :3], atol=1e-5)


def test_nobody_and_nothing(model):
    assert AVInference(model)(torch.zeros(1, 6400), []).shape == (40, 0)
    assert AVInference(model)(torch.zeros(1, 100), [TargetSpeaker("a", voice(0))]).shape == (0, 1)
    with pytest.raises(ValueError, match="step"):
        AVInference(model, step=9.0)


# the pipeline


@pytest.fixture(scope="module")
def made(short_sample):
    return short_sample


@pytest.fixture(scope="module")
def pipeline(model, tmp_path_factory):
    """As users load it: a folder with a configuration and weights that know nothing yet."""
    from pyannote_av import Pipeline

    folder = tmp_path_factory.mktemp("hmsanet")
    model.save(folder / "segmentation")
    (folder / "config.yaml").write_text(
        "pipeline:\n"
        "  name: pyannote_av.pipelines.target_speaker_diarization.TargetSpeakerDiarization\n"
        "  params: {segmentation: $model/segmentation, iterations: 2}\n"
    )
    return Pipeline.from_pretrained(folder)


@pytest.fixture(scope="module")
def lenient(pipeline):
    """Whatever the network says counts."""
    pipeline.instantiate({**pipeline.default_parameters(), "max_change": 2.0})
    return pipeline


@pytest.fixture(scope="module")
def output(lenient, made):
    return lenient(made["video"])


@pytest.fixture
def tracked(made):
    """The sample and where its faces are, which takes longest to find."""
    tracks = replace(FaceTracks.read(made["tracks"]), speaker={})
    return {"video": str(made["video"]), "uri": "sample", "face_tracks": tracks}


def test_each_chunk_gets_its_part_of_the_first_pass():
    """A network that was not trained says what the first pass says"""
    torch.manual_seed(0)
    corrects = HMSANet(**TINY, first_pass=True).eval()
    targets = [TargetSpeaker("a", voice(0)), TargetSpeaker("b", voice(1))]
    frames = 87
    said = np.random.default_rng(0).random((4 * frames, 2), np.float32)
    said[100:130, 1] = -1
    number = np.zeros((4 * frames, 3), np.float32)
    slide = AVInference(corrects, duration=2.0, step=1.0, batch_size=3)
    found = slide(torch.zeros(1, 640 * frames), targets, None, None, said, number)
    expected = np.where(said < 0, 0.5, said.clip(0.01, 0.99))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_output_is_whole(output, made):
    content = json.loads(json.dumps(output.serialize(), allow_nan=False))
    labels = output.speaker_diarization.labels()
    assert content["speakers"] == labels
    assert output.speaker_embeddings.shape == (len(labels), 192)
    assert set(output.face_tracks.speaker.values()) <= set(labels)
    assert len(output.provenance) == len(list(output.speaker_diarization.itertracks()))
    assert all(0 <= one["confidence"] <= 1 for one in output.provenance.values())
    assert output.audio_only
    assert {"voiceprints", "target speakers"} <= output.report.seconds.keys()
    assert {"speaking scores", "visual features"} == output.report.parallel_seconds.keys()
    assert output.report.components["segmentation"] == "HMSANet"
    named = set(output.face_tracks.speaker.values()) & set(labels)
    assert output.report.video_used == bool(named)
    assert f"{len(named)} of {len(labels)} speakers have a face" in output.report.reasons
    overlap = output.exclusive_speaker_diarization.get_overlap()
    assert not overlap


def test_the_first_pass_stands_when_the_second_departs_too_far(pipeline, tracked):
    from pyannote_av import Pipeline

    # with so much weight, what little a network that was never trained says decides who speaks
    extreme = {"max_change": 0.0, "network_weight": 1e6}
    pipeline.instantiate({**pipeline.default_parameters(), **extreme})
    guarded = pipeline(dict(tracked))
    first = Pipeline.from_pretrained("late_fusion")(dict(tracked))
    assert guarded.speaker_diarization == first.speaker_diarization
    assert "the first result is kept" in " ".join(guarded.report.reasons)
    pipeline.instantiate({**pipeline.default_parameters(), "max_change": 2.0})


def test_a_speaker_of_the_sound_may_have_no_turn_after_the_first_pass(
    lenient, tracked, monkeypatch
):
    fuse, without = lenient.first_pass.fuse, []

    def lose_one(*args, **options):
        fused = fuse(*args, **options)
        kept = fused.output.speaker_diarization
        without.append(fused.speakers.turns.labels()[-1])
        fused.output.speaker_diarization = kept.subset(without, invert=True)
        return fused

    monkeypatch.setattr(lenient.first_pass, "fuse", lose_one)
    found = lenient(dict(tracked)).speaker_diarization.labels()
    assert found
    assert without[0] not in found


@pytest.mark.slow
def test_number_of_speakers_and_oracle_speech(lenient, tracked):
    file = {**tracked, "lab": Timeline([Segment(2, 6)])}
    only = lenient(dict(file), num_speakers=1)
    assert len(only.speaker_diarization.labels()) <= 1
    lenient.oracle_vad = True
    try:
        confined = lenient(dict(file)).speaker_diarization
        assert confined.get_timeline().support().extent() == Segment(2, 6)
        assert confined.get_timeline().support().duration() == pytest.approx(4)
        with pytest.raises(ValueError, match="'sample' has no `lab`"):
            lenient(tracked)
    finally:
        lenient.oracle_vad = False


def test_sound_alone(lenient, made):
    output = lenient({"audio": str(made["video"])})
    assert not output.face_tracks.tracks
    assert output.speaker_diarization.labels()


def test_optimization_computes_features_and_posteriors_once(lenient, tracked, monkeypatch):
    import pyannote_av.pipelines.target_speaker_diarization as module
    from pyannote_av.pipelines.face_tracking import FaceTracking

    calls = []

    def watch(owner, name):
        original = getattr(owner, name)

        def watched(*args, **kwargs):
            calls.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, watched)

    watch(FaceTracking, "apply")
    watch(module, "speaker_features")
    watch(module.AVInference, "__call__")
    parameters = lenient.parameters(instantiated=True)
    # the second time, it is asked with voiceprints of what the parameters make of the first
    lenient.training, lenient.iterations = True, 1
    try:
        given = dict(tracked)
        first = lenient(tracked)
        assert isinstance(first, Annotation)
        assert calls[:3] == ["apply", "speaker_features", "__call__"]
        before = list(calls)
        lenient.instantiate({"network_weight": 0.1})
        lenient(tracked)
        lenient.instantiate({"network_weight": parameters["network_weight"]})
        again = lenient(tracked)
        assert calls == before
        assert again == first
        assert tracked == given
    finally:
        lenient.training, lenient.iterations = False, 2


def test_hyper_parameters_of_earlier_versions_are_ignored_with_a_warning(pipeline):
    old = {
        "first_pass": {"min_change": 0.6, "margin": 1.5},
        **{"prior": 0.5, "counting": "seen", "onset": 0.5, "offset": 0.5, "onset_unheard": 0.85},
        **{"min_duration_on": 0.1, "min_duration_off": 0.0, "min_new": 2.0, "max_change": 0.4},
    }
    with pytest.warns(DeprecationWarning, match="any more") as found:
        pipeline.instantiate(old)
    assert ["LateFusion" in str(one.message) for one in found].count(True) == 1
    assert any("counting, min_duration_off" in str(one.message) for one in found)
    values = pipeline.parameters(instantiated=True)
    usual = pipeline.default_parameters()
    usual["first_pass"]["margin"], usual["max_change"] = 1.5, 0.4
    assert values == usual
    pipeline.instantiate(pipeline.default_parameters())
