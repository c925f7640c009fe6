"""``pyannote-av evaluate``: score the output of any diarization system."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pyannote_av.cli import _engine
from pyannote_av.cli._output import command_line, say

if TYPE_CHECKING:
    from pyannote.core import Annotation

    from pyannote_av.batch.engines import Engine
    from pyannote_av.batch.jobs import Job
    from pyannote_av.batch.run import Limits
    from pyannote_av.core.tracks import FaceTracks


logger = logging.getLogger(__name__)


def names_of(paths: Sequence[Path]) -> list[str]:
    """Unique names of systems: the stems of their paths, or the paths if stems collide."""
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    if len(set(names)) < len(names):
        raise ValueError("the same hypothesis is given twice")
    return names


def run_pipelines(
    names: Sequence[str],
    files: Sequence[Mapping],
    into: Path,
    device: str = "cpu",
    engine: Engine | None = None,
    limits: Limits | None = None,
    progress: bool = False,
    trust: bool = False,
) -> dict[str, dict[str, Annotation]]:
    """Diarize the files of a protocol with several pipelines. Existing outputs are reused.

    Parameters
    ----------
    names : sequence of str
        Anything that ``Pipeline.from_pretrained`` accepts.
    files : sequence of mapping
    into : Path
        Output folder. It receives a folder of RTTM files for each pipeline.
    device : str, optional
    engine : Engine, optional
        Where the work is done. Defaults to this process.
    limits : Limits, optional
        Time limit and number of attempts per file.
    progress : bool, optional
        Show progress bars.
    trust : bool, optional
        Load classes and pickles that the pipelines refer to.

    Returns
    -------
    systems : dict of str to dict of str to Annotation
        Turns by pipeline and uri.

    Raises
    ------
    ValueError
        If a pipeline fails on a file.
    """
    from urllib.parse import quote

    from pyannote_av.batch.diarization import Diarize, read_turns_of
    from pyannote_av.batch.engines import Engine
    from pyannote_av.batch.run import process

    if len(set(names)) < len(names):
        raise ValueError("the same pipeline is given twice")
    works = {name: Diarize(name, ["rttm"], device, trust) for name in names}
    jobs = [_job(file) for file in files]
    systems = {}
    for name, work in works.items():
        folder = into / quote(name, safe="")
        report = process(work, jobs, folder, engine or Engine(workers=0), limits, progress=progress)
        if report.failed:
            uri, why = next(iter(report.failed.items()))
            more = f", and on {len(report.failed) - 1} more files" if len(report.failed) > 1 else ""
            raise ValueError(f"{name} failed on {uri!r}{more}: {why}")
        systems[name] = {job.name: read_turns_of(folder, job.name) for job in jobs}
    return systems


def _job(file: Mapping) -> Job:
    """Job for a file of a protocol, with the columns that pipelines read."""
    from pyannote_av.batch.jobs import Job

    media = {kind: str(file[kind]) for kind in ("video", "audio") if kind in file}
    names = ("face_tracks", "lab", "diarization", "audio_track")
    columns = {name: file[name] for name in names if name in file}
    return Job(file["uri"], media, columns=columns)


def reference_tracks(files: Sequence[Mapping]) -> dict[str, FaceTracks] | None:
    """Reference face tracks of a protocol, or None if they are incomplete or have no speakers."""
    from pyannote_av.core.tracks import FaceTracks

    found = {}
    for file in files:
        tracks = file.get("face_tracks")
        if tracks is None:
            return None
        found[file["uri"]] = tracks if isinstance(tracks, FaceTracks) else FaceTracks.read(tracks)
    return found if any(tracks.speaker for tracks in found.values()) else None


def command(
    reference: Annotated[
        Path | None, typer.Argument(help="Reference: RTTM file, or folder of RTTM files.")
    ] = None,
    hypothesis: Annotated[
        list[Path] | None, typer.Argument(help="Output of each system: RTTM file or folder.")
    ] = None,
    uem: Annotated[
        Path | None, typer.Option(help="Scored regions: UEM file or folder. Default: whole files.")
    ] = None,
    vad: Annotated[
        Path | None,
        typer.Option(
            help="Speech regions for oracle VAD: LAB file or folder. Default: reference turns."
        ),
    ] = None,
    tracks: Annotated[
        Path | None,
        typer.Option(help="Reference face tracks, to report errors by who is on screen."),
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="Write all results as JSON, including scores per file.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Write all scores as CSV, including scores per file.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Plot the error rates (.png, .svg).")] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Name of a pyannote.database protocol, instead of files.")
    ] = None,
    pipeline: Annotated[
        list[str] | None, typer.Option(help="Pipeline to run on the protocol. Can be repeated.")
    ] = None,
    subset: Annotated[
        str, typer.Option(help="Subset of the protocol: train, development or test.")
    ] = "test",
    database: _engine.Database = None,
    device: _engine.Device = "cpu",
    into: Annotated[
        Path | None,
        typer.Option(
            "--into",
            "-o",
            help="Folder for the RTTM output of the pipelines. Existing output is reused.",
        ),
    ] = None,
    engine: _engine.EngineName = "local",
    workers: _engine.Workers = 1,
    timeout: _engine.Timeout = None,
    retries: _engine.Retries = 1,
    retry_failed: _engine.RetryFailed = False,
    address: _engine.Address = None,
    gpus_per_worker: _engine.Gpus = 0.0,
    trust: _engine.Trust = False,
    lenient: Annotated[
        bool,
        typer.Option(
            help="Repair malformed lines of RTTM, UEM and LAB files, or leave them out, with a "
            "warning."
        ),
    ] = False,
) -> None:
    """Score one or more systems: error rates as reported in papers, and errors by condition.

    Error rates are given with and without collar, and with automatic and oracle voice activity
    detection. If there are several systems, the significance of their differences is tested.

    Example: pyannote-av evaluate reference.rttm audio.rttm late_fusion.rttm --uem test.uem

    Example: pyannote-av evaluate --protocol AMI.SpeakerDiarization.Seats --pipeline late_fusion
    --into hypotheses --workers 8
    """
    from contextlib import nullcontext
    from tempfile import TemporaryDirectory

    from pyannote_av.batch.run import Limits
    from pyannote_av.core.protocols import files_of
    from pyannote_av.evaluation import diarization_report as report
    from pyannote_av.formats.annotations import read_lab, read_reference, read_rttm
    from pyannote_av.formats.tracks import read_tracks

    if protocol is not None or pipeline:
        if protocol is None or not pipeline or reference is not None or uem is not None:
            raise typer.BadParameter(
                "--protocol and --pipeline are used together, and without files"
            )
    elif reference is None or not hypothesis:
        raise typer.BadParameter("give REFERENCE HYPOTHESIS..., or --protocol and --pipeline")
    if engine == "ray" and into is None:
        raise typer.BadParameter("--engine ray needs --into, a folder that all machines see")
    try:
        systems: Mapping[str, Any]
        faces = found = None
        if protocol is not None and pipeline:
            files = files_of(protocol, [subset], database)[subset]
            with nullcontext(into) if into is not None else TemporaryDirectory() as folder:
                systems = run_pipelines(
                    pipeline,
                    files,
                    Path(folder),
                    device,
                    _engine.make_engine(engine, workers, address, gpus_per_worker, device),
                    Limits(timeout, retries, retry_failed),
                    progress=sys.stderr.isatty(),
                    trust=trust,
                )
            references = {file["uri"]: file["annotation"] for file in files}
            maps = {file["uri"]: file["annotated"] for file in files}
            if silent := [uri for uri, turns in references.items() if not turns]:
                logger.warning(
                    "%s: there is no speech in %d files (first: %r). pyannote.database also "
                    "returns no speech if an RTTM file lacks a file; a file that ends in "
                    ".rttm_strict is read strictly",
                    protocol,
                    len(silent),
                    silent[0],
                )
            faces = reference_tracks(files)
            given = any(file.get("face_tracks") is not None for file in files)
            found = "given" if given else "found"
        else:
            references, maps = read_reference(reference, uem, lenient)
            systems = {
                name: read_rttm(path, lenient)
                for name, path in zip(names_of(hypothesis), hypothesis, strict=True)
            }
        speech = read_lab(vad, lenient) if vad is not None else None
        if tracks is not None:
            faces = read_tracks(tracks, sorted(references))
        results, comparisons, tables = report.evaluate_systems(
            references, systems, maps, speech, faces, found
        )
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        say(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    say(report.to_text(results, comparisons, tables))
    if json is not None:
        report.write_json(json, results, comparisons, tables, command_line())
    if csv is not None:
        report.write_csv(csv, results)
    if plot is not None:
        report.plot(results, plot)
