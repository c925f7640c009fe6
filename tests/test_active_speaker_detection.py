"""Active speaker detection: what is scored, when, and against which sound."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyannote.core import Annotation, Segment, Timeline

from pyannote_av.core.tracks import FaceTracks, TrackSegment
from pyannote_av.models.active_speaker.lrasd import LRASD
from pyannote_av.models.active_speaker.scorers import (
    ActiveSpeakerScorer,
    AverageScorer,
    NetworkScorer,
    get_scorer,
)
from pyannote_av.models.active_speaker.synchrony import SynchronyScorer
from pyannote_av.pipelines.active_speaker_detection import ActiveSpeakerDetection
from pyannote_av.pipelines.collectors import SpeakingScoreCollector
from pyannote_av.pipelines.speaking_scores import add_speaking_scores, estimate_offset


class Loudness:
    """A scorer that answers with the mean of the sound of each frame."""

    name = "loudness"
    context = 0.4

    def __init__(self):
        self.calls = []

    def __call__(self, waveform, crops, present):
        assert waveform.shape == (1, 640 * len(crops))
        self.calls.append(len(crops))
        scores = waveform.reshape(len(crops), 640).mean(dim=1).numpy().astype(np.float32)
        return np.where(present, scores, np.nan)


def segment(start, num_frames, track=0, absent=(), seed=0):
    random = np.random.default_rng(seed)
    crops = random.integers(0, 256, (num_frames, 112, 112), dtype=np.uint8)
    present = np.ones(num_frames, bool)
    present[list(absent)] = False
    return TrackSegment(track, start, crops, present)


def ramp(num_frames):
    """Sound whose value is the index of the grid frame."""
    return torch.arange(num_frames).repeat_interleave(640)[None].float()


def tracks_of(*segments):
    rows = [(t, s.track) for s in segments for t, p in zip(s.times, s.present, strict=True) if p]
    time, track = np.array(rows).T
    return FaceTracks(time, track, np.tile([0.1, 0.1, 0.3, 0.4], (len(rows), 1)))


def run(segments, waveform, scorer=None, threshold=0.0, smoothing=1, **kwargs):
    collector = SpeakingScoreCollector(scorer or Loudness(), waveform, **kwargs)
    for each in segments:
        collector.update(each)
    scores = collector.compute()
    return add_speaking_scores(tracks_of(*segments), scores, threshold, smoothing), scores


def test_every_frame_gets_its_own_sound():
    segments = [segment(10, 50), segment(60, 30), segment(25, 40, track=7)]
    tracks, _ = run(segments, ramp(200))
    np.testing.assert_allclose(tracks.speaking, np.round(tracks.time * 25))


def test_tracks_off_the_grid_get_the_nearest_frame():
    _, scores = run([segment(0, 100)], ramp(200))
    time = np.arange(0, 3, 1 / 29.97)
    tracks = FaceTracks(time, np.zeros(len(time)), np.tile([0.1, 0.1, 0.3, 0.4], (len(time), 1)))
    assert np.abs(add_speaking_scores(tracks, scores, 0.0, 1).speaking - 25 * time).max() <= 0.51


@pytest.mark.parametrize("offset", [-0.4, 0.0, 0.08, 0.4])
def test_offset_moves_the_sound(offset):
    tracks, _ = run([segment(50, 50)], ramp(200), offset=offset)
    np.testing.assert_allclose(tracks.speaking, np.arange(50, 100) + round(25 * offset))


def test_offset_moves_speech_with_the_sound():
    speech = Timeline([Segment(4.0, 5.0)])
    tracks, _ = run([segment(0, 250)], ramp(300), speech=speech, offset=1.0)
    scored = tracks.time[np.isfinite(tracks.speaking)]
    assert scored.min() == pytest.approx(2.5, abs=0.05)
    assert scored.max() == pytest.approx(4.5, abs=0.05)


def test_only_faces_during_speech_are_scored():
    speech = Timeline([Segment(1.0, 2.0), Segment(2.2, 2.5), Segment(8.0, 9.0)])
    scorer = Loudness()
    segments = [segment(0, 150), segment(150, 30)]
    tracks, _ = run(segments, ramp(400), scorer, speech=speech)
    expected = (tracks.time > 0.49) & (tracks.time < 2.99)
    assert np.array_equal(np.isfinite(tracks.speaking), expected)
    np.testing.assert_allclose(tracks.speaking[expected], np.round(25 * tracks.time[expected]))
    # one call, for the speech and its context only
    assert scorer.calls == [pytest.approx(62 + 20, abs=2)]


def test_no_speech_no_scores():
    scorer = Loudness()
    tracks, scores = run([segment(0, 50)], ramp(50), scorer, speech=Timeline())
    assert np.isnan(tracks.speaking).all()
    assert not scorer.calls
    assert estimate_offset(scores) == (0.0, 0.0)


@pytest.mark.slow
@settings(deadline=None, max_examples=50)
@given(
    turns=st.lists(
        st.tuples(st.integers(0, 300), st.integers(1, 60)).map(
            lambda t: Segment(t[0] / 25, (t[0] + t[1]) / 25)
        ),
        max_size=6,
    ),
    start=st.integers(0, 100),
    num_frames=st.integers(1, 200),
)
def test_speech_is_matched_as_by_definition(turns, start, num_frames):
    speech = Timeline(turns)
    # half a frame off the margins: no ties
    tracks, _ = run([segment(start, num_frames)], ramp(400), speech=speech)
    margins = [(turn.start - 0.5, turn.end + 0.5) for turn in turns]
    for time, score in zip(tracks.time, tracks.speaking, strict=True):
        clear = all(abs(time - edge) > 1e-6 for margin in margins for edge in margin)
        if clear:
            assert np.isfinite(score) == any(a < time < b for a, b in margins)


def test_faces_absent_for_seconds():
    absent = range(60, 160)
    tracks, _ = run([segment(0, 250, absent=absent)], ramp(250), smoothing=5)
    assert len(tracks) == 150
    assert np.isfinite(tracks.speaking).all()
    # smoothing does not reach over what is not there
    np.testing.assert_allclose(tracks.speaking[10:58], np.arange(10, 58), atol=1e-4)


def test_sound_that_ends_early_is_continued_by_silence():
    tracks, _ = run([segment(0, 100)], ramp(75))
    np.testing.assert_allclose(tracks.speaking, [*range(75)] + [0] * 25)


@pytest.mark.parametrize("num_samples", [0, 1, 1000])
def test_hardly_any_sound(num_samples):
    tracks, _ = run([segment(40, 5)], torch.zeros(1, num_samples))
    np.testing.assert_array_equal(tracks.speaking, np.zeros(5))


def test_threshold_and_smoothing():
    plain, _ = run([segment(0, 50)], ramp(50))
    moved, _ = run([segment(0, 50)], ramp(50), threshold=2.0)
    np.testing.assert_allclose(plain.speaking - moved.speaking, 2.0)
    steps = ramp(50)
    steps[:, 640 * 25 :] = 0
    steps[:, : 640 * 25] = 5
    smooth, _ = run([segment(0, 50)], steps, smoothing=5)
    np.testing.assert_allclose(smooth.speaking[21:29], [5, 5, 4, 3, 2, 1, 0, 0], atol=1e-5)


@pytest.mark.parametrize("num_frames", [1, 2, 3])
def test_short_tracks_are_smoothed_too(num_frames):
    tracks, _ = run([segment(0, num_frames)], ramp(10), smoothing=5)
    np.testing.assert_allclose(tracks.speaking, (num_frames - 1) / 2)


@pytest.fixture(scope="module")
def lrasd():
    torch.manual_seed(0)
    return NetworkScorer(LRASD())


SCORERS = ["lr-asd", "synchrony", "both"]


@pytest.fixture(params=SCORERS)
def scorer(request, lrasd):
    synchrony = SynchronyScorer()
    both = AverageScorer({lrasd: 0.7, synchrony: 0.3})
    return {"lr-asd": lrasd, "synchrony": synchrony, "both": both}[request.param]


def noise(num_frames, seed=0):
    return 0.1 * torch.randn(1, 640 * num_frames, generator=torch.Generator().manual_seed(seed))


def test_conformance(scorer):
    assert isinstance(scorer, ActiveSpeakerScorer)
    face = segment(0, 80, absent=[0, 1, 30, 31, 79])
    scores = scorer(noise(80), face.crops, face.present)
    assert scores.dtype == np.float32
    assert np.array_equal(np.isfinite(scores), face.present)
    other = np.where(face.present[:, None, None], face.crops, np.uint8(7))
    np.testing.assert_array_equal(scorer(noise(80), other, face.present), scores)
    assert np.isnan(scorer(noise(80), face.crops, np.zeros(80, bool))).all()
    for count in (1, 2, 3):
        few = scorer(noise(count), face.crops[2 : 2 + count], face.present[2 : 2 + count])
        assert np.isfinite(few).all()
    assert np.isfinite(scorer(torch.zeros(1, 640 * 20), face.crops[2:22], face.present[2:22])).all()


@pytest.mark.slow
def test_lrasd_in_chunks_is_lrasd_in_one_piece(lrasd):
    face, sound = segment(0, 110), noise(110)
    one_window = NetworkScorer(lrasd.model, window_seconds=(10,))
    with torch.inference_mode():
        whole = lrasd.model(sound[None], torch.from_numpy(face.crops)[None])[0, :, 0]
    found = one_window(sound, face.crops, face.present)
    np.testing.assert_allclose(found, whole, atol=1e-4)


def test_faces_scored_together_are_scored_as_alone(lrasd):
    windows = {"window_seconds": (0.4, 0.8)}
    lrasd = NetworkScorer(lrasd.model, **windows)
    faces = []
    for n, absent in ((24, []), (14, [5, 6]), (12, range(12)), (24, [0, 1]), (3, [])):
        face = segment(0, n, absent=absent, seed=n)
        faces.append((noise(n, seed=n), face.crops, face.present))
    alone = [lrasd(*face) for face in faces]
    for scorer in (lrasd, NetworkScorer(lrasd.model, batch_size=4, **windows)):
        for found, expected in zip(scorer.many(faces), alone, strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-5)
    both = AverageScorer({lrasd: 0.7, SynchronyScorer(): 0.3})
    for found, face in zip(both.many(faces), faces, strict=True):
        np.testing.assert_allclose(found, both(*face), atol=1e-5)


def test_faces_with_the_same_audio_are_scored_as_alone(lrasd):
    scorer, sound = NetworkScorer(lrasd.model, window_seconds=(1,)), noise(12)
    faces = []
    for seed, absent in ((0, []), (1, []), (2, range(4))):  # the last one appears later
        face = segment(0, 12, absent=absent, seed=seed)
        faces.append((sound.clone(), face.crops, face.present))
    faces.append((noise(12, seed=1), *faces[0][1:]))
    for found, face in zip(scorer.many(faces), faces, strict=True):
        np.testing.assert_allclose(found, scorer(*face), atol=1e-5)


@pytest.mark.parametrize("offset", [0.0, 0.2])
def test_curves_are_computed_on_request_only(offset):
    sound = 10 + ramp(150)
    _, scores = run([segment(0, 100)], sound, offset=offset)
    _, bare = run([segment(0, 100)], sound, offset=offset, curves=False)
    np.testing.assert_array_equal(bare[0].score, scores[0].score)
    assert scores[0].curves.shape == (1, 51)
    assert bare[0].curves.shape == (0, 51)
    assert bare[0].rows.shape == (0, 2)
    assert estimate_offset(bare) == (0.0, 0.0)


def test_mean_of_scorers(lrasd):
    face, sound = segment(0, 60, absent=[5]), noise(60)
    synchrony = SynchronyScorer()
    both = AverageScorer({lrasd: 0.7, synchrony: 0.3})
    assert both.name == "lr-asd+synchrony"
    parts = [scorer(sound, face.crops, face.present) for scorer in (lrasd, synchrony)]
    found = both(sound, face.crops, face.present)
    np.testing.assert_allclose(found, 0.7 * parts[0] + 0.3 * parts[1], atol=1e-5)


def test_folded_network_scores_the_same():
    torch.manual_seed(0)
    model = LRASD().eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2.0)
    crops, sound = torch.from_numpy(segment(0, 30).crops)[None], noise(30)[None]
    with torch.inference_mode():
        folded = NetworkScorer(model).model(sound, crops)
        torch.testing.assert_close(folded, model(sound, crops), atol=1e-5, rtol=1e-5)


def test_absence_around_a_face_changes_nothing(lrasd):
    face, sound = segment(0, 60), noise(60)
    alone = lrasd(sound, face.crops, face.present)
    crops = np.pad(face.crops, ((20, 30), (0, 0), (0, 0)))
    present = np.pad(face.present, (20, 30))
    padded = lrasd(torch.nn.functional.pad(sound, (640 * 20, 640 * 30)), crops, present)
    np.testing.assert_allclose(padded[20:80], alone, atol=1e-4)


def test_scorers_by_name(monkeypatch, tmp_path):
    monkeypatch.setenv("PYANNOTE_AV_CACHE", str(tmp_path))
    monkeypatch.delenv("PYANNOTE_AV_WEIGHTS", raising=False)
    assert get_scorer("auto").name == "compact-asd+synchrony"
    assert get_scorer("synchrony").name == "synchrony"
    mine = Loudness()
    assert get_scorer(mine) is mine
    with pytest.raises(FileNotFoundError, match="pyannote-av download lr-asd"):
        get_scorer("lr-asd")
    with pytest.raises(ValueError, match="synchrony"):
        get_scorer("nobody")


def test_scorer_with_public_weights(monkeypatch, shared_data):
    monkeypatch.setenv("PYANNOTE_AV_WEIGHTS", str(shared_data / "weights"))
    assert get_scorer("auto").name == "lr-asd+synchrony"


def test_pipeline_is_tunable():
    pipeline = ActiveSpeakerDetection(scorer="synchrony", token=None, cache_dir=None)
    assert pipeline.parameters().keys() == {"threshold", "smoothing"}
    pipeline.instantiate({"threshold": 1.5, "smoothing": 1})
    collector = pipeline.collector(ramp(100))
    collector.update(segment(0, 100))
    tracks = pipeline.add_scores(tracks_of(segment(0, 100)), collector.compute())
    default = ActiveSpeakerDetection(scorer="synchrony")
    assert (default.add_scores(tracks, collector.compute()).speaking > tracks.speaking).mean() > 0.9


def test_collected_scores_do_not_depend_on_when_they_are_computed():
    once, often = (SpeakingScoreCollector(Loudness(), ramp(200)) for _ in range(2))
    for start in (10, 60, 110):
        once.update(segment(start, 50))
        often.update(segment(start, 50))
        often.compute()
    assert [one.start for one in often.compute()] == [10, 60, 110]
    for one, other in zip(once.compute(), often.compute(), strict=True):
        np.testing.assert_array_equal(one.score, other.score)
    assert len(once.compute()) == 3


def mapping(num_frames=75):
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (num_frames, 90, 120, 3), dtype=np.uint8)
    time = np.arange(5, num_frames - 5) / 25
    return {
        "uri": "noise",
        "frames": frames,
        "timestamps": np.arange(num_frames) / 25,
        "waveform": noise(num_frames),
        "sample_rate": 16000,
        "face_tracks": FaceTracks(
            time, np.zeros(len(time)), np.tile([0.3, 0.2, 0.7, 0.8], (len(time), 1))
        ),
    }


def test_whole_pipeline_on_given_tracks():
    pipeline = ActiveSpeakerDetection(scorer="synchrony")
    steps = []
    tracks = pipeline(mapping(), hook=lambda step, *_, **__: steps.append(step))
    assert len(tracks) == 65
    assert np.isfinite(tracks.speaking).all()
    assert steps

    during = pipeline({**mapping(), "speech": Timeline([Segment(0.0, 0.5)])})
    assert np.isfinite(during.speaking).sum() == 20  # 0.2 s to 1 s

    pipeline.training = True
    assert isinstance(pipeline(mapping()), Annotation)
