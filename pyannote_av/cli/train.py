"""``pyannote-av train``: train or fine-tune a model on a protocol."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pyannote_av.cli import _engine
from pyannote_av.cli._output import say

if TYPE_CHECKING:
    from pyannote_av.training import TrainingConfig


def report(folder: Path) -> list[str]:
    """Summaries of the stages in a folder, one line each.

    Raises
    ------
    ReadError
        If a ``stage.json`` is not the record of a stage.
    """
    from pyannote_av.core.reading import read_json, refusing

    lines = []
    for path in sorted(folder.glob("*/stage.json")):
        record = read_json(path, nan=True)
        with refusing(path, "not the record of a stage"):
            done, pace = record["lineage"][-1], record["pace"]
            others = {"stage", "seed", "steps", "epochs", "epoch"}
            best = [f"{name} {value:.4f}" for name, value in done.items() if name not in others]
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
        Path | None, typer.Argument(help="YAML file that describes the training.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Changes to the file, as key=value, such as trainer.devices=4."),
    ] = None,
    keys: Annotated[bool, typer.Option("--keys", help="List all keys of the YAML file.")] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Print the resulting configuration, and check it with its data and its model. "
            "Nothing is trained or written.",
        ),
    ] = False,
    database: _engine.Database = None,
    trust: _engine.Trust = False,
) -> None:
    """Train or fine-tune a model, as described by a YAML file.

    Weights, records and logs are written to the folder `into` of the file. After an interruption,
    run the same command again: training continues after the last complete epoch and gives the same
    result. To use several devices or machines, only change the keys of `trainer`.

    Example: pyannote-av train recipes/simulated/train/hmsanet.yaml trainer.precision=bf16-mixed
    """
    import warnings

    from pyannote_av.training.config import TrainingConfig
    from pyannote_av.training.config import keys as all_keys

    if keys:
        say(all_keys())
        return
    if config is None:
        raise typer.BadParameter("give a YAML file, or --keys")
    # show former names of parameters to users, as Python does not by default
    warnings.filterwarnings("always", ".* is now ", DeprecationWarning)
    try:
        given = [] if database is None else [f"database={json.dumps(str(database))}"]
        wanted = TrainingConfig.read(config, [*(overrides or ()), *given])
        if check:
            import yaml

            from pyannote_av.training.from_config import check as check_all

            say(yaml.safe_dump(wanted.to_dict(), sort_keys=False), nl=False)
            check_all(wanted, trust)
            return
        _train(wanted, trust)
    except (OSError, ValueError, RuntimeError) as error:
        say(f"error: {error}", err=True)
        raise typer.Exit(1) from error


def _train(config: TrainingConfig, trust: bool) -> None:
    import logging

    from lightning.pytorch.utilities import rank_zero_only

    from pyannote_av.training import train

    # hide Lightning's messages about available devices
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    quiet: dict[str, Any] = {"enable_progress_bar": sys.stderr.isatty()}
    config = config.model_copy(update={"trainer": {**quiet, **config.trainer}})
    train(config, trust)
    if rank_zero_only.rank == 0:
        for line in report(config.into):
            say(line)
        say(f"weights: {config.into / 'model.safetensors'}")
