"""``pyannote-av train``: train or fine-tune a model on a protocol."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pyannote_av.cli import _engine
from pyannote_av.cli._output import say

if TYPE_CHECKING:
    from pyannote_av.training import TrainingConfig


def report(folder: Path) -> list[str]:
    """What there is to say of the stages in a folder, a line each.

    Raises
    ------
    ReadError
        When a record of a stage is none.
    """
    from pyannote_av.core.reading import read_json, refusing

    lines = []
    for path in sorted(folder.glob("*/stage.json")):
        record = read_json(path, nan=True)
        with refusing(path, "not the record of a stage"):
            done, pace = record["lineage"][-1], record["pace"]
            told = {"stage", "seed", "steps", "epochs", "epoch"}
            best = [f"{name} {value:.4f}" for name, value in done.items() if name not in told]
            at = f" in epoch {done['epoch']}" if "epoch" in done else ""
            lines.append(
                f"{path.parent.name}: {done['steps']} steps, {done['epochs']} epochs"
                + (f", best {', '.join(best)}{at}" if best else "")
                + f"; {pace['steps_per_second']:.2f} steps/s, "
                f"{100 * pace['waiting_share']:.0f} % of the time waiting for data"
            )
    return lines


def command(
    config: Annotated[
        Path | None, typer.Argument(help="YAML file: what is trained, on what, and how.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value, such as trainer.devices=4")
    ] = None,
    keys: Annotated[bool, typer.Option("--keys", help="Tell all keys of the YAML file.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Read the file, and print it as it is understood.")
    ] = False,
    trust: _engine.Trust = False,
) -> None:
    """Train or fine-tune a model: weights, records and logs are in the folder `into` of the file.

    Started again, it goes on at the end of the last epoch, and ends with what it would have ended
    with undisturbed. With several devices or machines, everything else stays as it is.

    Example: pyannote-av train recipes/simulated/train/hmsanet.yaml trainer.precision=bf16-mixed
    """
    from pyannote_av.training.config import TrainingConfig
    from pyannote_av.training.config import keys as all_keys

    if keys:
        say(all_keys())
        return
    if config is None:
        raise typer.BadParameter("give a YAML file, or --keys")
    try:
        wanted = TrainingConfig.read(config, overrides or ())
        if check:
            import yaml

            say(yaml.safe_dump(wanted.to_dict(), sort_keys=False), nl=False)
            return
        _train(wanted, trust)
    except (OSError, ValueError, RuntimeError) as error:
        say(f"error: {error}", err=True)
        raise typer.Exit(1) from error


def _train(config: TrainingConfig, trust: bool) -> None:
    import logging

    from lightning.pytorch.utilities import rank_zero_only

    from pyannote_av.training import train

    # which devices there are is said by those that are used
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    quiet: dict[str, Any] = {"enable_progress_bar": sys.stderr.isatty()}
    config = config.model_copy(update={"trainer": {**quiet, **config.trainer}})
    train(config, trust)
    if rank_zero_only.rank == 0:
        for line in report(config.into):
            say(line)
        say(f"weights: {config.into / 'model.safetensors'}")
