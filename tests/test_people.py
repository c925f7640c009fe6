"""Training batches composed of embeddings of single people."""

import numpy as np
import pytest
import torch

from pyannote_av.clustering.people import People, PeopleEpisodes, PeopleRecordings

VOICE, FACE, ROOMS, PERSONS, FACES = 6, 5, 3, 30, 12


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def people() -> People:
    """Persons who are far apart, each in one room, in windows and pictures that hardly differ"""
    rng = np.random.default_rng(0)
    who, whose = np.repeat(np.arange(PERSONS), 8), np.repeat(np.arange(FACES), 6)
    voices = unit(rng.standard_normal((PERSONS, VOICE)))[who]
    faces = unit(rng.standard_normal((FACES, FACE)))[whose]
    noisy = [unit(x + 0.01 * rng.standard_normal(x.shape)) for x in (voices, faces)]
    voice, face = (x.astype(np.float16) for x in noisy)
    return People(voice, who, who % ROOMS, face, whose)


def persons_of(people: People, voices) -> np.ndarray:
    """Person whose voice it is"""
    rows = unit(np.asarray(voices, np.float32)) @ people.voice.astype(np.float32).T
    return people.voice_person[rows.argmax(axis=-1)]


def test_saved_and_read(people, tmp_path):
    people.save(tmp_path / "people.npz")
    again = People.read(tmp_path / "people.npz")
    for name, value in people._asdict().items():
        found = getattr(again, name)
        assert found.dtype == value.dtype
        np.testing.assert_array_equal(found, value)


def test_episodes_have_two_windows_of_each_person_in_one_room(people):
    batch = PeopleEpisodes(people, ways=8, episodes=4, mixed=0.0)[0]
    assert batch["audio"].shape == (4, 2, 8, VOICE)
    assert batch["faces"].shape == (4, 2, 8, FACE)
    who = persons_of(people, batch["audio"])
    np.testing.assert_array_equal(who[:, 0], batch["speakers"])
    np.testing.assert_array_equal(who[:, 0], who[:, 1])
    for episode in who[:, 0]:
        assert len(set(episode)) == 8
        assert len(set(episode % ROOMS)) == 1
    # two windows, not one twice
    assert not torch.equal(batch["audio"][:, 0], batch["audio"][:, 1])
    # a face belongs to one person of the episode
    faces = batch["faces"].numpy()
    both = batch["visible"].numpy().all(axis=1)
    alike = np.einsum("eif,ejf->eij", faces[:, 0], faces[:, 1])
    seen = both[:, :, None] & both[:, None]
    same = np.broadcast_to(np.eye(8, dtype=bool), seen.shape)
    assert alike[seen & same].min() > 0.9
    assert alike[seen & ~same].max() < alike[seen & same].min()


@pytest.mark.parametrize("missing", [0.0, 0.5, 1.0])
def test_faces_are_missing(people, missing):
    batch = PeopleEpisodes(people, ways=8, episodes=20, missing=missing)[3]
    hidden = ~batch["visible"]
    assert hidden.float().mean().item() == pytest.approx(missing, abs=0.08)
    assert not batch["faces"][hidden].any()
    assert batch["faces"][~hidden].any(dim=1).all()


def test_blended_windows_are_still_those_of_their_person(people):
    plain, blended = (PeopleEpisodes(people, ways=8, blended=b)[0]["audio"] for b in (0.0, 1.0))
    torch.testing.assert_close(blended.norm(dim=3), torch.ones(3, 2, 8))
    alike = (plain * blended).sum(dim=3)
    assert alike.min() > 0
    assert (alike < 0.99).float().mean() > 0.7


def test_mixed_faces_are_other_people(people):
    """Similar for both windows of a person, and unlike the faces that they are mixed from"""
    batch = PeopleEpisodes(people, ways=8, episodes=20, missing=0.0, mixed=1.0)[0]
    faces = batch["faces"].numpy()
    same = np.einsum("ewf,ewf->ew", faces[:, 0], faces[:, 1])
    known = (faces @ people.face.astype(np.float32).T).max(axis=-1)
    assert same.min() > 0.9
    assert np.mean(known < 0.95) > 0.5


@pytest.mark.parametrize("make", [PeopleEpisodes, PeopleRecordings])
def test_seed_and_index_decide(people, make):
    first, again, other = make(people)[1], make(people)[1], make(people)[2]
    assert all(torch.equal(first[name], again[name]) for name in first)
    name = "audio" if make is PeopleEpisodes else "speaker_embeddings"
    assert not torch.equal(first[name][0, 0], other[name][0, 0])
    assert not torch.equal(first[name][0, 0], make(people, seed=1)[1][name][0, 0])


@pytest.mark.parametrize("speakers", [1, 2, 8])
@pytest.mark.parametrize("windows", [20, 200])
def test_recordings_have_the_speakers_that_their_labels_name(people, speakers, windows):
    rng = np.random.default_rng(1)
    one = PeopleRecordings(people, mixed=0.0).recording(rng, speakers, windows)
    assert one["y"].shape == (windows, speakers)
    assert one["y"].any(axis=0).all()
    np.testing.assert_allclose(np.linalg.norm(one["speaker_embeddings"], axis=1), 1, atol=1e-5)
    alone = one["y"].sum(axis=1) == 1
    who, label = persons_of(people, one["speaker_embeddings"][alone]), one["y"][alone].argmax(1)
    # most windows are of one voice for each label
    voices = {k: np.bincount(who[label == k]).argmax() for k in set(label.tolist())}
    assert np.mean([voices[k] == w for k, w in zip(label.tolist(), who, strict=True)]) > 0.8
    assert len(set(voices.values())) == len(voices)
    assert len({int(v) % ROOMS for v in voices.values()}) == 1
    assert not one["faces"][~one["face_mask"]].any()
    # speakers take turns
    if speakers > 1:
        assert np.mean(np.diff(label) != 0) < 0.6


def test_batches_of_recordings(people):
    batch = PeopleRecordings(people, batch_size=5, speakers=(2, 4), windows=(20, 40))[0]
    counts = ((batch["y"] > 0).any(dim=1)).sum(dim=1)
    assert counts.min() >= 2
    assert counts.max() <= 4
    size = batch["window_mask"].sum(dim=1)
    assert size.min() >= 20
    assert size.max() <= 40
    assert (batch["y"][~batch["window_mask"]] == -1).all()
