"""Scorers from networks: windows, calibration, half precision, ONNX Runtime, names and files."""

import sys

import numpy as np
import pytest
import torch

from pyannote_av.core import weights
from pyannote_av.core.io import Video
from pyannote_av.models.active_speaker.export import export, score_alone
from pyannote_av.models.active_speaker.lightasd import LightASD
from pyannote_av.models.active_speaker.network_scorer import (
    CALIBRATIONS,
    Calibration,
    NetworkScorer,
)
from pyannote_av.models.active_speaker.scorers import ActiveSpeakerScorer, get_scorer
from pyannote_av.models.registry import get_network, published

IN_PARTS = ("light-asd", "lr-asd")
WHOLE = ("loconet", "talknet")

every = pytest.mark.parametrize(
    "name", [*IN_PARTS, *(pytest.param(name, marks=pytest.mark.slow) for name in WHOLE)]
)


def example(num_frames, seed=0):
    random = np.random.default_rng(seed)
    waveform = 0.1 * random.standard_normal((1, 640 * num_frames))
    crops = random.integers(0, 256, (num_frames, 112, 112), dtype=np.uint8)
    return torch.tensor(waveform, dtype=torch.float32), crops, np.ones(num_frames, bool)


def network(name):
    """Random weights whose normalisation is not trivial, nor the same for every channel."""
    torch.manual_seed(0)
    model = get_network(name)().eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2.0)
    return model


@pytest.fixture(scope="module")
def networks():
    return {name: network(name) for name in published("ActiveSpeakerDetection")}


@every
def test_conformance(networks, name):
    scorer = NetworkScorer(networks[name], window_seconds=(1,))
    assert isinstance(scorer, ActiveSpeakerScorer)
    assert scorer.name == name
    waveform, crops, present = example(40)
    present[[0, 1, 20, 21, 39]] = False
    scores = scorer(waveform, crops, present)
    assert scores.dtype == np.float32
    assert np.array_equal(np.isfinite(scores), present)
    other = np.where(present[:, None, None], crops, np.uint8(7))
    np.testing.assert_array_equal(scorer(waveform, other, present), scores)
    assert np.isnan(scorer(waveform, crops, np.zeros(40, bool))).all()
    for count in (1, 2, 3):
        few = scorer(waveform[:, : 640 * count], crops[:count], np.ones(count, bool))
        assert np.isfinite(few).all()


@every
def test_one_window_is_the_network_itself(networks, name):
    waveform, crops, present = example(25)
    scores = NetworkScorer(networks[name], window_seconds=(1,))(waveform, crops, present)
    with torch.inference_mode():
        expected = networks[name](waveform[None], torch.from_numpy(crops)[None])[0, :, 0]
    np.testing.assert_allclose(scores, expected, atol=1e-4)


@pytest.mark.parametrize("name", ["light-asd", "talknet"])
def test_windows_are_averaged_with_their_weights(networks, name):
    sound, crops, present = example(50)

    def scores(*window_seconds):
        return NetworkScorer(networks[name], window_seconds=window_seconds)(sound, crops, present)

    one, two = scores(1), scores(2)
    assert np.abs(one - two).max() > 1e-3
    np.testing.assert_allclose(scores(1, 2, 1), (2 * one + two) / 3, atol=1e-5)


def test_windows_of_whole_networks_know_nothing_of_each_other(networks):
    sound, crops, present = example(50)
    scorer = NetworkScorer(networks["talknet"], window_seconds=(1,))
    alone = NetworkScorer(networks["talknet"], window_seconds=(1,))(sound, crops, present)
    crops[25:] = 0
    np.testing.assert_allclose(scorer(sound, crops, present)[:25], alone[:25], atol=1e-5)


def test_calibration_is_of_the_published_score(networks):
    sound, crops, present = example(25)
    scorer = NetworkScorer(networks["light-asd"], Calibration(2.0, 0.5), window_seconds=(1,))
    with torch.inference_mode():
        heads = networks["light-asd"].predict(sound[None], torch.from_numpy(crops)[None])
    expected = 0.5 * (heads.fused[0, 0, :, 1] - 2.0)
    np.testing.assert_allclose(scorer(sound, crops, present), expected, atol=1e-5)


@every
def test_half_precision_is_close(networks, name):
    face = example(10)
    full = NetworkScorer(networks[name], window_seconds=(1,))(*face)
    half = NetworkScorer(networks[name], window_seconds=(1,), precision="bf16")(*face)
    assert 0 < np.abs(half - full).max() < 0.05


def real_faces(folder, every, seconds):
    import cv2

    for clip in sorted(folder.glob("clips/crops/*/*.mp4"))[::every]:
        crops = [
            cv2.resize(cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY), (224, 224))[56:168, 56:168]
            for frame in Video().frames(clip, end=seconds)
        ]
        waveform = Video().waveform(clip)[:, : 640 * len(crops)]
        waveform = torch.nn.functional.pad(waveform, (0, 640 * len(crops) - waveform.shape[1]))
        yield waveform, np.stack(crops), np.ones(len(crops), bool)


@pytest.mark.parametrize(
    ("file", "every", "seconds", "windows"),
    [
        pytest.param(
            "lr_asd_finetuning_TalkSet", 5, 1.2, {"window_seconds": (1,)}, marks=pytest.mark.slow
        ),
        pytest.param("lr_asd_finetuning_TalkSet", 5, 5.0, {}, marks=pytest.mark.slow),
        pytest.param("light_asd_finetuning_TalkSet", 5, 5.0, {}, marks=pytest.mark.slow),
    ],
)
def test_half_precision_decides_the_same_on_real_faces(shared_data, file, every, seconds, windows):
    if not (path := shared_data / "weights" / f"{file}.model").is_file():
        pytest.skip(f"no {file} on this machine")
    model = get_scorer(path).model
    calibration = CALIBRATIONS[file.split("_finetuning")[0].replace("_", "-")]
    scorers = [NetworkScorer(model, calibration, precision=p, **windows) for p in ("fp32", "bf16")]
    faces = list(real_faces(shared_data, every, seconds))
    full, half = (np.concatenate([scorer(*face) for face in faces]) for scorer in scorers)
    assert 0.05 < (full > 0).mean() < 0.8
    assert ((full > 0) != (half > 0)).mean() < 0.01


@every
def test_onnxruntime_scores_the_same(networks, name):
    pytest.importorskip("onnxruntime")
    options = {"calibration": Calibration(0.0, 1.0), "window_seconds": (1, 2)}
    torch_scorer = NetworkScorer(networks[name], **options)
    scorer = NetworkScorer(networks[name], engine="onnxruntime", **options)
    for num_frames in (1, 2, 55):
        waveform, crops, present = example(num_frames)
        present[10:12] = False
        expected = torch_scorer(waveform, crops, present)
        np.testing.assert_allclose(scorer(waveform, crops, present), expected, atol=1e-3)
    assert scorer.to(torch.device("cpu")) is scorer


@every
def test_files_run_without_torch(networks, name, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    paths = export(networks[name], tmp_path / "new")
    assert all(path.parent == tmp_path / "new" and path.suffix == ".onnx" for path in paths)
    files = {path.stem: onnxruntime.InferenceSession(path) for path in paths}

    def run(stem, *inputs):
        names = [each.name for each in files[stem].get_inputs()]
        return files[stem].run(None, dict(zip(names, inputs, strict=True)))[0]

    waveforms, crops, _ = zip(*(example(12, seed) for seed in range(3)), strict=True)
    crops = np.stack(crops)
    with torch.inference_mode():
        spectra = networks[name].spectrum(torch.cat(waveforms), num_frames=48)
        expected = score_alone(networks[name], spectra, torch.from_numpy(crops))
    if name in WHOLE:
        found = run("heads", spectra.numpy(), crops)
    else:
        acoustic = run("acoustic_features", spectra.numpy())
        found = run("fuse", acoustic, run("visual_features", crops))
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_onnxruntime_that_is_not_there(networks, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"pyannote-av\[onnx\]"):
        NetworkScorer(networks["lr-asd"], engine="onnxruntime")


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "fp16"},
        {"engine": "tensorrt"},
        {"engine": "onnxruntime", "precision": "bf16"},
    ],
)
def test_options_that_do_not_exist(networks, options):
    with pytest.raises(ValueError, match=r"fp32"):
        NetworkScorer(networks["lr-asd"], **options)


def test_scorers_from_networks_and_files(networks, tmp_path):
    face = example(30)
    model = networks["light-asd"]
    expected = get_scorer(model)(*face)
    path = model.save(tmp_path / "mine.safetensors")
    for each in (path, str(path)):
        scorer = get_scorer(each)
        assert scorer.name == "light-asd"
        assert scorer.calibration is None
        np.testing.assert_array_equal(scorer(*face), expected)
    assert get_scorer(path, window_seconds=(1, 2)).window_seconds == (1, 2)
    with pytest.raises(FileNotFoundError, match="nothing"):
        get_scorer(tmp_path / "nothing.safetensors")


def test_public_weights_are_calibrated_by_name_and_by_file(monkeypatch, shared_data):
    if "light-asd" not in weights.REGISTRY:
        pytest.skip("no address of Light-ASD's weights is known")
    monkeypatch.setenv("PYANNOTE_AV_WEIGHTS", str(shared_data / "weights"))
    for name in CALIBRATIONS:
        if weights.find(name) is None:
            pytest.skip(f"no weights {name} on this machine")
        for scorer in (get_scorer(name), get_scorer(weights.require(name))):
            assert scorer.name == name
            assert scorer.calibration == CALIBRATIONS[name]
    assert isinstance(get_scorer("light-asd").model, LightASD)
