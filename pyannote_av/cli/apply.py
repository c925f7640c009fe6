"""``pyannote-av apply``: diarize files, folders or lists of files."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pyannote_av.cli import _engine
from pyannote_av.pretrained import DEFAULT

if TYPE_CHECKING:
    from pyannote_av.collection.engines import Engine
    from pyannote_av.collection.run import CollectionReport, Limits

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
    pipeline: str = DEFAULT,
    formats: Sequence[str] = ("rttm", "json"),
    overwrite: bool = False,
    device: str = "cpu",
    tell: Callable[[str], Any] = logger.info,
    progress: bool = False,
    engine: Engine | None = None,
    limits: Limits | None = None,
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
        Show bars.
    engine : Engine, optional
        What does the work; this process unless given, which a file can hang.
    limits : Limits, optional
        Of time and attempts.
    **bounds
        ``num_speakers``, ``min_speakers``, ``max_speakers``.

    Returns
    -------
    failures : dict of path to message
    """
    from pyannote_av.collection.diarization import Diarize
    from pyannote_av.collection.engines import Engine
    from pyannote_av.collection.jobs import Job, Made
    from pyannote_av.collection.run import process
    from pyannote_av.core.atomic import write_text

    # which file each name stands for: another run may bring others of the same name
    index = into / "files.json"
    known = json.loads(index.read_text(encoding="utf-8")) if index.is_file() else {}
    names = unique_names(files, known)
    known |= {name: str(path.resolve()) for path, name in names.items()}
    write_text(index, json.dumps(known, indent=1) + "\n")

    work = Diarize(pipeline, formats, device)
    options = {name: value for name, value in bounds.items() if value is not None}
    jobs, heads = [], {}
    for i, (path, name) in enumerate(names.items(), start=1):
        heads[name] = f"[{i}/{len(files)}] {path}"
        if not overwrite and all((into / f"{name}.{kind}").is_file() for kind in formats):
            tell(f"{heads[name]}: done before, skipped (--overwrite does it again)")
        else:
            jobs.append(Job(name, {"video": str(path)}, options))

    def say(job: Job, result: Any, final: bool) -> None:
        if isinstance(result, Made):
            tell(f"{heads[job.name]}: {result.note} -> {into / job.name}")
            for problem in result.problems:
                tell(f"    {problem}")
        else:
            again = "" if final else " (tried again)"
            tell(f"{heads[job.name]}: FAILED{again}: {result.reason}")

    engine = engine or Engine(workers=0)
    report = process(work, jobs, into, engine, limits, False, progress=progress, tell=say)
    return {path: report.failed[name] for path, name in names.items() if name in report.failed}


def apply_manifest(
    manifest: Path,
    into: Path,
    pipeline: str = DEFAULT,
    formats: Sequence[str] = ("rttm", "json"),
    overwrite: bool = False,
    device: str = "cpu",
    tell: Callable[[str], Any] = logger.info,
    progress: bool = False,
    engine: Engine | None = None,
    limits: Limits | None = None,
    **bounds: int | None,
) -> CollectionReport:
    """Diarize the files of a list, each once; see :func:`apply_all` for the other parameters.

    Parameters
    ----------
    manifest : Path
        See :mod:`pyannote_av.collection.manifest`; its numbers of speakers go before `bounds`.
    into : Path
        Folder of the outputs, ``<uri>.rttm`` and ``<uri>.json``, and of what is known of them.
    overwrite : bool, optional
        Do everything again.
    """
    from dataclasses import replace

    from pyannote_av.collection.diarization import Diarize
    from pyannote_av.collection.jobs import Job, Made
    from pyannote_av.collection.manifest import read_manifest
    from pyannote_av.collection.run import process

    options = {name: value for name, value in bounds.items() if value is not None}
    jobs = [replace(job, options={**options, **job.options}) for job in read_manifest(manifest)]

    def say(job: Job, result: Any, final: bool) -> None:
        if isinstance(result, Made):
            if not progress:
                tell(f"{job.name}: {result.note}")
        else:
            tell(f"{job.name}: FAILED{'' if final else ' (tried again)'}: {result.reason}")

    work = Diarize(pipeline, formats, device)
    return process(work, jobs, into, engine, limits, again=overwrite, progress=progress, tell=say)


def command(
    into: Annotated[Path, typer.Option(help="Folder of the outputs.")],
    inputs: Annotated[
        list[Path] | None, typer.Argument(help="Files, folders, or lists (.txt, .lst).")
    ] = None,
    manifest: _engine.Manifest = None,
    pipeline: Annotated[
        str, typer.Option(help="Shipped name, folder, YAML file or hub identifier.")
    ] = DEFAULT,
    format: Annotated[str, typer.Option(help="Comma-separated: rttm, json.")] = "rttm,json",
    num_speakers: Annotated[int | None, typer.Option(min=1, help="Number, when known.")] = None,
    min_speakers: Annotated[int | None, typer.Option(min=1, help="At least so many.")] = None,
    max_speakers: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Do complete files again.")] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    engine: _engine.EngineName = "local",
    workers: _engine.Workers = 1,
    timeout: _engine.Timeout = None,
    retries: _engine.Retries = 1,
    retry_failed: _engine.RetryFailed = False,
    address: _engine.Address = None,
    gpus_per_worker: _engine.Gpus = 0.0,
) -> None:
    """Diarize videos (and audio files): DIR/<name>.rttm and DIR/<name>.json.

    With a manifest, each of its files is done once, whatever happens in between: started again, it
    goes on where it was.

    Example: pyannote-av apply interview.mp4 talks/ --into output --num-speakers 2

    Example: pyannote-av apply --manifest list.csv --into output --workers 8
    """
    from pyannote_av.collection.run import Limits
    from pyannote_av.core.atomic import write_text

    formats = [name.strip() for name in format.split(",")]
    if unknown := set(formats) - {"rttm", "json"}:
        raise typer.BadParameter(f"unknown format: {', '.join(sorted(unknown))}")
    if bool(inputs) == (manifest is not None):
        raise typer.BadParameter("give files, or --manifest")
    files = expand(inputs or ())
    if manifest is None and not files:
        raise typer.BadParameter("no media files there")
    options = {
        "pipeline": pipeline,
        "formats": formats,
        "overwrite": overwrite,
        "device": device,
        "tell": typer.echo,
        "progress": sys.stderr.isatty(),
        "limits": Limits(timeout, retries, retry_failed),
        "num_speakers": num_speakers,
        "min_speakers": min_speakers,
        "max_speakers": max_speakers,
    }
    try:
        options["engine"] = _engine.make_engine(engine, workers, address, gpus_per_worker, device)
        if manifest is not None:
            report = apply_manifest(manifest, into, **options)
            failures, number = report.failed, _summary(report, into)
        else:
            into.mkdir(parents=True, exist_ok=True)
            failures = {str(path): why for path, why in apply_all(files, into, **options).items()}
            number = len(files)
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    (into / "failures.json").unlink(missing_ok=True)
    if failures:
        write_text(into / "failures.json", json.dumps(failures, indent=1) + "\n")
        typer.echo(f"{len(failures)} of {number} files failed, see {into}/failures.json")
        raise typer.Exit(1)


def _summary(report: CollectionReport, into: Path) -> int:
    """Say what became of the files; returns how many there are"""
    done, kept, failed = len(report.done), len(report.kept), len(report.failed)
    typer.echo(f"{into}: {done} files done, {kept} done before, {failed} failed")
    return done + kept + failed
