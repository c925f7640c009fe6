"""``pyannote-av import-checkpoint``: what it writes, and what it says when it writes nothing."""

import authors
import pytest
import torch
from test_lightasd import authors_weights
from typer.testing import CliRunner

from pyannote_av.clustering.avrnet import AVRNet
from pyannote_av.core.model import Model
from pyannote_av.models.active_speaker.lightasd import LightASD
from pyannote_av.models.importers import import_checkpoint


def run(*arguments):
    import typer

    from pyannote_av.cli.import_checkpoint import command

    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_file_of_ours(tmp_path):
    state = authors_weights()
    torch.save(state, tmp_path / "some.model")
    result = run(tmp_path / "some.model", "--into", tmp_path / "new" / "light.safetensors")
    assert result.exit_code == 0, result.output
    for word in ("LightASD", "192 tensors", "1,021,636 parameters"):
        assert word in result.output
    model = Model.from_pretrained(tmp_path / "new" / "light.safetensors")
    expected = import_checkpoint(tmp_path / "some.model", LightASD).state_dict()
    assert len(expected) == len(state)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--per-clip"]])
def test_faces_of_a_scene_are_joined_unless_told_otherwise(tmp_path, options):
    torch.save(authors.made_up(authors.loconet()), tmp_path / "some.model")
    result = run(tmp_path / "some.model", "--into", tmp_path / "loconet.safetensors", *options)
    assert result.exit_code == 0, result.output
    model = Model.from_pretrained(tmp_path / "loconet.safetensors")
    assert model.visual.per_clip_conv3d == bool(options)


def test_a_network_without_this_choice(tmp_path):
    torch.save(authors_weights(), tmp_path / "some.model")
    result = run(tmp_path / "some.model", "--into", tmp_path / "a.safetensors", "--per-clip")
    assert result.exit_code == 1
    assert "LightASD has no per_clip_conv3d" in result.output


@pytest.mark.slow
def test_backbones_alone(tmp_path):
    from test_avrnet import authors_weights, backbones

    audio, faces = backbones(authors_weights(), tmp_path)
    result = run(audio, "--faces", faces, "--into", tmp_path / "avrnet.safetensors")
    assert result.exit_code == 0, result.output
    found = Model.from_pretrained(tmp_path / "avrnet.safetensors")
    expected = AVRNet.from_backbones(audio, faces)
    for name, tensor in expected.visual.state_dict().items():
        assert torch.equal(found.visual.state_dict()[name], tensor), name


@pytest.mark.parametrize("options", [["--network", "loconet"], ["--per-clip"]])
def test_only_avrnet_has_backbones(tmp_path, options):
    given = tmp_path / "audio.pth", "--faces", tmp_path / "faces.pth", *options
    result = run(*given, "--into", tmp_path / "a.safetensors")
    assert result.exit_code == 1
    assert "--faces is for avr-net alone" in result.output


@pytest.mark.parametrize("options", [[], ["--network", "light-asd"]])
def test_every_misfit_is_named(tmp_path, options):
    state = authors_weights()
    del state["lossAV.FC.bias"], state["model.GRU.gru_forward.bias_ih_l0"]
    state["something.else"] = state["another.one"] = torch.zeros(1)
    state["lossV.FC.bias"] = torch.zeros(3)
    torch.save(state, tmp_path / "wrong.model")
    result = run(tmp_path / "wrong.model", "--into", tmp_path / "light.safetensors", *options)
    assert result.exit_code == 1
    missing, unexpected = ("classifier.bias", "decoder.past.bias_ih_l0"), ("something", "another")
    for name in (*missing, *unexpected, "lossV.FC.bias", "wrong.model"):
        assert name in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["wrong.model"]


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (None, []),
        (b"no checkpoint", []),
        ([1, 2], []),
        ({}, ["--network", "nobody"]),
        ({"weight": torch.zeros(2)}, ["--network", "lr-asd"]),
    ],
)
def test_what_is_no_checkpoint(tmp_path, content, options):
    path = tmp_path / "some.model"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    before = list(tmp_path.iterdir())
    result = run(path, "--into", tmp_path / "light.safetensors", *options)
    assert result.exit_code == 1
    assert result.output.startswith("error: ")
    assert list(tmp_path.iterdir()) == before


def test_nothing_but_safetensors_is_written(tmp_path):
    torch.save(authors_weights(), tmp_path / "some.model")
    result = run(tmp_path / "some.model", "--into", tmp_path / "light.pt")
    assert result.exit_code == 1
    assert "safetensors" in result.output
    assert len(list(tmp_path.iterdir())) == 1
