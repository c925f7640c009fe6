"""AVR-Net: parity with the authors' network, what is invisible, and its variants."""

import authors
import numpy as np
import pytest
import torch
from authors import batch_norm, layer, numbers, residual_stages
from torchaudio.functional import melscale_fbanks

from pyannote_av.clustering.avrnet import AVRNet, WindowComparison
from pyannote_av.clustering.pair_scores import score_pairs
from pyannote_av.clustering.relation_network import ModalityMask
from pyannote_av.clustering.single_stream import SingleStream
from pyannote_av.core.model import Model
from pyannote_av.models.importers import convert, import_checkpoint

# What the authors' code (commit 4d597d9, evaluation mode, float32 CPU) says with made-up weights of
# two windows of noise, by whose face is visible: its answer, and its scores in either order.
RECORDED = {
    (False, False): (0.750993, (0.72116, 0.78083)),
    (False, True): (0.906612, (0.81339, 0.99983)),
    (True, False): (0.988609, (0.99749, 0.97973)),
    (True, True): (0.819540, (0.98847, 0.65061)),
}
# Parts of maps of the first window; of its first 5000 samples; of its face, and of none.
RECORDED_AUDIO = numbers(
    "2.42076 1.13065 1.39876 1.12883 0.26322 0.26322 0.26322 0.26322 1.31687 1.12699 0.90862 "
    "0.98455 1.16719 0.85627 0.79594 0.82327 -0.02263 0.04607 0.03525 0.35390 1.69387 1.36870 "
    "1.49680 1.60726 0.22314 0.01795 -0.05885 0.06516"
)
RECORDED_SHORT = numbers(
    "2.30077 1.37416 1.15217 0.83651 0.26398 0.26322 0.26322 0.26322 1.34022 0.88127 0.92447 "
    "0.82873 1.18841 0.86353 0.86872 0.84679 0.03096 0.11569 0.11483 0.37161 1.56698 1.42193 "
    "1.54257 1.44491 0.19705 0.13261 0.15481 0.04011"
)
RECORDED_FACE = numbers(
    "-6.01268 -6.27582 -6.26504 -2.54557 0.73870 6.50958 4.08431 1.16789 0.07775 2.07909 2.74971 "
    "1.07073 0.10692 -1.00404 0.78330 0.45591 -0.05807 0.95753 1.17992 -1.19013 0.95295 0.94088 "
    "0.12279 2.18383 1.22406 0.87888 1.09787 -3.27110 -1.92450 -3.39891 1.72603 4.10926"
)
RECORDED_NO_FACE = numbers(
    "-5.65422 -7.91617 -6.28742 -4.10895 2.12579 0.10528 -0.68389 -0.48704 -0.43304 2.47142 "
    "2.60129 2.09706 2.11619 0.73914 0.50505 0.16788 1.77413 0.66089 1.86493 0.75020 0.61740 "
    "0.95364 1.77894 1.08013 -0.76876 -2.07718 -2.43418 -2.74884 -0.01312 -0.01441 0.64855 3.01782"
)


def authors_shapes():
    """Tensors of a checkpoint of AVR-Net that are not constants."""
    name = "audio_encoder"
    yield from layer(f"{name}.conv1", 32, 1, 3, 3)
    yield from batch_norm(f"{name}.bn1", 32)
    yield from residual_stages(name, (32, 64, 128, 256))
    name = "video_encoder"
    yield from layer(f"{name}.conv1", 64, 3, 3, 3, bias=False)
    yield from batch_norm(f"{name}.bn1", 64)
    yield f"{name}.prelu.weight", (64,)
    before = 64
    for i, (width, count) in enumerate(((64, 3), (128, 4), (256, 14), (512, 3)), start=1):
        for j in range(count):
            where = f"{name}.layer{i}.{j}"
            yield from batch_norm(f"{where}.bn1", before)
            yield from layer(f"{where}.conv1", width, before, 3, 3, bias=False)
            yield from batch_norm(f"{where}.bn2", width)
            yield f"{where}.prelu.weight", (width,)
            yield from layer(f"{where}.conv2", width, width, 3, 3, bias=False)
            yield from batch_norm(f"{where}.bn3", width)
            if j == 0:
                yield from layer(f"{where}.downsample.0", width, before, 1, 1, bias=False)
                yield from batch_norm(f"{where}.downsample.1", width)
            before = width
    yield from batch_norm(f"{name}.bn2", 512)
    name = "relation_layer"
    yield from batch_norm(f"{name}.bna", 256)
    before = 1536
    for i, (width, count) in enumerate(((256, 8), (64, 6)), start=1):
        for j in range(count):
            where = f"{name}.layer{i}.{j}"
            sizes = ((width, before, 1), (width, width, 3), (4 * width, width, 1))
            for k, (after, channels, size) in enumerate(sizes, start=1):
                yield from layer(f"{where}.conv{k}", after, channels, size, size, bias=False)
                yield from batch_norm(f"{where}.bn{k}", after)
            if j == 0:
                yield from layer(f"{where}.downsample.0", 4 * width, before, 1, 1, bias=False)
                yield from batch_norm(f"{where}.downsample.1", 4 * width)
            before = 4 * width
    yield from layer(f"{name}.fc.0", 64, 1024)
    yield from batch_norm(f"{name}.fc.1", 64)
    yield from layer(f"{name}.fc.3", 1, 64)
    yield f"{name}.task_token.weight", (4, 1536)


def authors_weights():
    """A checkpoint of the authors' network with made-up weights."""
    state = authors.made_up(authors_shapes())
    for name, tensor in state.items():
        if ".prelu." in name:
            tensor *= 0.25
    # sounds and faces matter alike, and enough to be seen in scores
    for name, factor in (("video_encoder.bn2", 0.1), ("relation_layer.bna", 5.0)):
        state[f"{name}.weight"] *= factor
        state[f"{name}.bias"] *= factor
    state["relation_layer.fc.3.weight"] *= 5.0
    # the mask multiplies: around 1, and not alike in any two cases
    state["relation_layer.task_token.weight"] *= 0.5 * 1536**0.5
    state["relation_layer.task_token.weight"] += 1
    state["audio_encoder.torchfb.0.flipped_filter"] = torch.tensor([[[-0.97, 1.0]]])
    state["audio_encoder.torchfb.1.spectrogram.window"] = torch.hamming_window(400)
    filters = melscale_fbanks(257, 0.0, 8000.0, n_mels=64, sample_rate=16000)
    state["audio_encoder.torchfb.1.mel_scale.fb"] = filters
    return state


def example(num_windows, num_samples=32000, pictures=1):
    """Noise that gets louder by the window, and pictures of it."""
    random = np.random.default_rng(0)
    waveforms = random.standard_normal((num_windows, 1, num_samples)).cumsum(axis=0) / 20
    faces = random.integers(0, 256, (num_windows, pictures, 3, 112, 112), dtype=np.uint8)
    return torch.tensor(waveforms, dtype=torch.float32), torch.tensor(faces)


@pytest.fixture(scope="module")
def weights():
    return authors_weights()


@pytest.fixture(scope="module")
def model(weights):
    return convert(weights, AVRNet)


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.inference_mode():
        yield


def pair(model, waveforms, faces, visible):
    """What there is to say of a pair of windows."""
    mask = torch.tensor(visible)[:, None]
    audio, face = model.audio_map(waveforms), model.face_map(faces, mask)
    seen = mask[:, 0]
    return audio[:1], face[:1], audio[1:], face[1:], seen[:1], seen[1:]


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("visible", RECORDED)
def test_scores_are_those_of_the_authors(model, visible):
    answer, orders = RECORDED[visible]
    maps = pair(model, *example(2), visible)
    np.testing.assert_allclose(model.relate(*maps), [answer], atol=1e-4)
    np.testing.assert_allclose(model.relate_in_order(*maps)[:, 0], orders, atol=1e-4)


def test_maps_are_those_of_the_authors(model):
    waveforms, faces = (x[:1] for x in example(2))
    audio, face = model.audio_map(waveforms), model.face_map(faces)
    assert (audio.shape, face.shape) == ((1, 256, 7, 7), (1, 512, 7, 7))
    short, nobody = model.audio_map(waveforms[..., :5000]), model.face_map(faces[:, :0])
    for maps, step, recorded in (
        (audio, 37, RECORDED_AUDIO),
        (short, 37, RECORDED_SHORT),
        (face, 73, RECORDED_FACE),
        (nobody, 73, RECORDED_NO_FACE),
    ):
        np.testing.assert_allclose(maps[0, ::step, 2, ::2].flatten(), recorded, atol=1e-4)


def test_number_of_parameters(model):
    def count(*modules):
        return sum(p.numel() for module in modules for p in module.parameters())

    assert count(model.acoustic) == 5_404_108
    assert count(model.visual) == 30_744_256
    assert count(model.acoustic_norm, model.mask, model.relation) == 11_450_113
    assert count(model) == 47_598_477


@pytest.mark.slow
def test_import_of_a_file(model, weights, tmp_path):
    training = {"best_der": np.float64(20.66), "threshold": np.float64(0.14)}
    file = {"model": weights, "best_der_info": training, "config": {"model": "token"}}
    torch.save(file, tmp_path / "best.ckpt")
    imported = import_checkpoint(tmp_path / "best.ckpt")
    assert isinstance(imported, AVRNet)
    assert not imported.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, imported.state_dict()[name]), name


def test_import_names_what_does_not_fit(weights):
    wrong = dict(weights)
    del wrong["video_encoder.layer3.13.prelu.weight"], wrong["relation_layer.bna.bias"]
    wrong["audio_encoder.layer1.0.se.fc.1.weight"] = torch.zeros(1)
    wrong["relation_layer.task_token.weight"] = torch.zeros(3, 1536)
    with pytest.raises(ValueError, match="not the weights of AVRNet") as error:
        convert(wrong, AVRNet)
    for name in (
        "visual.stages.2.13.residual.3.weight",
        "acoustic_norm.bias",
        "audio_encoder.layer1.0.se.fc.1.weight",
        "relation_layer.task_token.weight is (3, 1536)",
    ):
        assert name in str(error.value)


@pytest.mark.slow
def test_saved_and_read_again(model, tmp_path):
    with torch.inference_mode(False):  # weights made within take other ways through torch
        again = Model.from_pretrained(model.save(tmp_path))
    inputs = example(2)
    assert torch.equal(again(*inputs), model(*inputs))


def test_variant_is_saved(tmp_path):
    path = AVRNet(mask="partial", fusion="raw", siamese=False).save(tmp_path)
    with torch.inference_mode(False):
        again = Model.from_pretrained(path)
    assert (again.hparams.mask, again.hparams.fusion, again.hparams.siamese) == (
        "partial",
        "raw",
        False,
    )
    assert 0 < again(*example(2))[0, 1] < 1


@pytest.mark.parametrize(
    "visible",
    [pytest.param(v, marks=[] if v == (False, True) else pytest.mark.slow) for v in RECORDED],
)
def test_order_means_nothing(model, visible):
    audio_a, face_a, audio_b, face_b, visible_a, visible_b = pair(model, *example(2), visible)
    forth = model.relate(audio_a, face_a, audio_b, face_b, visible_a, visible_b)
    back = model.relate(audio_b, face_b, audio_a, face_a, visible_b, visible_a)
    close(forth, back)


@pytest.mark.slow
def test_every_window_with_every_other(model):
    waveforms, faces = example(3)
    mask = torch.tensor([[True], [False], [True]])
    scores = model(waveforms, faces, mask)
    assert torch.equal(scores, scores.T)
    assert torch.equal(scores.diagonal(), torch.ones(3))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        visible = mask[[i, j], 0].tolist()
        alone = model.relate(*pair(model, waveforms[[i, j]], faces[[i, j]], visible))
        close(scores[i, j], alone[0])


def test_a_window_alone(model):
    waveforms, faces = example(1)
    assert model(waveforms, faces).tolist() == [[1.0]]


def test_nobody_visible(model):
    waveforms, faces = example(2)
    expected = RECORDED[False, False][0]
    assert model(waveforms)[0, 1].item() == pytest.approx(expected, abs=1e-4)
    close(model(waveforms), model(waveforms, faces, torch.zeros(2, 1)))


def test_absent_pixels_are_never_read(model):
    waveforms, faces = example(2, pictures=2)
    mask = torch.tensor([[True, False], [False, False]])
    other = faces.float()
    other[~mask] = torch.nan
    scores = model(waveforms, other, mask)
    assert torch.isfinite(scores).all()
    assert torch.equal(scores, model(waveforms, faces, mask))


def test_pictures_of_a_window_are_averaged(model):
    _, faces = example(1, pictures=3)
    first, _, last = model.face_map(faces.transpose(0, 1))
    mask = torch.tensor([[True, False, True]])
    close(model.face_map(faces, mask)[0], (first + last) / 2)


def test_sounds_of_any_loudness_and_length(model):
    waveforms, _ = example(1, num_samples=16000)
    expected = model.audio_map(waveforms)
    close(model.audio_map(waveforms.repeat(1, 1, 2)), expected)
    close(model.audio_map(waveforms * 0.25), expected)
    for length in (1, 100, 48000):
        assert model.audio_map(torch.zeros(1, 1, length)).isfinite().all()


def test_masks():
    visible = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]]).bool().unbind(1)
    factors = {
        kind: ModalityMask(kind, face_channels=2, audio_channels=1)(*visible).tolist()
        for kind in ("none", "handcrafted", "partial", "learnable")
    }
    ones = [[1.0] * 6] * 4
    assert factors["none"] == factors["learnable"] == ones
    assert factors["handcrafted"] == [
        [0, 0, 1, 0, 0, 1],
        [0, 0, 1, 1, 1, 1],
        [1, 1, 1, 0, 0, 1],
        [1, 1, 1, 1, 1, 1],
    ]
    assert factors["partial"] == [
        [0, 0, 1, 1, 1, 1],
        [0, 0, 1, 1, 1, 1],
        [1, 1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1, 1],
    ]


@pytest.mark.parametrize(
    ("mask", "fusion", "siamese", "combination"),
    [
        ("learnable", "feature", True, "mask"),
        pytest.param("handcrafted", "embedding", False, "alter_mask", marks=pytest.mark.slow),
        pytest.param("partial", "embedding", True, "alter_concat", marks=pytest.mark.slow),
        pytest.param("none", "raw", False, "concat", marks=pytest.mark.slow),
    ],
)
def test_variants_train(mask, fusion, siamese, combination):
    with torch.inference_mode(False), torch.enable_grad():
        model = AVRNet(mask, fusion, siamese, combination).train()
        before = {name: b.clone() for name, b in model.named_buffers()}
        waveforms, faces = (x.clone() for x in example(2))
        visible = torch.tensor([True, False])
        audio, face = model.audio_map(waveforms), model.face_map(faces, visible[:, None])
        # normalisation takes more than one pair
        scores = model.relate_in_order(audio, face, audio.flip(0), face, visible, visible)
        assert scores.shape == (2 if siamese else 1, 2)
        assert ((scores > 0) & (scores < 1)).all()
        (scores - torch.tensor([0.0, 1.0])).square().sum().backward()
    for name, parameter in model.named_parameters():
        if name.startswith(("acoustic.", "visual.")):
            assert parameter.grad is None, name
        elif parameter.numel():
            assert parameter.grad.any(), name
    changed = {n.split(".")[0] for n, b in model.named_buffers() if not torch.equal(b, before[n])}
    assert changed == {"acoustic_norm", "relation"}


def test_what_is_frozen_can_be_woken(model):
    asleep, woken = AVRNet(fusion="raw"), AVRNet(fusion="raw")
    woken.visual = asleep.visual = model.visual
    asleep.train()
    assert not asleep.visual.training
    woken.unfreeze_by_name("visual")
    woken.train()
    try:
        assert woken.visual.training
        assert woken.visual.norm.training
    finally:
        woken.visual.requires_grad_(False).eval()


def test_backbones_are_frozen_from_the_beginning():
    """Also without a call of ``train``, which trainers do not make"""
    model = WindowComparison("feature", 16000, 1, None)
    for branch in (model.acoustic, model.visual):
        assert not any(module.training for module in branch.modules())
        assert not any(parameter.requires_grad for parameter in branch.parameters())
    assert model.acoustic_norm.training


def backbones(weights, tmp_path):
    """Files of the audio and of the face backbone, with an embedding layer beyond the maps"""
    paths = tmp_path / "backbone_audio.pth", tmp_path / "backbone_faces.pth"
    for path, prefix, wrapper in zip(
        paths, ("audio_encoder.", "video_encoder."), ("__S__.", ""), strict=True
    ):
        state = {n.removeprefix(prefix): t for n, t in weights.items() if n.startswith(prefix)}
        state["fc.weight"] = torch.zeros(2, 2)
        torch.save({wrapper + name: tensor for name, tensor in state.items()}, path)
    return paths


def test_pretrained_backbones(model, weights, tmp_path):
    audio, faces = backbones(weights, tmp_path)
    with torch.inference_mode(False):
        found = AVRNet.from_backbones(audio, faces, mask="partial")
    assert found.hparams.mask == "partial"
    assert not found.training
    for branch in ("acoustic", "visual"):
        expected = getattr(model, branch).state_dict()
        for name, tensor in getattr(found, branch).state_dict().items():
            assert torch.equal(tensor, expected[name]), name
        assert not any(p.requires_grad for p in getattr(found, branch).parameters())
    assert all(p.requires_grad for p in found.relation.parameters())
    with pytest.raises(ValueError, match=r"backbone_audio\.pth.*'visual' of AVRNet: missing"):
        AVRNet.from_backbones(audio, audio)


def test_a_stream_of_its_own():
    """Trained to classify; a pair is as alike as its features"""
    with torch.inference_mode(False), torch.enable_grad():
        model = SingleStream(num_speakers=5, fusion="embedding").train()
        audio, face = torch.randn(3, 256, 1, 1), torch.randn(3, 512, 1, 1)
        visible = torch.tensor([True, False, True])
        logits = model.classify(audio, face, visible)
        assert logits.shape == (3, 5)
        torch.nn.functional.cross_entropy(logits, torch.tensor([0, 4, 2])).backward()
    for name, parameter in model.named_parameters():
        elsewhere = name.startswith(("acoustic", "visual"))
        assert (parameter.grad is None) == elsewhere, name
    model.eval()
    features = model.embed(audio, face, visible).numpy()
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    first, second = np.triu_indices(3, 1)
    expected = (unit @ unit.T)[first, second]
    np.testing.assert_allclose(score_pairs(model, audio, face, visible), expected, atol=1e-5)
    a, b = ([x[k] for x in (audio, face, visible)] for k in (first, second))
    found = model.relate(a[0], a[1], b[0], b[1], a[2], b[2])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_summary_of_lightning(model):
    assert model(**model.example_input_array).shape == (2, 2)


def test_what_it_is_not_defined_for(model):
    with pytest.raises(ValueError, match="16 kHz"):
        AVRNet(sample_rate=8000)
    with pytest.raises(ValueError, match=r"112.*\(1, 2, 3, 56, 56\)"):
        model.face_map(torch.zeros(1, 2, 3, 56, 56))
