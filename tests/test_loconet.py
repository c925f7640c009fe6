"""LoCoNet: parity with the authors' network, any number of faces, what they leave undefined."""

import authors
import numpy as np
import pytest
import torch
from authors import example, numbers, real_example

from pyannote_av.core.model import Model
from pyannote_av.models.active_speaker.export import score_alone
from pyannote_av.models.active_speaker.loconet import LoCoNet
from pyannote_av.models.active_speaker.scene import find_scenes
from pyannote_av.models.blocks.logmel import LogMel
from pyannote_av.models.importers import convert, import_checkpoint

# Logits for class 1 of the authors' code (commit 68d90c8, evaluation mode, float32 CPU) with
# made-up weights, on noise. All heads on a scene of seven frames, where its visual branch has been
# called for each face by itself (it leaks from face to face otherwise).
RECORDED = {
    "fused": numbers(
        "-0.61853 -0.52239 -0.03798 0.05143 -0.00769 -0.21121 0.12328 0.20363 0.04683 0.37503 "
        "0.61066 0.48405 0.36459 0.05083 -0.80633 -0.48232 -0.50935 -0.24028 -0.24602 -0.34058 "
        "-0.31700"
    ),
    "acoustic": numbers(
        "0.61351 0.49529 0.55835 0.50023 0.72247 0.54349 0.68801 0.56037 0.47687 0.55919 "
        "0.57084 0.71338 0.59390 0.73118 0.61151 0.55187 0.60827 0.60004 0.74210 0.55595 "
        "0.72513"
    ),
    "visual": numbers(
        "-0.13492 -0.10398 -0.41173 -0.59405 -0.30783 0.23451 0.34683 -0.19008 -0.19939 -0.48095 "
        "-0.55908 -0.41887 0.14898 0.24270 -0.15158 -0.07261 -0.32880 -0.50498 -0.27726 0.32496 "
        "0.34782"
    ),
}
# The same for the first frames where their number is even.
RECORDED_EVEN = numbers(
    "-0.68174 -0.55872 -0.03141 0.02817 0.03329 -0.15759 -0.23159 0.05406 0.11553 -0.05577 "
    "0.17484 0.45024 0.48307 0.25145 0.14406 -0.12204 -0.89576 -0.57842 -0.62256 -0.39360 "
    "-0.39382 -0.40355 -0.42022 -0.52597"
)
# A batch of two scenes of five frames, exactly as the code has it.
RECORDED_BATCH = numbers(
    "-0.44466 -0.34521 0.11658 0.14448 0.42768 0.45137 0.36117 0.33319 0.47096 0.26418 "
    "-0.76317 -0.50385 -0.33750 -0.14876 -0.07087 -0.44923 -0.29821 0.11502 0.19463 0.42625 "
    "0.46246 0.28033 0.30751 0.35839 0.22508 -0.77392 -0.50244 -0.33359 -0.20158 -0.16472"
)
# Of scenes of 1 to 5 faces in four frames, one scene per face, exactly as the code has it: the face
# to score first, then the two others of `find_scenes` (the code draws them at random).
RECORDED_SCENES = {
    1: numbers("-0.48001 -0.31211 0.13725 0.45015"),
    2: numbers("-0.44502 -0.26431 0.14737 0.46861 -0.50276 -0.35143 0.06494 0.39902"),
    3: numbers(
        "-0.43285 -0.26371 0.16453 0.48264 -0.45456 -0.32257 0.07475 0.42486 -0.47281 -0.24798 "
        "0.07852 0.44559"
    ),
    4: numbers(
        "-0.47356 -0.32077 0.10877 0.43736 -0.47414 -0.32395 0.07289 0.38660 -0.45863 -0.30854 "
        "0.06570 0.40674 -0.43548 -0.32801 0.09592 0.41503"
    ),
    5: numbers(
        "-0.47356 -0.32077 0.10877 0.43736 -0.47414 -0.32395 0.07289 0.38660 -0.45863 -0.30854 "
        "0.06570 0.40674 -0.43548 -0.32801 0.09592 0.41503 -0.44292 -0.35935 0.09044 0.41314"
    ),
}
# Every third frame of 1.2 s of a real face, which is there thrice, 0.4 s apart.
RECORDED_REAL = numbers(
    "-0.72459 0.00493 -0.03416 -0.07578 -0.01502 -0.09305 -0.03201 -0.07340 -0.03599 -0.09496 "
    "-0.26742 0.14782 0.02651 0.08007 0.07000 0.03946 0.04741 0.03409 0.08837 -0.26602 "
    "-0.64184 -0.33524 -0.34742 -0.33174 -0.36712 -0.34296 -0.38552 -0.33258 -0.35126 -0.45140"
)
# Every eighth band of the first and the last complete window in 0.2 s of noise: torchvggish.
RECORDED_LOG_MEL = numbers(
    "9.57699 11.01573 10.89806 11.25075 11.47960 11.83166 12.39716 12.43463 10.02751 10.81384 "
    "10.77855 11.17594 11.39249 11.97945 11.89028 12.32073"
)


@pytest.fixture(scope="module")
def weights():
    return authors.made_up(authors.loconet())


@pytest.fixture(scope="module")
def published(weights):
    """As the authors have it: the first convolution joins the faces of a scene"""
    return convert(weights, LoCoNet)


@pytest.fixture(scope="module")
def model(weights):
    """Every face by itself"""
    return convert(weights, LoCoNet, {"per_clip_conv3d": True})


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.inference_mode():
        yield


def batch(num_frames, num_faces):
    items = (example(num_frames, num_faces, seed) for seed in range(2))
    return [torch.cat(parts) for parts in zip(*items, strict=True)]


def heads(model, waveform, faces):
    return model.heads(model.spectrum(waveform[:, 0], num_frames=4 * faces.shape[2]), faces)


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


# comings and goings of four faces in twelve frames
COMING_AND_GOING = torch.ones(1, 4, 12, dtype=torch.bool)
COMING_AND_GOING[0, 0, 5:7] = False
COMING_AND_GOING[0, 1, :4] = False
COMING_AND_GOING[0, 2, 9:] = False
COMING_AND_GOING[0, 3, :6] = False


def test_log_mel_is_that_of_torchvggish():
    waveform, _ = example(5)
    integers = (waveform[0, 0] * 32768).round() / 32768
    spectra = LogMel()(integers)
    assert spectra.shape == (18, 64)
    np.testing.assert_allclose(spectra[[0, 17], ::8].flatten(), RECORDED_LOG_MEL, atol=2e-5)


def test_log_mel_of_silence_and_of_hardly_anything():
    spectra = LogMel()(torch.zeros(2, 0), num_frames=3)
    assert torch.equal(spectra, torch.full((2, 3, 64), 0.01).log())
    assert LogMel().num_frames(100) == 0


@pytest.mark.parametrize("num_frames", [7, 8])
def test_scores_are_those_of_the_authors(model, num_frames):
    found = heads(model, *example(num_frames, num_faces=3))
    assert found.fused.shape == (1, 3, num_frames, 2)
    for name, recorded in (RECORDED if num_frames == 7 else {"fused": RECORDED_EVEN}).items():
        logits = getattr(found, name)[..., 1].flatten()
        np.testing.assert_allclose(logits, recorded, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("num_faces", RECORDED_SCENES)
def test_an_imported_network_gives_the_numbers_of_the_authors(published, model, num_faces):
    waveform, faces = example(5, num_faces)
    faces = faces[:, :, :4]  # the sound goes on, so that no spectrum lacks samples
    scores = published.predict(waveform, faces).fused[0, ..., 1].flatten()
    np.testing.assert_allclose(scores, RECORDED_SCENES[num_faces], atol=2e-5)
    # each face by itself is another network
    assert (model.predict(waveform, faces).fused[0, ..., 1].flatten() - scores).abs().max() > 0.02


def test_a_face_alone_is_its_own_scene(published):
    """Also where several faces are scored at once"""
    waveform, faces = batch(4, num_faces=1)
    spectra = published.spectrum(waveform[:, 0], num_frames=16)
    alone = [published.predict(waveform[i : i + 1], faces[i : i + 1]).fused[0] for i in (0, 1)]
    close(score_alone(published, spectra, faces[:, 0]), torch.cat(alone))


def test_scores_of_a_batch_as_published(model):
    published = LoCoNet(per_clip_conv3d=False, per_clip_audio=False).eval()
    published.load_state_dict(model.state_dict())
    logits = heads(published, *batch(5, num_faces=3)).fused
    np.testing.assert_allclose(logits[..., 1].flatten(), RECORDED_BATCH, atol=1e-4)
    published.training = True  # takes items as scenes; dropout and normalisation stay as they are
    torch.testing.assert_close(published.predict(*batch(5, num_faces=3)).fused, logits)
    assert (heads(model, *batch(5, num_faces=3)).fused - logits).abs().max() > 1e-2


def test_scores_on_a_real_face(model, shared_data):
    waveform, face = real_example(shared_data, 50)
    faces = torch.cat([face[:, :, start : start + 30] for start in (0, 10, 20)], dim=1)
    logits = heads(model, waveform[..., : 640 * 30], faces).fused
    np.testing.assert_allclose(logits[0, :, ::3, 1].flatten(), RECORDED_REAL, atol=1e-4)


def test_number_of_parameters(model):
    classifiers = 514 + 258 + 258
    assert sum(p.numel() for p in model.parameters()) == 34_331_845 + classifiers


def test_import_of_a_file(model, weights, tmp_path):
    parallel = {f"model.module.{name}": tensor for name, tensor in weights.items()}
    torch.save(parallel, tmp_path / "some.model")
    imported = import_checkpoint(tmp_path / "some.model")
    assert isinstance(imported, LoCoNet)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, imported.state_dict()[name]), name
    assert not imported.hparams.per_clip_conv3d
    apart = import_checkpoint(tmp_path / "some.model", hparams={"per_clip_conv3d": True})
    assert apart.visual.per_clip_conv3d
    with pytest.raises(ValueError, match=r"some\.model: LoCoNet has no colour"):
        import_checkpoint(tmp_path / "some.model", hparams={"colour": True})


def test_import_names_what_does_not_fit(weights):
    wrong = dict(weights)
    del wrong["model.convAV.4.ln.bias"]
    wrong["model.audioEncoder.pproc.pca_means"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"decoder\.2\.between\.project\.0\.bias.*pca_means"):
        convert(wrong, LoCoNet)


def test_switches_are_saved(tmp_path):
    path = LoCoNet(per_clip_conv3d=False, per_clip_audio=False).save(tmp_path)
    again = Model.from_pretrained(path)
    assert not again.visual.per_clip_conv3d
    assert not again.per_clip_audio


def test_scenes():
    _, faces = example(12, num_faces=4)
    faces[0, 3] //= 2
    (scene,) = find_scenes(COMING_AND_GOING[:, :1], faces[:, :1])
    assert scene.faces.tolist() == [[0, 0, 0]]
    scenes = find_scenes(COMING_AND_GOING[:, :2], faces[:, :2])
    assert [s.faces.tolist() for s in scenes] == [[[0, 1, 1]], [[1, 0, 0]]]
    assert [s.span for s in scenes] == [(0, 12), (4, 12)]
    # frames together: 0-1 6, 0-2 7, 0-3 5, 1-2 5, 1-3 6, 2-3 3
    scenes = find_scenes(COMING_AND_GOING, faces)
    assert [s.faces.tolist() for s in scenes] == [
        [[0, 2, 1]],
        [[1, 3, 0]],
        [[2, 0, 1]],
        [[3, 1, 0]],
    ]
    assert all(s.scored.tolist() == [[True, False, False]] for s in scenes)


def test_scenes_hold_faces_that_are_there_together():
    present = torch.zeros(1, 3, 10, dtype=torch.bool)
    present[0, 0, :5] = present[0, 1, 5:] = True
    scenes = find_scenes(present, torch.zeros(1, 3, 10, 4, 4))
    assert [s.faces.tolist() for s in scenes] == [[[0, 0, 0]], [[1, 1, 1]]]


@pytest.mark.slow
@pytest.mark.parametrize("num_faces", [1, 2])
def test_few_faces_are_repeated(model, num_faces):
    waveform, faces = example(6, num_faces)
    scores = model.predict(waveform, faces).fused
    for face in range(num_faces):
        scene = [face, num_faces - 1 - face, num_faces - 1 - face]
        close(scores[:, face], heads(model, waveform, faces[:, scene]).fused[:, 0])


@pytest.mark.parametrize("num_faces", [2, 5])
def test_order_of_faces_means_nothing(model, num_faces):
    waveform, faces = example(5, num_faces)
    scores = model(waveform, faces)
    assert scores.shape == (1, 5, num_faces)
    order = torch.randperm(num_faces, generator=torch.Generator().manual_seed(num_faces))
    close(model(waveform, faces[:, order]), scores[..., order])


@pytest.fixture(scope="module")
def of_four_faces(model) -> torch.Tensor:
    """Scores of four faces that come and go."""
    with torch.inference_mode():
        return model(*example(12, num_faces=4), COMING_AND_GOING)


@pytest.mark.slow
def test_order_of_faces_that_come_and_go_means_nothing(model, of_four_faces):
    (waveform, faces), scores = example(12, num_faces=4), of_four_faces
    order = [2, 0, 3, 1]
    close(model(waveform, faces[:, order], COMING_AND_GOING[:, order]), scores[..., order])


@pytest.mark.slow
def test_sharing_changes_nothing(model):
    waveform, faces = example(12, num_faces=4)
    shared = model.predict(waveform, faces, COMING_AND_GOING)
    spectra = model.spectrum(waveform[:, 0], num_frames=48)
    pictures = torch.where(COMING_AND_GOING[..., None, None], faces, 0)
    for scene in find_scenes(COMING_AND_GOING, faces):
        (first, last), members = scene.span, scene.faces[0]
        alone = model.heads(spectra[:, 4 * first : 4 * last], pictures[:, members, first:last])
        for found, expected in zip(shared, alone, strict=True):
            close(found[:, members[0], first:last], expected[:, 0])


def test_padding_changes_nothing(model, of_four_faces):
    (waveform, faces), expected = example(12, num_faces=4), of_four_faces
    before, after = 3, 4
    padded = torch.full((1, 6, before + 12 + after, 112, 112), 200, dtype=torch.uint8)
    padded[:, 1:5, before : before + 12] = faces
    mask = torch.zeros(padded.shape[:3], dtype=torch.bool)
    mask[:, 1:5, before : before + 12] = COMING_AND_GOING
    silence = torch.nn.functional.pad(waveform, (640 * before, 640 * after))
    scores = model(silence, padded, mask)
    close(scores[:, before : before + 12, 1:5], expected)
    scores[0, before : before + 12, 1:5] = 0
    assert not scores.any()


def test_absent_pixels_are_never_read(model, of_four_faces):
    (waveform, faces), scores = example(12, num_faces=4), of_four_faces
    seen = COMING_AND_GOING[..., None, None]
    other = model(waveform, torch.where(seen, faces, 255 - faces), COMING_AND_GOING)
    assert torch.equal(scores, other)
    assert not scores[0, :4, 1].any()
    assert scores[0, :, 0].all()


@pytest.mark.slow
def test_in_training_three_faces_are_one_scene(model):
    waveform, faces = example(6, num_faces=3)
    expected = heads(model, waveform, faces)
    mask = torch.ones(1, 3, 6, dtype=torch.bool)
    model.training = True  # dropout and normalisation stay as they are
    try:
        for found, logits in zip(model.predict(waveform, faces), expected, strict=True):
            close(found, logits)
        mask[0, 1, :2] = False
        fused = model.predict(waveform, faces, mask).fused
        black = heads(model, waveform, torch.where(mask[..., None, None], faces, 0)).fused
        close(fused, torch.where(mask[..., None], black, 0.0))
        mask[0, 1] = False
        fused = model.predict(waveform, faces, mask).fused
        close(fused[:, [0, 2]], heads(model, waveform, faces[:, [0, 2, 2]]).fused[:, [0, 2]])
        assert not fused[:, 1].any()
    finally:
        model.training = False


def test_no_faces(model):
    waveform, faces = example(5)
    assert model(waveform, faces[:, :0]).shape == (1, 5, 0)
    never = torch.zeros(1, 1, 5, dtype=torch.bool)
    assert not model(waveform, faces, never).any()


def test_twenty_faces(model):
    waveform, faces = example(1, num_faces=20)
    scores = model(waveform, faces)
    assert scores.shape == (1, 1, 20)
    assert torch.isfinite(scores).all()


@pytest.mark.parametrize("num_faces", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_trains(num_faces):
    with torch.inference_mode(False), torch.enable_grad():
        model = LoCoNet().train()
        predicted = model.predict(*(x.clone() for x in example(4, num_faces)))
        sum(logits.square().mean() for logits in predicted).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]
    used = {name for name, p in model.named_parameters() if p.grad.any()}
    for branch in ("acoustic", "visual", "fusion", "decoder", "classifier"):
        assert any(name.startswith(f"{branch}.") for name in used)
