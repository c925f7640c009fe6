"""``pyannote-av import-checkpoint``: convert weights published by the authors of a network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pyannote_av.cli import _engine
from pyannote_av.cli._output import say


def command(
    checkpoint: Annotated[
        Path, typer.Argument(help="Checkpoint published by the authors (.model, .pt, .ckpt).")
    ],
    into: Annotated[Path, typer.Option("--into", "-o", help="Output file (.safetensors).")],
    network: Annotated[
        str | None,
        typer.Option(help="Name of the network. Default: recognised from the tensors."),
    ] = None,
    faces: Annotated[
        Path | None,
        typer.Option(
            help="AVR-Net: CHECKPOINT holds the audio backbone alone, and this file the face "
            "backbone (such as backbone_audio.pth and backbone_faces.pth). What compares is random "
            "and has to be trained."
        ),
    ] = None,
    per_clip: Annotated[
        bool,
        typer.Option(
            "--per-clip",
            help="LoCoNet: process each face as a separate clip. Without it, the first convolution "
            "joins the faces of a scene in time, as in the authors' code, and scores are theirs.",
        ),
    ] = False,
    trust: _engine.Trust = False,
) -> None:
    """Convert the published checkpoint of a network to a file that from_pretrained can read.

    No code in the checkpoint is executed unless --trust is given. If weights do not fit the
    network, each of them is named and nothing is written.

    Example: pyannote-av import-checkpoint finetuning_TalkSet.model --into lr_asd.safetensors
    """
    from pyannote_av.models.importers import import_checkpoint

    if into.suffix != ".safetensors":
        say(f"error: --into takes a .safetensors file, not {into}", err=True)
        raise typer.Exit(1)
    try:
        hparams = {"per_clip_conv3d": True} if per_clip else None
        if faces is None:
            model = import_checkpoint(checkpoint, network, trust, hparams)
        elif network not in (None, "avr-net") or per_clip:
            raise ValueError("--faces is for avr-net alone")
        else:
            from pyannote_av.clustering.avrnet import AVRNet

            model = AVRNet.from_backbones(checkpoint, faces, trust)
        path = model.save(into)
    except (OSError, ValueError) as error:
        say(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    tensors = len(model.state_dict())
    parameters = sum(parameter.numel() for parameter in model.parameters())
    say(f"{path}: {type(model).__name__}, {tensors} tensors, {parameters:,} parameters")
