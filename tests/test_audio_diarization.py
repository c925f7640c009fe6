"""Audio-only diarization: pyannote's results, on any file, with every part encoded once."""

import warnings
import wave
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyannote.audio
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nst
from pyannote.audio import Inference
from pyannote.audio.core.plda import PLDA
from pyannote.audio.pipelines import SpeakerDiarization
from pyannote.core import Annotation, Segment, SlidingWindow, SlidingWindowFeature, Timeline
from pyannote.database import ProtocolFile
from pyannote.database.util import load_rttm
from pyannote.metrics.diarization import DiarizationErrorRate
from pyannote.pipeline import Optimizer

from pyannote_av.core.caching import MemoryCache, use
from pyannote_av.core.output import AVDiarizeOutput
from pyannote_av.core.weights import find
from pyannote_av.models.loading import load_model
from pyannote_av.pipelines import audio_diarization
from pyannote_av.pipelines.audio_diarization import AudioDiarization, tidy
from pyannote_av.pipelines.chunk_embedding import embed_chunks, embedding_masks
from pyannote_av.pipelines.clustering import AgglomerativeClustering
from pyannote_av.pipelines.late_fusion import LateFusion

SAMPLE = Path(pyannote.audio.__file__).parent / "sample" / "sample.wav"


@pytest.fixture(scope="module")
def waveform() -> torch.Tensor:
    from pyannote_av.core.io import Video

    return Video().waveform(SAMPLE)


@pytest.fixture(scope="module")
def excerpt(waveform) -> torch.Tensor:
    """11 s in which two people speak: two chunks."""
    return waveform[:, 7 * 16000 : 18 * 16000]


@pytest.fixture(scope="module")
def reference() -> Annotation:
    return load_rttm(SAMPLE.with_suffix(".rttm"))["sample"]


@pytest.fixture(scope="module")
def pipeline() -> AudioDiarization:
    for name in ("segmentation-3.0", "campplus"):
        if find(name) is None:
            pytest.skip(f"weights {name!r} are not on this machine")
    pipeline = AudioDiarization()
    return pipeline.instantiate(pipeline.default_parameters())


def side_by_side(pipeline: AudioDiarization) -> tuple[AudioDiarization, SpeakerDiarization]:
    """Ours and pyannote's own pipeline, with chunks that do not overlap.

    Without overlap, the chunks of pyannote's pipeline are the blocks that ours encodes.
    """
    models = {
        "segmentation": pipeline.segmentation_model,
        "segmentation_step": 1.0,
        "embedding": pipeline.embedding,
        "embedding_exclude_overlap": pipeline.embedding_exclude_overlap,
    }
    placeholder = PLDA.__new__(PLDA)
    theirs = SpeakerDiarization(**models, plda=placeholder, clustering="AgglomerativeClustering")
    parameters = pipeline.parameters(instantiated=True)
    return AudioDiarization(**models).instantiate(parameters), theirs.instantiate(parameters)


def sound(waveform: torch.Tensor, **more) -> dict:
    return {"waveform": waveform, "sample_rate": 16000, "uri": "sample", **more}


def check(output: AVDiarizeOutput, duration: float, voiceprints: bool = True) -> None:
    """What holds for every output."""
    for annotation in (output.speaker_diarization, output.exclusive_speaker_diarization):
        extent = annotation.get_timeline().extent()
        assert not extent or (extent.start >= 0 and extent.end <= duration + 1e-6)
    labels = output.speaker_diarization.labels()
    assert labels == [f"SPEAKER_{i:02d}" for i in range(len(labels))]
    assert set(output.exclusive_speaker_diarization.labels()) <= set(labels)
    assert not output.exclusive_speaker_diarization.get_overlap()
    assert output.speaker_embeddings.shape == (len(labels), 192)
    if voiceprints:
        assert np.isfinite(output.speaker_embeddings).all()


@pytest.mark.slow
def test_sample(pipeline, reference):
    """Golden error rate: 5.2 % when recorded (collar 0, overlap scored)."""
    output = pipeline(SAMPLE)
    check(output, 30.0)
    assert output.speaker_diarization.uri == "sample"
    error = DiarizationErrorRate()(reference, output.speaker_diarization, uem=Segment(0, 30))
    assert error < 0.06
    assert len(output.speaker_diarization.labels()) == 2


def test_same_as_stock_pipeline(pipeline, waveform):
    """A whole number of chunks, since ours treats the rest at the end differently."""
    file = sound(waveform[:, : 20 * 16000])
    ours, theirs = (each(dict(file)) for each in side_by_side(pipeline))
    difference = DiarizationErrorRate()(
        theirs.speaker_diarization, ours.speaker_diarization, uem=Segment(0, 20)
    )
    assert difference == pytest.approx(0.0, abs=1e-6)
    order = [
        max(theirs.speaker_diarization.labels(), key=lambda k: _common(ours, label, theirs, k))
        for label in ours.speaker_diarization.labels()
    ]
    rows = [theirs.speaker_diarization.labels().index(k) for k in order]
    one, other = ours.speaker_embeddings, theirs.speaker_embeddings[rows]
    cosine = (one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    assert (cosine > 0.999).all()


def _common(ours, label, theirs, other) -> float:
    a = ours.speaker_diarization.label_timeline(label)
    return a.crop(theirs.speaker_diarization.label_timeline(other)).duration()


@pytest.mark.slow
@pytest.mark.parametrize("uri", ["trn03", "dev00"])
def test_same_as_stock_pipeline_on_meetings(pipeline, shared_data, uri):
    from pyannote_av.core.io import Video

    file = sound(Video().waveform(shared_data / "ami" / f"{uri}.flac"))
    ours, theirs = (each(dict(file)) for each in side_by_side(pipeline))
    difference = DiarizationErrorRate()(
        theirs.speaker_diarization, ours.speaker_diarization, uem=Segment(0, 30)
    )
    assert difference < 0.01


def test_every_part_is_encoded_once(pipeline, waveform, monkeypatch):
    seen = []
    encode = pipeline.embedding.frame_features
    monkeypatch.setattr(
        pipeline.embedding, "frame_features", lambda x: seen.append(x.shape) or encode(x)
    )
    silent = torch.zeros(1, 13 * 16000)
    pipeline(sound(torch.cat([silent, waveform[:, 7 * 16000 : 20 * 16000]], dim=1)))
    # pyannote asks for the shortest input first. Then blocks of 10 s begin at 0, 10 and 16 s, and
    # nobody speaks in the first one
    assert [shape for shape in seen if shape[-1] > 16000] == [(1, 1, 160000)] * 2


def test_embeddings_of_a_chunk_come_from_its_own_time():
    """Frames that encode their own position, pooled by their mean."""

    def position(audio: torch.Tensor) -> torch.Tensor:
        return audio[:, :, 80::160]

    def mean(frames: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return (frames * weights).sum(dim=-1, keepdim=True) / weights.sum(dim=-1, keepdim=True)

    step, duration, rate = 3.3, 10.0, 16000
    audio = torch.arange(27.3 * rate)[None] / rate
    chunks = SlidingWindow(start=0, duration=duration, step=step)
    activity = np.zeros((7, 500, 2))
    activity[:, 100:150, 0] = 1  # 2 s to 3 s of each chunk
    activity[1:3, 400:500, 1] = 1  # 8 s to 10 s
    found = embed_chunks(
        position,
        mean,
        audio,
        SlidingWindowFeature(activity, chunks),
        dimension=1,
        sample_rate=rate,
        batch_size=2,
    )
    np.testing.assert_allclose(found[:, 0, 0], 2.5 + step * np.arange(7), atol=0.02)
    np.testing.assert_allclose(found[1:3, 1, 0], 9 + step * np.arange(1, 3), atol=0.02)
    assert np.isnan(found[[0, 3, 4, 5, 6], 1]).all()


def test_batches_change_nothing(pipeline, excerpt):
    one = pipeline(sound(excerpt))
    try:
        pipeline.embedding_batch_size = 8
        eight = pipeline(sound(excerpt))
    finally:
        pipeline.embedding_batch_size = 1
    assert one.speaker_diarization == eight.speaker_diarization
    np.testing.assert_allclose(one.speaker_embeddings, eight.speaker_embeddings, atol=1e-3)


def test_several_cores_change_nothing(pipeline, excerpt):
    before, found = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(pipeline(sound(excerpt)))
    finally:
        torch.set_num_threads(before)
    assert found[0].speaker_diarization == found[1].speaker_diarization
    np.testing.assert_allclose(*(one.speaker_embeddings for one in found), atol=1e-3)


def test_long_files_are_kept_at_half_precision(pipeline, excerpt, monkeypatch):
    file = sound(excerpt)
    usual = pipeline(file).speaker_diarization
    monkeypatch.setattr("pyannote_av.core.pipeline.LONG", 5.0)
    prepared = pipeline.prepare_one(file)
    assert prepared["waveform"].dtype == torch.float16
    found = pipeline(file).speaker_diarization
    assert len(usual.labels()) == 2
    assert DiarizationErrorRate()(usual, found) < 0.01


def test_pipelines_of_other_packages_get_full_precision(pipeline, excerpt, monkeypatch):
    _, theirs = side_by_side(pipeline)
    fusion = LateFusion(audio=theirs)
    fusion.instantiate(fusion.default_parameters())
    monkeypatch.setattr("pyannote_av.core.pipeline.LONG", 5.0)
    assert len(fusion(sound(excerpt)).speaker_diarization.labels()) == 2


@pytest.mark.parametrize("duration", [0.1, 0.3, 0.5, 3.0, 9.99, 10.0, 12.34])
def test_any_duration(pipeline, waveform, duration):
    start = 16000 * 7  # someone speaks
    excerpt = waveform[:, start : start + round(duration * 16000)]
    check(pipeline(sound(excerpt)), duration, voiceprints=duration >= 0.5)


def test_short_file_has_its_speaker(pipeline, waveform):
    output = pipeline(sound(waveform[:, 7 * 16000 : 9 * 16000]))
    assert len(output.speaker_diarization.labels()) == 1
    assert np.isfinite(output.speaker_embeddings).all()


def test_silence(pipeline):
    output = pipeline(sound(torch.zeros(1, 16000 * 12)))
    check(output, 12.0)
    assert not output.speaker_diarization


@pytest.mark.parametrize("num_speakers", [1, 2, 3])
def test_number_of_speakers_is_honoured(pipeline, excerpt, num_speakers):
    output = pipeline(sound(excerpt), num_speakers=num_speakers)
    check(output, 11.0)
    assert len(output.speaker_diarization.labels()) == num_speakers


def test_bounds_on_number_of_speakers_are_honoured(pipeline, excerpt):
    assert len(pipeline(sound(excerpt), max_speakers=1).speaker_diarization.labels()) == 1
    assert len(pipeline(sound(excerpt), min_speakers=3).speaker_diarization.labels()) == 3
    assert len(pipeline(sound(excerpt), max_speakers=5).speaker_diarization.labels()) == 2


def test_reference_does_not_show_in_output(pipeline, excerpt, reference):
    check(pipeline(sound(excerpt, annotation=reference)), 11.0)


def test_hook_sees_progress(pipeline, excerpt):
    steps = {}

    def hook(step, artifact, file=None, total=None, completed=None):
        steps.setdefault(step, []).append((completed, total))

    pipeline(sound(excerpt), hook=hook)
    assert {"segmentation", "speaker_counting", "embeddings"} <= steps.keys()
    progress = [pair for pair in steps["embeddings"] if pair[1]]
    assert progress[0][0] == 0
    assert progress[-1][0] == progress[-1][1]


@pytest.fixture
def calls(monkeypatch) -> dict[str, int]:
    """How often networks were run"""
    counted = dict.fromkeys(("slide", "embed_chunks"), 0)

    def watch(owner, name):
        original = getattr(owner, name)

        def watched(*args, **kwargs):
            counted[name] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, watched)

    watch(Inference, "slide")
    watch(audio_diarization, "embed_chunks")
    return counted


def test_optimizer(pipeline, excerpt, reference, calls):
    spoken = Annotation(uri="sample")
    for turn, track, label in reference.crop(Segment(7, 18)).itertracks(yield_label=True):
        spoken[Segment(turn.start - 7, turn.end - 7), track] = label
    file = sound(
        excerpt,
        annotation=spoken,
        annotated=Timeline([Segment(0, 11)]),
        pipeline_kwargs={"num_speakers": 2},
    )
    tuned = AudioDiarization(pipeline.segmentation_model, embedding=pipeline.embedding)
    tuned.freeze({"segmentation": {"min_duration_off": 0.0}, "clustering": {"method": "average"}})
    given = dict(file)
    start = {"clustering": {"threshold": 0.43, "min_cluster_size": 3}}
    result = Optimizer(tuned, seed=0).tune(
        [file], n_iterations=3, warm_start=start, show_progress=False
    )
    assert result["loss"] < 0.1
    # once, not once per trial, and not in the file
    assert calls == {"slide": 1, "embed_chunks": 1}
    assert file.keys() == given.keys()
    assert all(file[name] is value for name, value in given.items())


@pytest.mark.slow
def test_two_pipelines_share_the_cache_of_an_optimizer(pipeline, excerpt, calls):
    other = AudioDiarization(pipeline.segmentation_model, embedding=pipeline.embedding)
    other.instantiate({"clustering": {"method": "average", "threshold": 0.3}})
    other.instantiate({"segmentation": {"min_duration_off": 0.1}})
    other.instantiate({"clustering": {"min_cluster_size": 3}})
    cache, file = MemoryCache(), sound(excerpt)
    with use(cache):
        other(file)
    assert not len(cache)  # it is not tuned
    calls.update(dict.fromkeys(calls, 0))
    pipeline.training = other.training = True
    try:
        with use(cache):
            pipeline(file)
            other(file)
            assert calls == {"slide": 1, "embed_chunks": 1}
            other.embedding_exclude_overlap = False
            other(file)
            assert calls == {"slide": 1, "embed_chunks": 2}
    finally:
        pipeline.training = False


binary = nst.arrays(np.float32, (3, 20, 3), elements=st.sampled_from([0.0, 1.0, np.nan]))


@settings(deadline=None, max_examples=50)
@given(segmentations=binary)
def test_masks(segmentations):
    active = np.nan_to_num(segmentations)
    np.testing.assert_array_equal(embedding_masks(segmentations), active)
    masks = embedding_masks(segmentations, exclude_overlap=True, min_num_frames=2)
    assert (masks <= active).all()
    # nobody loses all frames, and who keeps few frames keeps them all
    np.testing.assert_array_equal(masks.any(axis=1), active.any(axis=1))
    reduced = (masks != active).any(axis=1)
    assert (masks.sum(axis=1)[reduced] > 2).all()


def test_tidy_cuts_and_renames():
    diarization = Annotation(uri="x")
    diarization[Segment(1, 2), "a"] = "late"
    diarization[Segment(0, 1), "b"] = "early"
    diarization[Segment(6, 7), "c"] = "beyond"
    from pyannote.audio.pipelines.speaker_diarization import DiarizeOutput

    embeddings = np.array([[3.0], [1.0], [0.0]])  # beyond, early, late (none)
    output = tidy(DiarizeOutput(diarization, diarization.copy(), embeddings), duration=1.5)
    assert list(output.speaker_diarization.itertracks(yield_label=True)) == [
        (Segment(0, 1), "b", "SPEAKER_00"),
        (Segment(1, 1.5), "a", "SPEAKER_01"),
    ]
    np.testing.assert_array_equal(output.speaker_embeddings, [[1.0], [np.nan]])


@settings(deadline=None, max_examples=25)
@given(
    num_chunks=st.integers(1, 30),
    num_clusters=st.integers(1, 5),
    step=st.sampled_from([1.0, 2.5]),
    seed=st.integers(0, 100),
)
def test_reconstruction_is_upstreams(num_chunks, num_clusters, step, seed):
    rng = np.random.default_rng(seed)
    data = (rng.random((num_chunks, 589, 3)) > 0.6).astype(np.float32)
    window = SlidingWindow(start=0.0, duration=10.0, step=step)
    frames = SlidingWindow(start=0.0, duration=991 / 16000, step=270 / 16000)
    clusters = rng.integers(0, num_clusters, (num_chunks, 3))
    clusters[rng.random((num_chunks, 3)) > 0.8] = -2
    clusters[0, 0] = num_clusters - 1

    def reconstruct(cls):
        segmentations = SlidingWindowFeature(data.copy(), window)
        count = cls.speaker_count(segmentations, frames, warm_up=(0.0, 0.0))
        count.data = np.minimum(count.data, 3).astype(np.int8)
        return cls.reconstruct(cls, segmentations, clusters.copy(), count)

    ours, theirs = reconstruct(AudioDiarization), reconstruct(SpeakerDiarization)
    np.testing.assert_array_equal(ours.data, theirs.data)
    assert ours.sliding_window.step == theirs.sliding_window.step
    assert ours.sliding_window.start == theirs.sliding_window.start


def clouds(sizes: list[int], seed: int = 0) -> tuple[np.ndarray, SlidingWindowFeature, np.ndarray]:
    """Embeddings of well separated speakers, one per chunk, with segmentations and truth."""
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    centres = np.eye(len(sizes), 16)
    embeddings = np.full((len(truth), 3, 16), np.nan)
    embeddings[:, 0] = centres[truth] + 0.05 * rng.standard_normal((len(truth), 16))
    segmentations = np.zeros((len(truth), 50, 3), dtype=np.float32)
    segmentations[:, :, 0] = 1.0
    window = SlidingWindow(start=0.0, duration=10.0, step=1.0)
    return embeddings, SlidingWindowFeature(segmentations, window), truth


def clustering(**more) -> AgglomerativeClustering:
    return AgglomerativeClustering().instantiate(
        {"method": "average", "threshold": 0.43, "min_cluster_size": 3, **more}
    )


def test_clustering_of_long_files_is_bounded(monkeypatch):
    embeddings, segmentations, truth = clouds([3000, 1500, 40])
    algorithm = clustering()
    kept, _, _ = algorithm.filter_embeddings(embeddings, segmentations)
    assert len(kept) == algorithm.MAX_EMBEDDINGS
    hard, _, centroids = algorithm(embeddings, segmentations)
    assert centroids.shape == (3, 16)
    assert len(set(zip(hard[:, 0], truth, strict=True))) == 3, "one cluster per speaker"
    assert (hard[:, 1:] == -2).all(), "those without an embedding belong to nobody"


@pytest.mark.parametrize("wanted", [1, 2, 3, 4])
def test_clustering_finds_as_many_as_asked_for(wanted, capsys):
    embeddings, segmentations, _ = clouds([20, 2])
    algorithm = clustering(min_cluster_size=5)
    hard, _, centroids = algorithm(
        embeddings,
        segmentations,
        num_clusters=wanted,
        min_clusters=wanted,
        max_clusters=wanted,
    )
    assert len(centroids) == wanted == len(np.unique(hard[:, 0]))
    assert algorithm.min_cluster_size == 5
    assert not capsys.readouterr().out


def test_clustering_in_two_threads_with_different_numbers_of_speakers():
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(40, 1, 8)) + 3 * np.eye(8)[rng.integers(0, 4, 40)][:, None]
    frames = SlidingWindow(duration=0.1, step=0.1)
    active = SlidingWindowFeature(np.ones((40, 10, 1), np.float32), frames)
    algorithm = clustering(min_cluster_size=12)

    def count(number):
        return algorithm(embeddings, active, num_clusters=number)[0].max() + 1

    alone = [count(number) for number in (1, 4)]
    assert alone == [1, 4]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(count, (1, 4) * 20)) == alone * 20


def test_clustering_without_embeddings():
    _, segmentations, _ = clouds([2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hard, _, centroids = clustering()(np.full((2, 3, 16), np.nan), segmentations)
    assert (hard == 0).all()
    assert np.isnan(centroids).all()


def test_load_model(pipeline, tmp_path):
    assert load_model(pipeline.embedding) is pipeline.embedding
    assert load_model(find("campplus")).dimension == 192
    folder = tmp_path / "model" / "embedding"
    pipeline.embedding.save(folder)
    for reference in (folder, {"checkpoint": str(folder.parent), "subfolder": "embedding"}):
        assert load_model(reference).dimension == 192
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_model("nowhere.bin")


def test_plda_switches_to_vbx(pipeline, excerpt, tmp_path):
    """With a made-up PLDA: what is checked is the way, not the figures."""
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "xvec_transform.npz",
        mean1=np.zeros(192),
        mean2=np.zeros(128),
        lda=np.linalg.qr(rng.standard_normal((192, 128)))[0],
    )
    np.savez(
        tmp_path / "plda.npz", mu=np.zeros(128), tr=np.eye(128), psi=np.linspace(5.0, 0.1, 128)
    )
    vbx = AudioDiarization(pipeline.segmentation_model, embedding=pipeline.embedding, plda=tmp_path)
    vbx.instantiate(vbx.default_parameters())
    check(vbx(sound(excerpt)), 11.0, voiceprints=False)
    check(vbx(sound(excerpt[:, 16000 : 2 * 16000])), 1.0, voiceprints=False)


@pytest.mark.slow
def test_voiceprints_are_there_while_hyper_parameters_are_tuned(pipeline, excerpt):
    prepared = pipeline.prepare_one({"waveform": excerpt, "sample_rate": 16000, "uri": "x"})
    expected = pipeline.diarize(prepared)
    pipeline.training = True
    try:
        found = pipeline.diarize(prepared)
        assert pipeline.apply(prepared) == expected.speaker_diarization
    finally:
        pipeline.training = False
    np.testing.assert_allclose(found.speaker_embeddings, expected.speaker_embeddings)


def write_wav(path, waveform):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((waveform[0].numpy() * 32767).astype("<i2").tobytes())
    return str(path)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", [dict, ProtocolFile])
def test_a_mapping_of_the_caller_is_not_written_to(pipeline, waveform, tmp_path, kind, training):
    """One that is used for two files, one after the other, gives the turns of each."""
    first, second = (
        write_wav(tmp_path / f"{name}.wav", waveform[:, start * 16000 : (start + 8) * 16000])
        for name, start in (("a", 6), ("b", 18))
    )
    expected = [pipeline(path).speaker_diarization for path in (first, second)]
    assert list(expected[0].itertracks()) != list(expected[1].itertracks())
    # what stock pyannote may have left there
    given = {"audio": first, "uri": "x", "training_cache/segmentation": "of another file"}
    file = kind(given)
    pipeline.training = training
    try:
        for path, turns in [*zip((first, second), expected, strict=True), (first, expected[0])]:
            file["audio"] = path
            found = pipeline(file)
            found = found if training else found.speaker_diarization
            assert [*found.itertracks(yield_label=True)] == [*turns.itertracks(yield_label=True)]
            assert dict(file) == {**given, "audio": path}
    finally:
        pipeline.training = False


@pytest.mark.parametrize("training", [False, True])
def test_two_threads_give_the_turns_of_one(pipeline, waveform, tmp_path, training):
    paths = [
        write_wav(tmp_path / f"{k}.wav", waveform[:, k * 16000 : (k + 6) * 16000])
        for k in (6, 12, 18)
    ]
    expected = [list(pipeline(path).speaker_diarization.itertracks()) for path in paths]
    pipeline.training = training
    try:
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(pipeline, paths * 2))
    finally:
        pipeline.training = False
    turns = [getattr(one, "speaker_diarization", one) for one in found]
    assert [list(one.itertracks()) for one in turns] == expected * 2


# --- sound that is not clean --------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["silence", "click", "offset"])
def test_nobody_speaks_in_silence(pipeline, kind):
    sound = torch.zeros(1, 12 * 16000)
    if kind == "click":
        sound[0, 6 * 16000 : 6 * 16000 + 20] = 0.9
    elif kind == "offset":
        sound += 0.3
    output = pipeline({"waveform": sound, "sample_rate": 16000, "uri": kind})
    assert output.speaker_diarization.labels() == []
    assert output.exclusive_speaker_diarization.labels() == []
    assert output.speaker_embeddings.shape[0] == 0
    assert any("no speakers can be found" in sentence for sentence in output.report.problems)
    assert output.serialize()["report"]["problems"] == output.report.problems


@pytest.mark.slow
def test_bad_samples_and_inverted_channels_change_nothing(pipeline, excerpt):
    clean = pipeline({"waveform": excerpt, "sample_rate": 16000, "uri": "talk"})
    assert clean.report.problems == []
    assert clean.report.seconds.keys() == {"decoding of the sound", "audio"}
    bad = excerpt.clone()
    bad[0, [50_000, 50_001, 120_000]] = torch.tensor([np.nan, np.inf, -np.inf])
    inverted = torch.cat([excerpt, -0.8 * excerpt])
    dead = torch.cat([torch.zeros_like(excerpt), excerpt])
    for sound, said in ((bad, "are NaN"), (inverted, "cancel each other"), (dead, "silent")):
        output = pipeline({"waveform": sound, "sample_rate": 16000, "uri": "talk"})
        error = DiarizationErrorRate()(clean.speaker_diarization, output.speaker_diarization)
        assert error < 0.01
        assert any(said in sentence for sentence in output.report.problems)
