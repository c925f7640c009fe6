"""The recipe of the weights for window clustering, on a handful of people who do not exist."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

# the recipes are not in the package
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pyannote_av.clustering.embedded import CorrectedSimilarity
from pyannote_av.clustering.people import People, PeopleEpisodes, PeopleRecordings
from recipes.simulated import window_weights as recipe

VOICE, FACE = 24, 16


def people(seed: int) -> People:
    """40 voices and 12 faces; noise hides a part of who it is"""
    rng = np.random.default_rng(seed)
    who, whose = np.repeat(np.arange(40), 10), np.repeat(np.arange(12), 8)

    def vectors(of: np.ndarray, size: int, noise: float) -> np.ndarray:
        x = rng.standard_normal((of.max() + 1, size))[of]
        x = x + noise * rng.standard_normal(x.shape)
        return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float16)

    return People(vectors(who, VOICE, 0.8), who, who % 2, vectors(whose, FACE, 0.3), whose)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


def test_confusion_by_hand():
    y = np.eye(3, dtype=np.int8)[[0, 0, 1, 1, 1, 2]]
    assert recipe.confusion(y, np.array([2, 2, 0, 0, 0, 1])) == 0
    assert recipe.confusion(y, np.array([0, 0, 1, 1, 0, 1])) == pytest.approx(2 / 6)
    # a window of two speakers is right with either
    y[0, 1] = 1
    assert recipe.confusion(y, np.array([1, 0, 1, 1, 1, 2])) == 0


def test_the_best_threshold_separates():
    files = [{"y": np.eye(2, dtype=np.int8)[[0, 0, 1, 1]]}] * 2
    # pairs of one speaker are .3 apart, others .5: scores .7 and .5
    distance = np.array([0.3, 0.5, 0.5, 0.5, 0.5, 0.3])
    threshold, wrong = recipe.best(files, [distance] * 2)
    assert 0.5 < threshold <= 0.7
    assert wrong == (0, 0)


def test_calibration_and_correction_of_others():
    """Both classes are on their side of 0.5; what is learnt helps with people who are not known"""
    known, others = people(0), people(1)
    torch.manual_seed(0)
    model = CorrectedSimilarity(VOICE, FACE, width=16).eval()
    recipe.calibrate(model, known, 20, seed=0)
    batch = PeopleEpisodes(others, ways=20, episodes=20, mixed=0.0, seed=5)[0]
    with torch.no_grad():
        scores, same = recipe.compare(model, batch)
    assert scores[0, same].mean() > 0.65
    assert scores[0, ~same].mean() < 0.35
    # faces of others count more than nothing, and voices always
    weight = model.similarity.weight.detach()
    assert (weight[:, 0] > 1).all()
    assert weight[2, 1] > 1
    calibrated = model.similarity.weight.clone()
    batches = PeopleEpisodes(known, ways=10, episodes=1, seed=0)
    trained = "mask", "correction"
    recipe.fit(model, batches, recipe.squared_error, 5, 1e-3, 0.0, trained, "relation")
    assert torch.equal(model.similarity.weight, calibrated)
    assert model.correction[-1].weight.any()
    assert model.lineage[-1] == {
        "stage": {"name": "relation", "train": ["mask", "correction"]},
        "steps": 5,
        "seed": 0,
    }


def voice_trees(known: People, count: int) -> recipe.Trees:
    composed = PeopleRecordings(known, speakers=(1, recipe.MOST))
    distance = lambda one: recipe.cosines([one], faces=False)[0]  # noqa: E731
    return recipe.Trees.of_recordings(composed, count, distance, batch_size=32)


def test_counter_learns_from_trees():
    """Of other people, more often right than by chance"""
    from pyannote_av.clustering.cysmsd import CYSMSD

    torch.manual_seed(0)
    model = CYSMSD(VOICE, FACE, width=32, max_speakers=recipe.MOST, counter="tree", corrects=True)
    trees = voice_trees(people(0), 40)
    trained = "tree_norm", "counter"
    recipe.fit(model, trees, recipe.count_loss, 150, 3e-3, 0.0, trained, "counting")
    unknown = voice_trees(people(1), 30)
    with torch.no_grad():
        odds = model.counter(model.tree_norm(unknown.features))
    far = (odds.argmax(dim=1) + 1 - unknown.speakers).abs().float().mean()
    chance = (unknown.speakers.float() - unknown.speakers.float().mean()).abs().mean()
    assert far < chance
    assert not model.correction.weight.any()


def test_the_counter_of_avrnet_is_trained_on_people_whom_avrnet_does_not_know(
    tmp_path, monkeypatch
):
    from pyannote_av.core.model import Model

    known, seen = people(0), []

    def relation(trained, into, *others):
        model = CorrectedSimilarity(VOICE, FACE, width=16)
        model.lineage = [{"people": sorted(set(trained.voice_person.tolist()))}]
        model.save(into)

    def scores(files, model):
        seen.append((model.lineage[-1]["people"], files[0]["speaker_embeddings"]))
        return recipe.cosines(files, faces=True)

    monkeypatch.setattr(recipe, "relation", relation)
    monkeypatch.setattr(recipe, "scores", scores)
    monkeypatch.setattr(recipe, "LONGEST", 40)
    recipe.tree_counter(known, tmp_path / "counter", scale=0.005, seed=0)
    assert len(seen) == 20
    of = {row.tobytes(): who for row, who in zip(known.voice, known.voice_person, strict=True)}
    for trained, windows in seen:
        speak = {of.get(w.astype(np.float16).tobytes()) for w in windows} - {None}
        assert len(trained) == 20
        assert speak
        assert speak.isdisjoint(trained)
    counter = Model.from_pretrained(tmp_path / "counter")
    assert 1 <= counter.count(np.array([[0.0, 1.0, 0.4, 2.0]])) <= recipe.MOST
