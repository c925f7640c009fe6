"""Fitting a PLDA: covariances, what it does not depend on, and VBx with it."""

import logging

import numpy as np
import pytest
import torch
from conversations import voice, write_wav
from hypothesis import given, settings
from hypothesis import strategies as st
from pyannote.audio.core.plda import PLDA
from pyannote.audio.utils.vbx import cluster_vbx
from pyannote.core import Annotation, Segment, Timeline
from typer.testing import CliRunner

from pyannote_av.cli.fit_plda import command
from pyannote_av.clustering.plda import (
    fit_plda,
    plda_embeddings,
    save_plda,
    single_speaker_segments,
    two_covariance,
)
from pyannote_av.core.io import Video
from pyannote_av.pipelines.audio_diarization import AudioDiarization


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


class World:
    """Gaussian speakers of known covariances.

    Axes that whiten W have between-speaker variances `psi`, and W itself is not diagonal.
    """

    def __init__(self, size: int, psi: np.ndarray, seed: int = 0):
        rng = np.random.default_rng(seed)
        rotation = np.linalg.qr(rng.standard_normal((size, size)))[0]
        self.mixing = rotation * np.sqrt(rng.uniform(0.5, 2, size))
        self.psi = psi
        self.mean = 0.5 * rng.standard_normal(size)
        self.within = self.mixing @ self.mixing.T
        self.between = self.mixing * psi @ self.mixing.T

    def draw(self, counts, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings and labels of as many speakers as there are counts."""
        rng = np.random.default_rng(seed)
        who = np.repeat(np.arange(len(counts)), counts)
        speakers = rng.standard_normal((len(counts), len(self.psi))) * np.sqrt(self.psi)
        latent = speakers[who] + rng.standard_normal((len(who), len(self.psi)))
        return latent @ self.mixing.T + self.mean, who


def load(folder, parameters) -> PLDA:
    return PLDA.from_pretrained(save_plda(folder, parameters))


# covariances


def test_known_covariances_are_recovered_from_unequal_speakers():
    world = World(6, np.array([8.0, 4, 2, 1, 0.5, 0.1]))
    counts = np.random.default_rng(1).integers(1, 8, 30000)
    mean, within, between = two_covariance(*world.draw(counts, 2))
    assert np.abs(within - world.within).max() < 0.03
    assert np.abs(between - world.between).max() < 0.25  # of variances up to 10
    np.testing.assert_allclose(mean, world.mean, atol=0.08)
    # that of the means alone would be off by W mean(1 / n), which is 0.37 W
    assert np.abs(np.diag(between - world.between)).mean() < 0.05


def test_speakers_of_one_embedding_do_not_count_in_the_covariance_within():
    world = World(4, np.array([4.0, 2, 1, 0.5]))
    embeddings, speakers = world.draw([5] * 50, 3)
    alone, labels = world.draw([1] * 500, 4)
    _, before, _ = two_covariance(embeddings, speakers)
    _, after, _ = two_covariance(np.vstack([embeddings, alone]), np.append(speakers, labels + 50))
    np.testing.assert_allclose(after, before, atol=1e-3)


@pytest.mark.parametrize("dimension", [100, 24])
def test_space_of_pyannotes_plda(dimension, tmp_path):
    """Of speakers not fitted to: identity within, diag(phi) between."""
    world = World(100, np.geomspace(12, 0.3, 100))
    plda = load(tmp_path, fit_plda(*world.draw([12] * 1500, 5), dimension))
    assert plda.phi.shape == (dimension,)
    assert (np.diff(plda.phi) <= 0).all()
    embeddings, speakers = world.draw([12] * 1500, 6)
    mean, within, between = two_covariance(plda(embeddings), speakers)
    assert np.abs(mean).max() < 0.35
    assert np.abs(within - np.eye(dimension)).max() < 0.12
    assert np.abs(within - np.eye(dimension)).mean() < 0.015
    of_phi = np.sqrt(np.outer(1 + plda.phi, 1 + plda.phi))
    assert (np.abs(between - np.diag(plda.phi)) / of_phi).max() < 0.15
    # lengths hardly vary in 100 dimensions: neither then do ratios of variances
    if dimension == 100:
        np.testing.assert_allclose(plda.phi[:60], world.psi[:60], rtol=0.25)
    else:
        # those that LDA is to choose have 5 and more, the others down to 0.3
        assert plda.phi.min() > 3


def test_files_hold_what_was_fitted(tmp_path):
    """Every step of the transform is the one that parameters are documented for"""
    world = World(20, np.geomspace(5, 0.5, 20))
    embeddings, speakers = world.draw([6] * 60, 7)
    p = fit_plda(embeddings, speakers, 10)
    plda = load(tmp_path / "new" / "folder", p)

    def unit(x):
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    projected = np.sqrt(20) * unit(embeddings - p.mean1) @ p.lda
    y = np.sqrt(10) * unit(projected - p.mean2)
    expected = (y - p.mu) @ p.tr.T
    for values, mean in ((embeddings, p.mean1), (projected, p.mean2), (y, p.mu)):
        np.testing.assert_allclose(values.mean(axis=0), mean, atol=1e-9)
    # axes have no sign
    np.testing.assert_allclose(np.abs(plda(embeddings)), np.abs(expected), atol=1e-6)
    np.testing.assert_allclose(plda.phi, p.psi, rtol=1e-6)
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == [
        "plda.npz",
        "xvec_transform.npz",
    ]


def test_dimension_is_what_speakers_and_embeddings_allow(caplog):
    world = World(8, np.geomspace(5, 0.5, 8))
    with caplog.at_level(logging.WARNING):
        assert fit_plda(*world.draw([4] * 5, 8)).lda.shape == (8, 4)
        assert fit_plda(*world.draw([4] * 50, 8)).lda.shape == (8, 8)
    assert "LDA to 4 dimensions instead of 128" in caplog.text
    caplog.clear()
    assert fit_plda(*world.draw([4] * 50, 8), dimension=3).lda.shape == (8, 3)
    assert not caplog.text


@pytest.mark.parametrize("counts", [[2, 1], [5, 5], [2, 2, 2], [3] * 10])
def test_few_embeddings_make_a_valid_plda(counts, tmp_path):
    """Fewer than dimensions: covariances are singular"""
    world = World(64, np.geomspace(5, 0.5, 64))
    embeddings, speakers = world.draw(counts, 9)
    plda = load(tmp_path, fit_plda(embeddings, speakers))
    assert np.isfinite(plda(embeddings)).all()
    assert (plda.phi > 0).all()


def test_speakers_who_do_not_differ_make_a_valid_plda(tmp_path):
    """Variances between them come out negative, too"""
    embeddings, speakers = World(10, np.zeros(10)).draw([10] * 100, 14)
    assert np.linalg.eigvalsh(two_covariance(embeddings, speakers)[2]).min() < 0
    plda = load(tmp_path, fit_plda(embeddings, speakers))
    assert (plda.phi > 0).all()
    assert plda.phi.max() < 0.1
    assert np.isfinite(plda(embeddings)).all()


# what does not matter

PSI = np.geomspace(6, 0.5, 12)
EMBEDDINGS, SPEAKERS = World(12, PSI).draw(np.tile([1, 2, 4, 9], 8), 10)


def outcome(folder, embeddings, speakers, given=None) -> tuple[np.ndarray, np.ndarray]:
    """phi, and what VBx sees of embeddings: inner products, as axes have no sign."""
    plda = load(folder, fit_plda(embeddings, speakers, 6))
    mapped = plda(EMBEDDINGS if given is None else given)
    return plda.phi, mapped @ mapped.T


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return outcome(tmp_path_factory.mktemp("reference"), EMBEDDINGS, SPEAKERS)


def check(got, expected):
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-5)
    np.testing.assert_allclose(got[1], expected[1], atol=1e-4)


@settings(deadline=None, max_examples=15)
@given(st.randoms(use_true_random=False))
def test_neither_order_nor_names_matter(reference, tmp_path_factory, random):
    order = list(range(len(SPEAKERS)))
    random.shuffle(order)
    names = [f"speaker {i}" for i in range(SPEAKERS.max() + 1)]
    random.shuffle(names)
    renamed = [names[i] for i in SPEAKERS[order]]
    folder = tmp_path_factory.mktemp("shuffled")
    check(outcome(folder, EMBEDDINGS[order], renamed), reference)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 1000), st.floats(0.01, 100), st.floats(-10, 10))
def test_neither_scale_nor_rotation_nor_origin_matters(
    reference, tmp_path_factory, seed, scale, shift
):
    rotation = np.linalg.qr(np.random.default_rng(seed).standard_normal((12, 12)))[0]
    moved = scale * EMBEDDINGS @ rotation + shift
    check(outcome(tmp_path_factory.mktemp("moved"), moved, SPEAKERS, moved), reference)


def test_lengths_do_not_matter(tmp_path):
    """Those from the mean, which mirror images keep where it is"""
    latent, speakers = EMBEDDINGS - EMBEDDINGS.mean(axis=0), np.append(SPEAKERS, SPEAKERS + 100)
    both = np.vstack([latent, -latent])
    lengths = np.tile(np.random.default_rng(15).uniform(0.1, 10, len(latent)), 2)[:, None]
    got = outcome(tmp_path / "a", lengths * both, speakers, lengths * both)
    check(got, outcome(tmp_path / "b", both, speakers, both))


# VBx


def test_vbx_tells_speakers_apart(tmp_path):
    """Four speakers not fitted to, begun with as eight mixed clusters"""
    world = World(100, np.geomspace(12, 0.3, 100))
    plda = load(tmp_path, fit_plda(*world.draw([10] * 400, 11)))
    embeddings, speakers = world.draw([40] * 4, 12)
    rng = np.random.default_rng(13)
    begun = np.where(rng.random(160) < 0.5, 2 * speakers, rng.integers(0, 8, 160))
    begun[:8] = np.arange(8)
    found, shares = cluster_vbx(begun, plda(embeddings), plda.phi, Fa=0.3, Fb=3.0, maxIters=40)
    clusters = found.argmax(axis=1)
    assert len(np.unique(clusters)) == 4
    for speaker in range(4):
        assert len(np.unique(clusters[speakers == speaker])) == 1
    assert (shares > 0.01).sum() == 4


# errors


@pytest.mark.parametrize(
    ("embeddings", "speakers", "what"),
    [
        (np.eye(4), [0, 0, 0, 0], "two speakers"),
        (np.zeros((0, 4)), [], "two speakers"),
        (np.eye(4), [0, 1, 2, 3], "no speaker has two"),
        (np.diag([1, 1, 1, np.nan]), [0, 0, 1, 1], "not finite"),
        (np.diag([1, 1, 1, np.inf]), [0, 0, 1, 1], "not finite"),
        (np.eye(4), [0, 0, 1], "expected"),
        (np.arange(4), [0, 0, 1, 1], "expected"),
        (np.ones((4, 3)), [0, 0, 1, 1], "the same"),
    ],
)
def test_what_cannot_be_fitted(embeddings, speakers, what):
    with pytest.raises(ValueError, match=what):
        fit_plda(embeddings, speakers)


def test_dimension_of_none_is_refused():
    with pytest.raises(ValueError, match="dimension"):
        fit_plda(EMBEDDINGS, SPEAKERS, 0)


def test_nothing_is_replaced_when_writing_fails(tmp_path):
    parameters = fit_plda(EMBEDDINGS, SPEAKERS, 6)
    save_plda(tmp_path, parameters)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="inhomogeneous"):
        save_plda(tmp_path, parameters._replace(psi=[[1, 2], [3]]))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# where one speaker speaks


def turns(*rows) -> Annotation:
    annotation = Annotation()
    for track, (start, end, label) in enumerate(rows):
        annotation[Segment(start, end), track] = label
    return annotation


def test_segments_of_one_speaker():
    # a's turns touch, and one of his tracks lies within another
    annotation = turns((0, 4, "a"), (4, 8, "a"), (1, 2, "a"), (6, 12, "b"), (20, 20.9, "b"))
    found = single_speaker_segments(annotation)
    assert [(label, round(s.start, 6), round(s.end, 6)) for label, s in found] == [
        ("a", 0, 3),
        ("a", 3, 6),
        ("b", 8, 11),
        ("b", 11, 12),
    ]
    annotated = Timeline([Segment(1, 3), Segment(7, 10), Segment(11.5, 30)])
    found = single_speaker_segments(annotation, annotated)
    assert [(label, s.start, s.end) for label, s in found] == [("a", 1, 3), ("b", 8, 10)]


def test_at_most_so_many_evenly_spread():
    annotation = turns((0, 300, "a"), (300, 302, "b"))
    found = [s.start for label, s in single_speaker_segments(annotation, most=5) if label == "a"]
    assert found[0] == 0
    assert found[-1] == 297
    assert np.ptp(np.diff(found)) <= 3
    for wrong in ({"duration": 0.5}, {"most": 0}):
        with pytest.raises(ValueError, match="1 or more"):
            single_speaker_segments(annotation, **wrong)


times = st.integers(0, 300).map(lambda t: t / 10)
rows = st.lists(
    st.tuples(times, times, st.sampled_from("abc")).map(lambda r: (*sorted(r[:2]), r[2]))
)


@settings(deadline=None)
@given(rows, st.lists(st.tuples(times, times).map(sorted)), st.integers(1, 4))
def test_nobody_else_speaks_in_segments(rows, regions, most):
    annotation = turns(*(row for row in rows if row[1] > row[0]))
    annotated = Timeline([Segment(*region) for region in regions if region[1] > region[0]])
    found = single_speaker_segments(annotation, annotated, 2.5, most)
    for label, segment in found:
        assert 1 - 1e-5 <= segment.duration <= 2.5 + 1e-5
        inner = Segment(segment.start + 1e-5, segment.end - 1e-5)
        assert annotation.crop(inner).labels() == [label]
        assert annotation.label_timeline(label).support().covers(Timeline([inner]))
        assert annotated.support().covers(Timeline([inner]))
    labels = [label for label, _ in found]
    assert all(labels.count(label) <= most for label in labels)


# from files to a pipeline

NAME = "Buzzing.SpeakerDiarization.{}"
COLUMNS = """
        train:
          uri: train.lst
          annotation: all.rttm
          annotated: all.uem
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Two files of two voices each, 1 s of overlap, nothing annotated after 22 s; a missing one."""
    folder = tmp_path_factory.mktemp("corpus")
    rttm = ""
    for number, pitches in enumerate([(90, 210), (120, 250)]):
        uri, sound = f"file{number}", np.zeros(24 * 16000)
        for start, who in ((0, 0), (7, 1), (14, 0), (20, 1)):
            made = voice(pitches[who], 8.0, 10 * number + start)[: len(sound) - 16000 * start]
            sound[16000 * start :][: len(made)] += made
            rttm += f"SPEAKER {uri} 1 {start} {min(8, 24 - start)} <NA> <NA> {who} <NA> <NA>\n"
        write_wav(folder / f"{uri}.wav", sound)
    (folder / "all.rttm").write_text(rttm)
    (folder / "all.uem").write_text("".join(f"file{n} 1 0 22\n" for n in range(3)))
    (folder / "train.lst").write_text("file0\nfile1\n")
    (folder / "broken.lst").write_text("file0\nfile1\nfile2\n")
    text = "Databases:\n  Buzzing: ./{uri}.wav\nProtocols:\n  Buzzing:\n    SpeakerDiarization:\n"
    for name, scope in (("Whole", "file"), ("Same", "global"), ("Broken", "file")):
        columns = COLUMNS.replace("train.lst", "broken.lst") if name == "Broken" else COLUMNS
        text += f"      {name}:\n        scope: {scope}{columns}"
    (folder / "database.yml").write_text(text)
    return folder


def run(*arguments: object):
    import typer

    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def files_of(name: str, corpus) -> list:
    from pyannote_av.cli.prepare import files_of

    return files_of(NAME.format(name), ["train"], corpus / "database.yml")["train"]


@pytest.mark.slow
def test_speakers_of_different_files_are_different_unless_said_otherwise(corpus):
    found = plda_embeddings(files_of("Whole", corpus), most=2)
    assert found.failed == {}
    assert found.embeddings.shape == (8, 192)
    assert found.speakers.tolist() == [f"file{n}/{s}" for n in range(2) for s in "0011"]
    same = plda_embeddings(files_of("Same", corpus), most=2)
    assert same.speakers.tolist() == list("00110011")
    np.testing.assert_array_equal(same.embeddings, found.embeddings)
    # as the model puts them out
    assert np.linalg.norm(found.embeddings, axis=1).min() > 2


@pytest.mark.parametrize("annotated", [None, Timeline([Segment(0, 60)])])
def test_annotation_beyond_the_sound_and_silence_are_left_out(annotated):
    sound = np.concatenate([voice(120, 4.0, 0), np.zeros(56000), voice(150, 3.0, 1)[:14400]])
    file = {
        "uri": "x",
        "waveform": torch.from_numpy(sound.astype(np.float32))[None],
        "sample_rate": 16000,
        # b's is silence, and of c's there is 0.9 s
        "annotation": turns((0, 3, "a"), (4, 7, "b"), (7.5, 30, "c"), (40, 50, "a")),
        "annotated": annotated,
    }
    found = plda_embeddings([file, {"uri": "y", "waveform": file["waveform"]}])
    assert found.speakers.tolist() == ["x/a"]
    assert list(found.failed) == ["y"]
    assert "no annotation" in found.failed["y"]
    assert plda_embeddings([]).embeddings.shape == (0, 192)


def test_command_and_pipeline_with_what_it_wrote(corpus, tmp_path):
    into = tmp_path / "plda"
    done = run(NAME.format("Whole"), "--into", into, "--database", corpus / "database.yml")
    assert done.exit_code == 0, done.output
    # alone and annotated: 0-7, 8-14, 15-20, 22-22 -> 3 + 2 and 2 + 0 segments in each file
    assert "PLDA of 3 dimensions, from 14 embeddings of 4 speakers" in done.output
    assert str(into) in done.output
    assert PLDA.from_pretrained(into).phi.shape == (3,)
    pipeline = AudioDiarization(plda=into)
    pipeline.instantiate(pipeline.default_parameters())
    waveform = Video().waveform(corpus / "file0.wav")[:, : 12 * 16000]
    output = pipeline({"waveform": waveform, "sample_rate": 16000, "uri": "file0"})
    assert pipeline.klustering == "VBxClustering"
    assert output.speaker_embeddings.shape[1] == 192
    assert output.speaker_diarization.labels()


def test_one_bad_file_is_reported_and_does_not_stop_the_others(corpus, tmp_path):
    into = tmp_path / "plda"
    options = ("--database", corpus / "database.yml", "--dimension", 2, "--duration", 5)
    done = run(NAME.format("Broken"), "--into", into, *options)
    assert done.exit_code == 1
    assert "file2" in done.output
    assert "PLDA of 2 dimensions" in done.output
    assert PLDA.from_pretrained(into).phi.shape == (2,)


def test_command_says_what_is_wrong(corpus, tmp_path):
    (tmp_path / "taken").write_text("a file")
    database = ("--database", corpus / "database.yml")
    for arguments, what in (
        (("Nothing", "--into", tmp_path / "a", *database), "not a protocol"),
        ((NAME.format("Whole"), "--into", tmp_path / "taken", *database), "taken"),
        ((NAME.format("Whole"), "--into", tmp_path / "a", "--subset", "test", *database), "test"),
        (
            (NAME.format("Whole"), "--into", tmp_path / "a", "--embedding", "/x.pt", *database),
            "x.pt",
        ),
    ):
        done = run(*arguments)
        assert done.exit_code == 1, done.output
        assert "error: " in done.output
        assert what in done.output
    assert not (tmp_path / "a" / "plda.npz").exists()


def test_help_has_an_example():
    done = run("--help")
    assert done.exit_code == 0
    assert "pyannote-av fit-plda" in done.output
