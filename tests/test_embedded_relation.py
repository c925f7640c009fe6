"""Relations of embedded voices and faces: equations by hand, and what must not matter."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import squareform

from pyannote_av.clustering.embedded import (
    CorrectedSimilarity,
    FusedEmbeddings,
    RelationOfEmbeddings,
)
from pyannote_av.clustering.pair_scores import score_pairs, square
from pyannote_av.clustering.relation_network import RelationNetwork
from pyannote_av.core.model import Model

VOICE, FACE = 6, 8
SMALL = {"widths": (8, 4), "blocks": (2, 1)}
KINDS = {
    "learnable": (RelationOfEmbeddings, {"mask": "learnable", **SMALL}),
    "partial": (RelationOfEmbeddings, {"mask": "partial", **SMALL}),
    "handcrafted": (RelationOfEmbeddings, {"mask": "handcrafted", **SMALL}),
    "none": (RelationOfEmbeddings, {"mask": "none", **SMALL}),
    "concat": (RelationOfEmbeddings, {"combination": "concat", **SMALL}),
    "alter mask": (RelationOfEmbeddings, {"combination": "alter_mask", **SMALL}),
    "alter concat": (RelationOfEmbeddings, {"combination": "alter_concat", **SMALL}),
    "one order": (RelationOfEmbeddings, {"siamese": False, **SMALL}),
    "gmu": (FusedEmbeddings, {"fusion": "gmu", "dimension": 5}),
    "dimnet": (FusedEmbeddings, {"fusion": "dimnet", "dimension": 5}),
    "corrected": (CorrectedSimilarity, {"width": 8}),
    "corrected, concatenation": (CorrectedSimilarity, {"pairs": "concatenation", "width": 8}),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


def build(kind: str, voice: int = VOICE, face: int = FACE):
    """With statistics of normalisation, and factors of masks, other than those of the beginning"""
    torch.manual_seed(0)
    cls, hparams = KINDS[kind]
    model = cls(voice, face, **hparams)
    with torch.no_grad():
        if cls is CorrectedSimilarity:  # which begins with no correction
            torch.nn.init.normal_(model.correction[-1].weight)
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if "running_var" in name:
                value.uniform_(0.5, 2)
            elif "running_mean" in name or "bias" in name or "learned" in name:
                value.add_(0.3 * torch.randn_like(value))
    return model.eval()


@pytest.fixture(scope="module")
def models() -> dict:
    return {kind: build(kind) for kind in KINDS}


def inputs(windows: int = 9, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noise; the first face is seen, the second is not."""
    generator = torch.Generator().manual_seed(seed)
    voices = torch.randn(windows, VOICE, generator=generator)
    faces = torch.randn(windows, FACE, generator=generator)
    visible = torch.rand(windows, generator=generator) > 0.4
    visible[:2] = torch.tensor([True, False])
    return voices, faces, visible


def maps(model, voices, faces, visible):
    return model.audio_map(voices), model.face_map(faces, visible)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# ------------------------------------------------------------------------------------ equations


def entered(data) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Voices and faces as long as vectors of ones; 0 for faces that are not seen"""
    voices, faces, visible = (x.double().numpy() for x in data)
    return unit(voices) * VOICE**0.5, unit(faces) * FACE**0.5 * visible[:, None], visible > 0


def said(model, fused: np.ndarray) -> np.ndarray:
    """Scores of vectors"""
    slope, offset = model.slope.item(), model.offset.item()
    scores = sigmoid(slope * (fused @ fused.T) + offset)
    np.fill_diagonal(scores, 1)
    return scores


@pytest.fixture(scope="module")
def weights(models) -> dict[str, dict[str, np.ndarray]]:
    return {
        kind: {name: value.double().numpy() for name, value in model.state_dict().items()}
        for kind, model in models.items()
    }


def test_gated_multimodal_units(models, weights):
    """h = z * tanh(W_v x_v) + (1 - z) * tanh(W_a x_a), z = sigmoid(W_z [x_a, x_v])"""
    w, data = weights["gmu"], inputs()
    voices, faces, visible = entered(data)
    fused = np.zeros((9, 5))
    for i in range(9):
        h_a = np.tanh(w["acoustic.0.weight"] @ voices[i] + w["acoustic.0.bias"])
        h_v = np.tanh(w["visual.0.weight"] @ faces[i] + w["visual.0.bias"])
        z = sigmoid(w["gate.weight"] @ np.r_[voices[i], faces[i]] + w["gate.bias"])
        fused[i] = z * h_v * visible[i] + (1 - z) * h_a
    with torch.inference_mode():
        scores = models["gmu"](*data)
    np.testing.assert_allclose(scores, said(models["gmu"], unit(fused)), atol=1e-5)


def test_disjoint_mapping_network(models, weights):
    """Mean of both in one space, or the one that is there"""
    w, data = weights["dimnet"], inputs()
    voices, faces, visible = entered(data)

    def mapped(name, x):
        hidden = np.maximum(x @ w[f"{name}.0.weight"].T + w[f"{name}.0.bias"], 0)
        return unit(hidden @ w[f"{name}.2.weight"].T + w[f"{name}.2.bias"])

    voice, face = mapped("acoustic", voices), mapped("visual", faces)
    fused = np.where(visible[:, None], (voice + face) / 2, voice)
    with torch.inference_mode():
        scores = models["dimnet"](*data)
    np.testing.assert_allclose(scores, said(models["dimnet"], unit(fused)), atol=1e-5)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if KINDS[kind][0] is RelationOfEmbeddings])
def test_relation_of_concatenated_embeddings(models, kind):
    """Faces, then voices, of one and of the other, times what the mask says of this case"""
    model, data = models[kind], inputs()
    voices, faces, visible = entered(data)
    items = np.concatenate([faces, voices], axis=1)
    fixed, learned = model.mask.fixed.numpy(), model.mask.learned.detach().numpy()
    factors = np.concatenate([fixed, learned], axis=1)
    assert factors.shape == (4, 2 * (VOICE + FACE))

    def score(i: int, j: int) -> float:
        pair, factor = np.r_[items[i], items[j]], factors[2 * visible[i] + visible[j]]
        if "alter" in kind:  # both faces, then both voices
            faces_first = np.r_[:FACE, FACE + VOICE : 2 * FACE + VOICE]
            voices_last = np.r_[FACE : FACE + VOICE, 2 * FACE + VOICE : 2 * (FACE + VOICE)]
            order = np.r_[faces_first, voices_last]
            pair, factor = pair[order], factor[order]
        pair = np.r_[pair, factor] if "concat" in kind else pair * factor
        pair = torch.from_numpy(pair).float()[None, :, None, None]
        with torch.inference_mode():
            return model.relation(pair).item()

    with torch.inference_mode():
        scores = model(*data)
    assert torch.equal(scores.diagonal(), torch.ones(9))
    for i in range(9):
        for j in range(i + 1, 9):
            orders = [(i, j)] if kind == "one order" else [(i, j), (j, i)]
            expected = np.mean([score(*order) for order in orders])
            assert scores[i, j].item() == pytest.approx(expected, abs=1e-5)


def cosines(data) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Similarities of voices and of faces, and pairs that both have a face"""
    voices, faces, visible = (x.double().numpy() for x in data)
    return (*(unit(x) @ unit(x).T for x in (voices, faces)), visible[:, None] * visible > 0)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("pairs", ["products", "concatenation"])
def test_untrained_correction_is_zero(pairs, mode):
    """Scores are those of calibrated similarity, in the order of SimilarityDiarization"""
    torch.manual_seed(0)
    model, data = CorrectedSimilarity(VOICE, FACE, pairs=pairs), inputs()
    model.train(mode == "train")
    voice, face, both = cosines(data)
    expected = sigmoid(10 * (np.where(both, (voice + face) / 2, voice) - 0.5))
    np.fill_diagonal(expected, 1)
    with torch.no_grad():
        scores = model(*data)
    np.testing.assert_allclose(scores.numpy(), expected, atol=1e-6)


def test_calibration_by_visibility():
    """logit = w_voice cos_voice + w_face cos_face + b, by the number of faces; then a correction"""
    torch.manual_seed(0)
    model, data = CorrectedSimilarity(VOICE, FACE).eval(), inputs()
    weight = torch.tensor([[3.0, 7.0], [4.0, -9.0], [5.0, 6.0]])
    bias, added = torch.tensor([0.1, -0.2, 0.3]), 0.7
    with torch.no_grad():
        model.similarity.weight.copy_(weight)
        model.similarity.bias.copy_(bias)
        model.correction[-1].bias.fill_(added)
        scores = model(*data)
    voice, face, both = cosines(data)
    visible = data[2].numpy().astype(int)
    case = visible[:, None] + visible
    # a single face says nothing
    logit = weight[:, 0].numpy()[case] * voice + bias.numpy()[case] + both * 6.0 * face
    expected = sigmoid(logit + added)
    np.fill_diagonal(expected, 1)
    np.testing.assert_allclose(scores.numpy(), expected, atol=1e-5)


def test_correction_by_visibility():
    """The same pair is corrected in another way where its faces are hidden"""
    model = build("corrected")
    with torch.no_grad():
        model.similarity.weight.zero_()
        model.similarity.bias.zero_()
        data = inputs(2)
        seen = [model(*data[:2], torch.tensor(v))[0, 1] for v in ([1, 1], [0, 1], [0, 0])]
    assert len({round(score.item(), 4) for score in seen}) == 3


def test_masks_begin_with_what_is_visible():
    """By case: whose face is visible; of both, faces then voices"""
    cases = [(0, 0), (0, 1), (1, 0), (1, 1)]
    by_hand = np.array([[a] * FACE + [1] * VOICE + [b] * FACE + [1] * VOICE for a, b in cases])
    for kind, learned in (("learnable", 28), ("partial", 14), ("handcrafted", 0), ("none", 0)):
        mask = KINDS[kind][0](VOICE, FACE, **KINDS[kind][1]).mask
        assert mask.learned.shape == (4, learned)
        first, second = torch.tensor(cases, dtype=torch.bool).T
        found = mask(first, second).detach().numpy()
        # what is learned begins with all ones
        expected = np.where(np.arange(28) < 28 - learned, by_hand, 1)
        assert (found == (1 if kind == "none" else expected)).all()


def test_size_of_the_relation_network():
    torch.manual_seed(0)
    network = RelationNetwork(20, widths=(6, 3), blocks=(3, 1)).eval()
    assert [len(stage) for stage in network.stages] == [3, 1]
    assert network.stages[0][0].conv1.weight.shape == (6, 20, 1, 1)
    assert network.stages[1][-1].conv3.weight.shape == (12, 3, 1, 1)
    assert network(torch.randn(4, 20, 1, 1)).shape == (4,)
    published = RelationNetwork(20)
    assert [len(stage) for stage in published.stages] == [8, 6]
    assert published.stages[1][-1].conv3.weight.shape == (256, 64, 1, 1)
    with pytest.raises(ValueError, match="zip"):
        RelationNetwork(20, widths=(6, 3), blocks=(3,))


# ------------------------------------------------------------------------- what must not matter


@pytest.mark.parametrize("kind", KINDS)
@given(st.integers(0, 999))
@settings(max_examples=10, deadline=None)
def test_scores_are_a_symmetric_matrix(models, kind, seed):
    voices, faces, visible = inputs(6, seed)
    with torch.inference_mode():
        scores = models[kind](voices, faces, visible)
        assert scores.shape == (6, 6)
        assert torch.equal(scores, scores.T)
        assert torch.equal(scores.diagonal(), torch.ones(6))
        assert ((scores > 0) & (scores <= 1)).all()
        # how long embeddings are does not matter
        louder = models[kind](3 * voices, 0.2 * faces, visible)
        torch.testing.assert_close(louder, scores, atol=1e-5, rtol=0)
        # nor the order of windows, unless only one order is looked at
        if kind != "one order":
            order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
            moved = models[kind](voices[order], faces[order], visible[order])
            torch.testing.assert_close(moved, scores[order][:, order], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_both_orders_are_one(models, kind):
    """As far as both are compared: ``relate`` does not ask who comes first"""
    model = models[kind]
    voices, faces, visible = inputs()
    audio, face = maps(model, voices, faces, visible)
    one = audio[:4], face[:4], audio[4:8], face[4:8], visible[:4], visible[4:8]
    other = one[2:4] + one[:2] + (one[5], one[4])
    with torch.inference_mode():
        scores, turned = model.relate(*one), model.relate(*other)
    if kind == "one order":
        assert not torch.allclose(scores, turned, atol=1e-4)
    else:
        torch.testing.assert_close(scores, turned, atol=1e-6, rtol=0)


@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_blocks_and_shared_windows(models, kind, graded):
    model = models[kind]
    voices, faces, visible = inputs(11)
    # windows of several entries, and one of nobody's
    window = torch.tensor([0, 0, 1, 3, 3, 3, 4, 5, 6, 6, 7])
    with torch.set_grad_enabled(graded):
        audio, face = maps(model, voices, faces, visible)
        whole = score_pairs(model, audio, face, visible, window, block=1000)
        assert whole.shape == (55,)
        for block in (1, 7, 55):
            calls = []

            def progress(done, total, calls=calls):
                calls.append((done, total))

            parts = score_pairs(model, audio, face, visible, window, block, progress)
            torch.testing.assert_close(parts, whole, atol=1e-6, rtol=0)
            assert calls == [(min(55, block * (k + 1)), 55) for k in range(-(-55 // block))]
        expanded = score_pairs(model, audio[window], face, visible)
        torch.testing.assert_close(expanded, whole, atol=1e-6, rtol=0)
        one = score_pairs(model, audio[:1], face[:1], visible[:1])
        assert one.shape == (0,)


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_come_in_the_order_of_scipy(models, kind):
    model = models[kind]
    voices, faces, visible = inputs(7)
    audio, face = maps(model, voices, faces, visible)
    with torch.inference_mode():
        scores = score_pairs(model, audio, face, visible)
        matrix = squareform(scores.numpy())
        assert (square(scores, 7).numpy() == matrix + np.eye(7)).all()
        for i, j in ((0, 1), (0, 6), (2, 3), (5, 6)):
            a, b = slice(i, i + 1), slice(j, j + 1)
            alone = model.relate(audio[a], face[a], audio[b], face[b], visible[a], visible[b])
            assert matrix[i, j] == pytest.approx(alone.item(), abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_what_lies_under_the_mask_is_not_read(models, kind):
    model = models[kind]
    voices, faces, visible = inputs()
    with torch.inference_mode():
        scores = model(voices, faces, visible)
        for junk in (float("nan"), float("inf"), 1e9):
            spoilt = torch.where(visible[:, None], faces, junk)
            assert torch.equal(model(voices, spoilt, visible), scores)
        assert torch.equal(model(voices, faces, visible.float()), scores)
        # faces that are seen are
        assert not torch.allclose(model(voices, faces.roll(1, 0), visible), scores, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_without_faces_nobody_is_visible(models, kind):
    voices, faces, _ = inputs()
    with torch.inference_mode():
        alone = models[kind](voices)
        assert torch.equal(alone, models[kind](voices, faces, torch.zeros(9)))
        everybody = models[kind](voices, faces)
        assert torch.equal(everybody, models[kind](voices, faces, torch.ones(9)))
    assert not torch.allclose(alone, everybody, atol=1e-4)
    assert torch.isfinite(alone).all()


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_voices(models, kind):
    """Of digital silence"""
    voices, faces, visible = inputs()
    voices[3] = 0
    with torch.inference_mode():
        assert torch.isfinite(models[kind](voices, faces, visible)).all()
        assert torch.isfinite(models[kind](voices)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_finite(kind):
    model = build(kind).train()
    voices, faces, visible = inputs()
    voices[3], faces[4], visible[4] = 0, 0, True
    spoilt = torch.where(visible[:, None], faces, float("nan")).requires_grad_()
    scores = model(voices.requires_grad_(), spoilt, visible)
    torch.triu(scores, 1).square().sum().backward()
    for name, value in model.named_parameters():
        assert value.grad is not None, name
        assert torch.isfinite(value.grad).all(), name
    assert any(value.grad.any() for value in model.parameters())
    assert torch.isfinite(voices.grad).all()
    assert (spoilt.grad[~visible] == 0).all()


# ------------------------------------------------------------------------------- files and errors


@pytest.mark.parametrize("kind", KINDS)
def test_save_and_load(models, kind, tmp_path):
    model = models[kind]
    loaded = Model.from_pretrained(model.save(tmp_path))
    assert type(loaded) is type(model)
    assert {k: v for k, v in loaded.hparams.items() if k not in ("widths", "blocks")} == {
        k: v for k, v in model.hparams.items() if k not in ("widths", "blocks")
    }
    data = inputs()
    with torch.inference_mode():
        assert torch.equal(loaded(*data), model(*data))


@pytest.mark.parametrize("kind", ["learnable", "gmu"])
def test_other_dimensions_are_refused(models, kind):
    voices, faces, visible = inputs()
    with pytest.raises(ValueError, match=r"expected embeddings \(windows, 6\), not \(9, 5\)"):
        models[kind](voices[:, :5], faces, visible)
    with pytest.raises(ValueError, match=r"expected embeddings \(windows, 8\), not \(9, 7\)"):
        models[kind](voices, faces[:, :7], visible)
    with pytest.raises(ValueError, match="expected embeddings"):
        models[kind](voices[None], faces, visible)


def test_unknown_variants():
    with pytest.raises(ValueError, match="fusion must be"):
        FusedEmbeddings(VOICE, FACE, fusion="sum")
    with pytest.raises(KeyError, match="sometimes"):
        RelationOfEmbeddings(VOICE, FACE, mask="sometimes", **SMALL)


@pytest.mark.parametrize("kind", KINDS)
def test_example_for_the_summary(models, kind):
    with torch.inference_mode():
        assert models[kind](*models[kind].example_input_array).shape == (10, 10)


# --------------------------------------------------------------------------------------- learning


def people(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Voices and faces (count, 3)"""
    return tuple(torch.randn(count, 3, generator=generator) for _ in range(2))


def windows_of(who, known, generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Voices (n, 6), half of which is noise, faces likewise, and whether these are seen"""

    def noise(x):
        return torch.randn(x.shape, generator=generator)

    alike = [x[who] for x in known]
    voices, faces = (torch.cat([x + 0.2 * noise(x), 0.7 * noise(x)], dim=1) for x in alike)
    return voices, faces, torch.rand(len(who), generator=generator) > 0.3


def pairs_of(scores: torch.Tensor, who: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    i, j = torch.triu_indices(len(who), len(who), offset=1)
    return scores[i, j], who[i] == who[j]


def separation(scores: torch.Tensor, same: torch.Tensor) -> float:
    """Probability that a pair of one scores above a pair of two"""
    return (scores[same][:, None] > scores[~same]).float().mean().item()


@pytest.mark.parametrize(
    "kind",
    [
        "learnable",
        "corrected",
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("handcrafted", "gmu", "dimnet")),
    ],
)
def test_it_learns_to_tell_people_apart(kind):
    """Whom it has never met"""
    torch.manual_seed(0)
    cls, hparams = KINDS[kind]
    larger = {
        FusedEmbeddings: {"dimension": 16},
        CorrectedSimilarity: {"width": 16},
    }.get(cls, {"widths": (16, 8)})
    model, generator = cls(6, 6, **{**hparams, **larger}), torch.Generator().manual_seed(1)
    who = torch.arange(8).repeat_interleave(3)
    unseen = [windows_of(who, people(8, generator), generator) for _ in range(6)]

    def told_apart() -> float:
        model.eval()
        with torch.inference_mode():
            found = [pairs_of(model(*data), who) for data in unseen]
        return float(np.mean([separation(*one) for one in found]))

    before, losses = told_apart(), []
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    model.train()
    for _ in range(75):
        scores, same = pairs_of(model(*windows_of(who, people(8, generator), generator)), who)
        weight = torch.where(same, 1 / same.float().mean(), 1 / (~same).float().mean())
        loss = (weight * (scores - same.float()).square()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    after = told_apart()
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:3])
    assert after > 0.9
    assert after > before + 0.05
