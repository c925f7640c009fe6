"""ONNX graphs say what networks say, at sizes that they were not made at."""

import json

import numpy as np
import pytest
import torch
import typer
from test_embedded_relation import build as build_relation
from test_hmsanet import build as build_hmsanet
from test_hmsanet import inputs as hmsanet_inputs
from typer.testing import CliRunner

pytest.importorskip("onnxruntime", reason="ONNX Runtime is an extra: pip install '.[onnx]'")

from pyannote_av.clustering.avrnet import AVRNet
from pyannote_av.clustering.cysmsd import CYSMSD
from pyannote_av.models.active_speaker.lightasd import LightASD
from pyannote_av.models.embedding.campplus import CAMPPlus
from pyannote_av.sharing.export import files
from pyannote_av.sharing.export.files import ParityError, export, graphs_of, load
from pyannote_av.sharing.export.graph import TOLERANCE, Graph, session

TINY = {
    "acoustic_layers": 0,
    "visual_layers": 0,
    "disa_layers": 1,
    "visual": "compact",
    "face_size": 28,
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


def waken(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """With statistics of normalisation as if it had been trained: what comes out varies."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.named_buffers():
        if name.endswith("running_var"):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    return model.eval()


def check(model, folder) -> dict:
    """Export, and read what is said of the graphs."""
    description = json.loads(export(model, folder).read_text())
    for graph in description["graphs"].values():
        assert (folder / graph["file"]).is_file()
        assert graph["parity"]["largest_difference"] <= TOLERANCE
    return description["graphs"]


def run(path, inputs: dict[str, torch.Tensor]) -> list[np.ndarray]:
    graph = session(path.read_bytes())
    names = [one.name for one in graph.get_inputs()]
    return graph.run(None, {name: inputs[name].numpy() for name in names})


@pytest.mark.slow
def test_visual_features_of_hmsanet(tmp_path, monkeypatch):
    """The smaller one of its graphs: the other one takes a minute to convert."""
    monkeypatch.setattr(files, "graphs_of", lambda model: graphs_of(model)[1:])
    assert set(check(build_hmsanet(**TINY), tmp_path)) == {"visual_features"}


@pytest.mark.slow
@torch.inference_mode()
def test_hmsanet(tmp_path):
    """By hand, too: any number of speakers and frames, padding, no faces at all."""
    model = build_hmsanet(**TINY)
    graphs = check(model, tmp_path)
    assert set(graphs) == {"logits", "visual_features"}
    shapes = {one["name"]: one["shape"] for one in graphs["logits"]["inputs"]}
    assert shapes["faces"][:2] == ["batch", "targets"]
    assert all(isinstance(size, str) for size in shapes["faces"][:3])

    for batch, targets, frames in ((1, 1, 12), (2, 6, 40), (1, 2, 300)):
        data = hmsanet_inputs(batch, targets, frames, seed=1)
        data["frame_mask"] = torch.ones(batch, frames, dtype=torch.bool)
        expected = model.predict(**data).logits.numpy()
        (found,) = run(tmp_path / "logits.onnx", data)
        assert np.abs(found - expected).max() < TOLERANCE

        # without faces it is the audio-only path; and what faces hold is not read
        blind = {**data, "face_mask": torch.zeros_like(data["face_mask"])}
        blind["faces"] = torch.full_like(data["faces"], 7.0)
        (found,) = run(tmp_path / "logits.onnx", blind)
        alone = {k: v for k, v in data.items() if not k.startswith("face")}
        assert np.abs(found - model.predict(**alone).logits.numpy()).max() < TOLERANCE

        # three frames of padding and a target of padding change nothing, but are 0
        real = frames - 3
        short = {**data, "target_mask": data["target_mask"].clone()}
        short["target_mask"][:, 1:] = False
        short["frame_mask"] = torch.arange(frames).expand(batch, -1) < real
        (found,) = run(tmp_path / "logits.onnx", short)
        assert not found[:, 1:].any()
        assert not found[..., 4 * real :].any()
        cut = {k: v[:, :1] for k, v in data.items() if k in ("faces", "face_mask", "voiceprints")}
        cut = {k: v[:, :, :real] if "face" in k else v for k, v in cut.items()}
        cut |= {"waveforms": data["waveforms"][..., : 640 * real]}
        cut |= {"speaker_features": data["speaker_features"][:, : -(-real // 4)]}
        expected = model.predict(**cut).logits.numpy()
        assert np.abs(found[:, :1, : 4 * real] - expected).max() < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(
    "hparams",
    [
        {"visual": "lrasd"},
        {"visual": "resnet", "fusion": "attention"},
        {"fusion": "concat", "decoder": "mean"},
        {"decoder": "none"},
        {"decoder": "fixed", "max_targets": 4},
        {"speaker_reach": 1},
        {"first_pass": True},
    ],
)
def test_variants_of_hmsanet(hparams, tmp_path):
    check(build_hmsanet(**hparams), tmp_path)


@pytest.mark.parametrize(
    "kind",
    [
        "gmu",
        *(pytest.param(k, marks=pytest.mark.slow) for k in ("one order", "learnable", "dimnet")),
    ],
)
def test_relation_of_embeddings(kind, tmp_path):
    assert set(check(build_relation(kind), tmp_path)) == {"relate"}


@pytest.mark.parametrize("counter", ["mean", pytest.param("tree", marks=pytest.mark.slow)])
def test_cysmsd(counter, tmp_path):
    torch.manual_seed(0)
    model = CYSMSD(voice_dimension=16, face_dimension=8, width=32, counter=counter).eval()
    graphs = check(model, tmp_path)
    said = [one["name"] for one in graphs["windows"]["outputs"]]
    assert said[:2] == ["embeddings", "activity_logits"]
    assert ("count" in said) == (counter == "mean")
    assert ("count" in graphs) == (counter == "tree")


@pytest.mark.slow
def test_light_asd(tmp_path):
    torch.manual_seed(0)
    graphs = check(waken(LightASD()), tmp_path)
    assert set(graphs) == {"acoustic_features", "visual_features", "fuse"}


def test_segmentation_of_pyannote(tmp_path):
    graphs = check(load("segmentation-3.0"), tmp_path)
    assert graphs["scores"]["inputs"][0]["shape"] == ["batch", 1, "samples"]


class Shallow(CAMPPlus):
    """With fewer layers, which take long to convert."""

    BLOCKS = ((2, 1), (1, 2))


@pytest.mark.slow
@torch.inference_mode()
def test_voices_of_campplus(tmp_path):
    """Features, then speakers: through both graphs."""
    torch.manual_seed(0)
    model = waken(Shallow(growth=8, channels=16))
    assert set(check(model, tmp_path)) == {"frame_features", "pool"}
    waveforms = 0.1 * torch.randn(2, 1, 20000)
    (features,) = run(tmp_path / "frame_features.onnx", {"waveforms": waveforms})
    weights = torch.zeros(2, 3, features.shape[-1])
    weights[:, 0], weights[:, 1, 5:30] = 1.0, 0.7
    given = {"features": torch.from_numpy(features), "weights": weights}
    (found,) = run(tmp_path / "pool.onnx", given)
    expected = model(waveforms, weights).numpy()
    assert np.isnan(found[:, 2]).all()
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


@pytest.mark.slow
def test_public_weights_of_campplus(tmp_path):
    check(load("campplus"), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("hparams", [{}, {"fusion": "embedding", "siamese": False}])
def test_avrnet(hparams, tmp_path):
    torch.manual_seed(0)
    model = waken(AVRNet(**hparams))
    with torch.no_grad():  # scores of chance are so near to 0 that all would agree
        model.relation.classifier[-1].weight.mul_(0.01)
    relate = graphs_of(model)[-1]
    pairs = relate.inputs({"pairs": 8}, torch.Generator().manual_seed(0)).values()
    with torch.inference_mode():
        assert relate.reference(*pairs).std() > 10 * TOLERANCE
    assert set(check(model, tmp_path)) == {"audio_map", "face_map", "relate"}


@pytest.mark.slow
def test_graph_that_differs_is_not_written(tmp_path, monkeypatch):
    """Say of weights that have changed since."""
    model = build_relation("gmu")

    def changed(model) -> list[Graph]:
        (graph,) = graphs_of(model)
        content = graph.convert()
        with torch.no_grad():
            model.slope.mul_(1.1)
        return [Graph(graph.name, graph.reference, graph.inputs, graph.sizes, lambda: content)]

    monkeypatch.setattr(files, "graphs_of", changed)
    with pytest.raises(ParityError, match=r"relate.*FusedEmbeddings"):
        export(model, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_what_cannot_be_converted():
    with pytest.raises(ValueError, match="CAMPPlus"):
        graphs_of(load_plain())


def load_plain():
    """A model of pyannote.audio that embeds."""
    from pyannote.audio.core.task import Problem, Resolution, Specifications
    from pyannote.audio.models.embedding import XVectorSincNet

    model = XVectorSincNet()
    model.specifications = Specifications(
        problem=Problem.REPRESENTATION, resolution=Resolution.CHUNK, duration=1.0
    )
    return model


def test_command(tmp_path):
    from pyannote_av.cli.export import command

    app = typer.Typer()
    app.command()(command)
    path = build_relation("dimnet").save(tmp_path)
    result = CliRunner().invoke(app, [str(path), "--into", str(tmp_path / "onnx")])
    assert result.exit_code == 0, result.output
    assert "relate.onnx" in result.output
    assert {one.name for one in (tmp_path / "onnx").iterdir()} == {"relate.onnx", "export.json"}
    result = CliRunner().invoke(app, [str(tmp_path / "none"), "--into", str(tmp_path / "no")])
    assert result.exit_code == 1
    assert result.output.startswith("error: ")
