"""Voices: windows of sound, voiceprints, and the arrays they are kept in."""

import json
import pickle

import numpy as np
import pytest
import torch
from conversations import voice
from hypothesis import given, settings
from hypothesis import strategies as st

from pyannote_av.core.checksums import weights_digest
from pyannote_av.data.array_store import ArrayStore, fill
from pyannote_av.data.crop_shard import shard_folder
from pyannote_av.data.crop_store import CropStore
from pyannote_av.data.speaker_embeddings import build_speaker_embeddings, read_speaker_embeddings
from pyannote_av.models.embedding.campplus import CAMPPlus
from pyannote_av.models.embedding.voiceprints import (
    enrol,
    num_windows,
    segment_embeddings,
    speaker_features,
    voiceprint,
    windows_of_speakers,
)
from pyannote_av.models.loading import load_model

RATE = 16000


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def embedder() -> CAMPPlus:
    return load_model("campplus")


def sound(*parts: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.float32))[None]


# speaker features


def test_one_window_for_four_frames_each_of_unit_length(embedder):
    for frames in (1, 4, 5, 30):
        waveform = sound(voice(120, frames / 25, seed=0) + 1e-3)
        features = speaker_features(waveform, embedder)
        assert features.shape == (num_windows(frames), 192) == (-(-frames // 4), 192)
        assert features.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    assert speaker_features(torch.zeros(1, 300), embedder).shape == (0, 192)


def test_digital_silence_has_no_voice(embedder):
    waveform = sound(voice(120, 2.0, seed=0), np.zeros(4 * RATE), voice(200, 2.0, seed=1))
    features = speaker_features(waveform, embedder)
    middle = (4 * np.arange(len(features)) + 2) / 25
    silent = (middle > 2.6) & (middle < 5.4)
    assert (features[silent] == 0).all()
    assert (np.linalg.norm(features[(middle < 2.5) | (middle > 5.5)], axis=1) > 0.99).all()
    assert (speaker_features(torch.zeros(1, 3 * RATE), embedder) == 0).all()


def test_windows_are_where_they_are_said_to_be(embedder):
    """Where one voice ends and another begins, windows come to resemble the other"""
    late = []
    for seed, change in enumerate((2.0, 3.3, 4.64)):
        voices = [voice(pitch, 10.0, seed)[RATE // 2 :] for pitch in (90, 230)]
        for first, second in (voices, voices[::-1]):
            waveform = sound(first[: round(change * RATE)], second[: 5 * RATE])
            features = speaker_features(waveform, embedder)
            middle = (4 * np.arange(len(features)) + 2) / 25
            before = voiceprint(features[middle < change - 1])
            after = voiceprint(features[middle > change + 1])
            late.append(middle[np.argmax(features @ after > features @ before)] - change)
    assert np.abs(late).max() < 0.8
    assert abs(np.mean(late)) < 0.16


def test_blocks_join(embedder, monkeypatch):
    from pyannote_av.models.embedding import voiceprints

    waveform = sound(voice(100, 6.0, seed=0), voice(220, 6.0, seed=1))
    whole = speaker_features(waveform, embedder)
    monkeypatch.setattr(voiceprints, "_BLOCK", 30)
    parts = speaker_features(waveform, embedder)
    assert parts.shape == whole.shape
    # they differ in what else they are seen with
    likeness = (parts * whole).sum(axis=1)
    assert likeness.min() > 0.5
    assert np.median(likeness) > 0.8


def test_embedders_whose_frames_do_not_fit_say_so(embedder, monkeypatch):
    monkeypatch.setattr(type(embedder), "receptive_field_center", lambda self, frame=0: 330 * frame)
    with pytest.raises(ValueError, match="not a multiple of 330"):
        speaker_features(torch.zeros(1, RATE), embedder)


# voiceprints


@given(st.integers(1, 20), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_voiceprints_have_unit_length_and_no_order(count, seed):
    rng = np.random.default_rng(seed)
    features, weights = rng.standard_normal((count, 8)), rng.random(count)
    order = rng.permutation(count)
    found = voiceprint(features, weights)
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(found, voiceprint(features[order], weights[order]), atol=1e-5)
    np.testing.assert_allclose(found, voiceprint(features * 3, weights * 2), atol=1e-5)
    kept = weights > 0.5
    np.testing.assert_allclose(
        voiceprint(features, kept.astype(float)), voiceprint(features[kept]), atol=1e-5
    )
    assert (voiceprint(features, 0 * weights) == 0).all()


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def middles(count: int) -> np.ndarray:
    """Of windows, in seconds"""
    return (4 * np.arange(count) + 2) / 25


def test_stretches_are_means_of_the_windows_that_lie_in_them():
    features = unit(np.random.default_rng(0).standard_normal((50, 6)))
    # windows 4 to 8 have their middles from 0.72 to 1.36 s, and are 1.2 s long
    voices = segment_embeddings(features, np.array([[0.12, 1.96], [0.119, 1.961], [0.13, 1.95]]))
    np.testing.assert_allclose(voices[0], unit(features[4:9].sum(axis=0)), atol=1e-6)
    np.testing.assert_allclose(voices[1], voices[0], atol=1e-6)
    np.testing.assert_allclose(voices[2], unit(features[5:8].sum(axis=0)), atol=1e-6)
    assert voices.dtype == np.float32


@given(st.integers(1, 80), st.integers(0, 9999))
@settings(max_examples=100, deadline=None)
def test_any_stretch_has_a_voice(count, seed):
    rng = np.random.default_rng(seed)
    features = unit(rng.standard_normal((count, 5))).astype(np.float16)
    # also those that reach over the ends, and those that lie beyond
    start = rng.uniform(-1, 0.16 * count + 1, 20)
    stretches = np.stack([start, start + rng.uniform(0.01, 6, 20)], axis=1)
    voices, middle = segment_embeddings(features, stretches), middles(count)
    assert voices.shape == (20, 5)
    for voice_, (first, last) in zip(voices, stretches, strict=True):
        inside = (middle - 0.6 >= first - 1e-6) & (middle + 0.6 <= last + 1e-6)
        if not inside.any():
            off = np.abs(middle - (first + last) / 2)
            inside = off <= off.min() + 1e-9
        nearest = [np.flatnonzero(inside)] if inside.sum() != 2 else np.flatnonzero(inside)[:, None]
        expected = [unit(features[inside].astype(float).sum(axis=0))]
        # half-way between two windows, either will do
        expected += [unit(features[one].astype(float).sum(axis=0)) for one in nearest]
        assert min(np.abs(voice_ - one).max() for one in expected) < 1e-3
    np.testing.assert_allclose(np.linalg.norm(voices, axis=1), 1, atol=1e-4)
    # each by itself
    np.testing.assert_allclose(segment_embeddings(features, stretches[3:4]), voices[3:4], atol=1e-6)


def test_short_stretches_have_the_nearest_window():
    features = np.eye(50, dtype=np.float32)
    stretches = np.array(
        [[0.7, 0.75], [0.5, 0.9], [0.0, 0.01], [7.9, 8.0], [20.0, 20.1], [0.2, 1.3]]
    )
    # of windows whose middles are at 0.08, 0.24, ... 7.92 s
    assert segment_embeddings(features, stretches).argmax(axis=1).tolist() == [4, 4, 0, 49, 49, 4]
    assert (segment_embeddings(features, stretches).sum(axis=1) == 1).all()


def test_silence_in_stretches():
    features = np.eye(50, dtype=np.float32)
    features[10:20] = 0
    # windows 12 to 17, 8 to 13, and 13
    stretches = middles(50)[[[12, 17], [8, 13], [13, 13]]] + [-0.6, 0.6]
    silent, both, short = segment_embeddings(features, stretches)
    assert not silent.any()
    assert not short.any()
    assert np.flatnonzero(both).tolist() == [8, 9]
    assert np.linalg.norm(both) == pytest.approx(1)


def test_no_stretches_and_no_sound():
    assert segment_embeddings(np.zeros((50, 3), np.float32), np.zeros((0, 2))).shape == (0, 3)
    silent = segment_embeddings(np.zeros((0, 3), np.float16), np.array([[0.0, 2.0]]))
    assert silent.shape == (1, 3)
    assert silent.dtype == np.float32
    assert not silent.any()


def test_stretches_sound_like_who_speaks_in_them(embedder):
    first, second = (voice(pitch, 6.0, seed) for seed, pitch in enumerate((90, 230)))
    features = speaker_features(sound(first, second), embedder)
    stretches = np.array([[0, 2], [2, 4], [3.5, 5.5], [6.5, 8.5], [8, 10], [9.5, 11.5]])
    likeness = (x := segment_embeddings(features, stretches)) @ x.T
    same = np.kron(np.eye(2, dtype=bool), np.ones((3, 3), bool))
    assert likeness[same].min() > likeness[~same].max()


def active(length: float, *turns: tuple[int, float, float], speakers: int = 2) -> np.ndarray:
    activity = np.zeros((round(100 * length), speakers), bool)
    for speaker, start, end in turns:
        activity[round(100 * start) : round(100 * end), speaker] = True
    return activity


def test_windows_of_who_speaks_alone_are_preferred():
    activity = active(12, (0, 0, 6), (1, 4, 10))
    first, second = windows_of_speakers(activity)
    middle = (4 * np.arange(75) + 2) / 25
    # 0.9 s of 1.2 s at least
    assert set(first) == set(np.flatnonzero((middle >= 0.3) & (middle <= 3.7)))
    assert set(second) == set(np.flatnonzero((middle >= 6.3) & (middle <= 9.7)))


def test_windows_with_overlap_and_of_short_turns_where_there_are_no_others():
    middle = (4 * np.arange(75) + 2) / 25
    nested, _ = windows_of_speakers(active(12, (0, 4, 6), (1, 2, 10)))
    assert set(nested) == set(np.flatnonzero((middle >= 4.3) & (middle <= 5.7)))
    short, _ = windows_of_speakers(active(12, (0, 4, 4.5)))
    assert len(short)
    assert set(short) <= set(np.flatnonzero((middle >= 3.4) & (middle <= 5.1)))
    tiny, never = windows_of_speakers(active(12, (0, 4, 4.2)))
    assert len(tiny) == len(never) == 0


def test_enrolled_voices_are_told_apart(embedder):
    parts = [voice(pitch, 5.0, seed) for seed, pitch in enumerate((90, 210, 90, 210))]
    features = speaker_features(sound(*parts), embedder)
    activity = active(20, (0, 0, 5), (1, 5, 10), (0, 10, 15), (1, 15, 20), speakers=3)
    voices = enrol(features, activity)
    assert voices.shape == (3, 192)
    assert (voices[2] == 0).all()
    own, windows = features @ voices[:2].T, windows_of_speakers(activity)
    for speaker in (0, 1):
        mine = own[windows[speaker]]
        assert (mine.argmax(axis=1) == speaker).mean() > 0.9


# arrays


def test_arrays_are_computed_once(tmp_path):
    calls = []

    def compute(uri: str) -> np.ndarray:
        calls.append(uri)
        if uri == "bad":
            raise OSError("no such sound")
        return np.full(3, len(uri), np.float16)

    sources = {"a": "1", "b/c": "1", "bad": "1"}
    report = fill(tmp_path, {"by": "x"}, sources, compute)
    assert (report.written, report.kept) == (["a", "b/c"], [])
    assert report.failed == {"bad": "OSError: no such sound"}
    arrays = ArrayStore(tmp_path)
    assert list(arrays) == ["a", "b/c"]
    assert "bad" not in arrays
    assert arrays["b/c"].tolist() == [3, 3, 3]
    assert pickle.loads(pickle.dumps(arrays))["a"].tolist() == [1, 1, 1]
    with pytest.raises(KeyError, match="'bad' is not in"):
        arrays["bad"]
    # again: what failed, what changed, what is lost
    calls.clear()
    (tmp_path / "a.npy").unlink()
    fill(tmp_path, {"by": "x"}, {**sources, "b/c": "2"}, compute)
    assert calls == ["a", "b/c", "bad"]
    calls.clear()
    assert fill(tmp_path, {"by": "x"}, {"a": "1", "b/c": "2"}, compute).kept == ["a", "b/c"]
    assert not calls
    # made by something else: what is not yet made anew is not there
    fill(tmp_path, {"by": "y"}, {"a": "1"}, compute)
    assert list(ArrayStore(tmp_path)) == ["a"]
    assert not list(tmp_path.glob(".*.npy"))


def test_killed_while_computing(tmp_path):
    def compute(uri: str) -> np.ndarray:
        if uri == "b":
            raise KeyboardInterrupt
        return np.zeros(1)

    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path, {}, {"a": "1", "b": "1"}, compute)
    assert list(ArrayStore(tmp_path)) == ["a"]


def test_damaged_and_missing_arrays(tmp_path):
    with pytest.raises(FileNotFoundError, match="no arrays in"):
        ArrayStore(tmp_path)
    fill(tmp_path, {}, {"a": "1"}, lambda uri: np.zeros(1))
    (tmp_path / "a.npy").write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"a\.npy is damaged"):
        ArrayStore(tmp_path)["a"]
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
        ArrayStore(tmp_path)


def test_one_writer_at_a_time(tmp_path):
    def compute(uri: str) -> np.ndarray:
        fill(tmp_path, {}, {"b": "1"}, lambda uri: np.zeros(1))
        return np.zeros(1)

    report = fill(tmp_path, {}, {"a": "1"}, compute)
    assert "another process is writing" in report.failed["a"]


def sound_only_store(folder, **sounds: np.ndarray) -> CropStore:
    """A store of nobody's face"""
    from pyannote_av.core.checksums import sha256_of

    for uri, waveform in sounds.items():
        shard = shard_folder(folder, uri)
        shard.mkdir(parents=True)
        np.save(shard / "waveform.npy", (32767 * waveform).astype(np.int16))
        index = {"format": 1, "uri": uri, "samples": len(waveform), "problems": [], "pieces": []}
        index["sha256"] = {"waveform.npy": sha256_of(shard / "waveform.npy")}
        (shard / "index.json").write_text(json.dumps(index))
    return CropStore(folder)


def test_voices_of_a_store(tmp_path, embedder):
    talk = voice(120, 3.0, seed=0)
    store = sound_only_store(tmp_path, talk=talk, silence=np.zeros(RATE), nothing=talk[:0])
    with pytest.raises(FileNotFoundError, match="build_speaker_embeddings"):
        read_speaker_embeddings(store)
    report = build_speaker_embeddings(store, embedder=embedder)
    assert (report.written, report.failed) == (["nothing", "silence", "talk"], {})
    voices = read_speaker_embeddings(store)
    assert voices.made_by["embedder"] == "CAMPPlus"
    assert voices.made_by["weights"] == weights_digest(embedder)
    assert {uri: voices[uri].shape for uri in voices} == {
        "nothing": (0, 192),
        "silence": (7, 192),
        "talk": (19, 192),
    }
    expected = speaker_features(torch.from_numpy(store.waveform("talk", 0, 75))[None], embedder)
    np.testing.assert_allclose(voices["talk"], expected, atol=1e-3)
    assert build_speaker_embeddings(store, ["talk"], embedder).kept == ["talk"]


@pytest.mark.slow
def test_windows_of_real_speech_are_verified(shared_data, embedder):
    """Conversations of four of LibriSpeech's readers, enrolled in their first turn"""
    from pyannote_av.core.io import Video

    paths = sorted((shared_data / "speech" / "librispeech").rglob("*.flac"))
    sounds = (Video().waveform(path)[0].numpy() for path in paths[::3])
    sounds = [sound for sound in sounds if len(sound) >= 12 * RATE][:40]
    assert len(sounds) == 40
    own, other = [], []
    for first in range(0, len(sounds), 4):
        people = sounds[first : first + 4]
        turns = [x[6 * RATE * half : 6 * RATE * (half + 1)] for half in (0, 1) for x in people]
        features = speaker_features(sound(*turns), embedder)
        activity = np.kron(np.tile(np.eye(4, dtype=bool), (2, 1)), np.ones((600, 1), bool))
        voices = enrol(features, activity & (np.arange(4800) < 2400)[:, None])
        for speaker, windows in enumerate(windows_of_speakers(activity)):
            likeness = features[windows[windows > 150]] @ voices.T
            own.extend(likeness[:, speaker])
            other.extend(np.delete(likeness, speaker, axis=1).ravel())
    own, other = np.sort(own), np.sort(other)
    false_alarm = 1 - np.searchsorted(other, own) / len(other)
    missed = np.arange(len(own)) / len(own)
    equal_error_rate = false_alarm[np.argmax(missed >= false_alarm)]
    assert equal_error_rate < 0.02
