"""``pyannote-av apply``: diarize files, folders or lists of files."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

logger = logging.getLogger(__name__)

#: suffixes that are picked up in folders
MEDIA = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".mpg", ".ts", ".m4v")
MEDIA += (".wav", ".flac", ".mp3", ".m4a", ".ogg")


def expand(inputs: Iterable[Path]) -> list[Path]:
    """Files named by `inputs`: themselves, the media of folders, the lines of ``.txt``/``.lst``."""
    files: list[Path] = []
    for path in inputs:
        if path.is_dir():
            files += sorted(f for f in path.iterdir() if f.suffix.lower() in MEDIA)
        elif path.suffix in {".txt", ".lst"} and path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            files += [path.parent / line.strip() for line in lines if line.strip()]
        else:
            files.append(path)
    return list(dict.fromkeys(files))


def unique_names(files: Sequence[Path], known: Mapping[str, str] | None = None) -> dict[Path, str]:
    """Output name of every file: its stem, or its name and folder where stems collide.

    Parameters
    ----------
    files : sequence of Path
    known : dict of name to absolute path, optional
        Names given before: they stay, and are given to no other file.
    """
    taken = dict(known or {})
    names: dict[Path, str] = {}
    for path in files:
        whole = str(path.resolve())
        candidates = [path.stem, path.name, f"{path.resolve().parent.name}_{path.name}"]
        candidates += [f"{candidates[-1]}_{i}" for i in range(2, len(files) + len(taken) + 3)]
        candidates = [name.replace("..", "_") for name in candidates]
        names[path] = next(name for name in candidates if taken.setdefault(name, whole) == whole)
    return names


def apply_all(
    files: Sequence[Path],
    into: Path,
    pipeline: str = "late_fusion",
    formats: Sequence[str] = ("rttm", "json"),
    overwrite: bool = False,
    device: str = "cpu",
    tell: Callable[[str], Any] = logger.info,
    progress: bool = False,
    **bounds: int | None,
) -> dict[Path, str]:
    """Diarize many files; one that fails never stops the others.

    Parameters
    ----------
    files : sequence of Path
    into : Path
        Folder of the outputs, ``<name>.rttm`` and ``<name>.json``.
    pipeline : str, optional
        Whatever ``Pipeline.from_pretrained`` takes.
    formats : sequence of {"rttm", "json"}, optional
    overwrite : bool, optional
        Do files again whose outputs are complete.
    device : str, optional
    tell : callable, optional
        Called with one line per file.
    progress : bool, optional
        Show bars for what is being done with the current file.
    **bounds
        ``num_speakers``, ``min_speakers``, ``max_speakers``.

    Returns
    -------
    failures : dict of path to message
    """
    from pyannote.audio.pipelines.utils.hook import ProgressHook

    from pyannote_av.core.atomic import write_text
    from pyannote_av.formats.json import write_json
    from pyannote_av.formats.rttm import write_rttm

    # which file each name stands for: another run may bring others of the same name
    index = into / "files.json"
    known = json.loads(index.read_text(encoding="utf-8")) if index.is_file() else {}
    names = unique_names(files, known)
    known |= {name: str(path.resolve()) for path, name in names.items()}
    write_text(index, json.dumps(known, indent=1) + "\n")

    failures: dict[Path, str] = {}
    loaded = None
    bounds = {name: value for name, value in bounds.items() if value is not None}
    for i, (path, name) in enumerate(names.items(), start=1):
        head = f"[{i}/{len(files)}] {path}"
        targets = {kind: into / f"{name}.{kind}" for kind in formats}
        if not overwrite and all(target.is_file() for target in targets.values()):
            tell(f"{head}: done before, skipped (--overwrite does it again)")
            continue
        try:
            if loaded is None:
                import torch

                from pyannote_av import Pipeline

                loaded = Pipeline.from_pretrained(pipeline)
                loaded.to(torch.device(device))
            with ProgressHook(transient=True, hidden=not progress) as hook:
                shown = {"hook": hook} if progress else {}
                output = loaded({"video": str(path), "uri": name}, **bounds, **shown)
            turns = getattr(output, "speaker_diarization", output)
            if "rttm" in targets:
                write_rttm(turns, targets["rttm"])
            if "json" in targets:
                write_json(output, targets["json"])
        except Exception as error:
            if loaded is None:
                raise
            logger.debug("%s failed", path, exc_info=True)
            failures[path] = f"{type(error).__name__}: {error}"
            tell(f"{head}: FAILED: {error}")
            continue
        report = getattr(output, "report", None)
        used = " with the picture" if report is not None and report.video_used else ""
        tell(f"{head}: {len(turns.labels())} speakers{used} -> {into / name}")
        for problem in report.problems if report is not None else []:
            tell(f"    {problem}")
    return failures


def command(
    inputs: Annotated[list[Path], typer.Argument(help="Files, folders, or lists (.txt, .lst).")],
    into: Annotated[Path, typer.Option(help="Folder of the outputs.")],
    pipeline: Annotated[
        str, typer.Option(help="Shipped name, folder, YAML file or hub identifier.")
    ] = "late_fusion",
    format: Annotated[str, typer.Option(help="Comma-separated: rttm, json.")] = "rttm,json",
    num_speakers: Annotated[int | None, typer.Option(min=1, help="Number, when known.")] = None,
    min_speakers: Annotated[int | None, typer.Option(min=1, help="At least so many.")] = None,
    max_speakers: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Do complete files again.")] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
) -> None:
    """Diarize videos (and audio files): DIR/<name>.rttm and DIR/<name>.json.

    Example: pyannote-av apply interview.mp4 talks/ --into output --num-speakers 2
    """
    from pyannote_av.core.atomic import write_text

    formats = [name.strip() for name in format.split(",")]
    if unknown := set(formats) - {"rttm", "json"}:
        raise typer.BadParameter(f"unknown format: {', '.join(sorted(unknown))}")
    files = expand(inputs)
    if not files:
        raise typer.BadParameter("no media files there")
    into.mkdir(parents=True, exist_ok=True)
    bounds = {
        "num_speakers": num_speakers,
        "min_speakers": min_speakers,
        "max_speakers": max_speakers,
    }
    try:
        failures = apply_all(
            *(files, into, pipeline, formats, overwrite, device),
            tell=typer.echo,
            progress=sys.stderr.isatty(),
            **bounds,
        )
    except (OSError, ValueError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    (into / "failures.json").unlink(missing_ok=True)
    if failures:
        why = {str(path): message for path, message in failures.items()}
        write_text(into / "failures.json", json.dumps(why, indent=1) + "\n")
        typer.echo(f"{len(failures)} of {len(files)} files failed, see {into}/failures.json")
        raise typer.Exit(1)
