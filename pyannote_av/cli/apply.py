"""``pyannote-av apply``: diarize files, folders or lists of files."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pyannote_av.batch.inputs import expand, split_tracks, transcripts_of, unique_names
from pyannote_av.cli import _engine
from pyannote_av.cli._output import say
from pyannote_av.cli.convert import Names
from pyannote_av.core.counts import speaker_bounds
from pyannote_av.core.files import (
    check_audio_track,
)
from pyannote_av.core.text import printable
from pyannote_av.pretrained import DEFAULT

if TYPE_CHECKING:
    from pyannote_av.batch.diarization import Diarize
    from pyannote_av.batch.engines import Engine
    from pyannote_av.batch.jobs import Job
    from pyannote_av.batch.ledger import Ledger
    from pyannote_av.batch.run import BatchReport, Limits

logger = logging.getLogger(__name__)

_KEPT = "already done, skipped (--overwrite repeats it)"
_OLDER = (
    "done by an older version, which did not record its options; skipped (--overwrite repeats it)"
)


def apply_all(
    files: Sequence[Path],
    into: Path | None,
    pipeline: str = DEFAULT,
    formats: Sequence[str] = ("rttm", "json", "html"),
    overwrite: bool = False,
    device: str = "cpu",
    tell: Callable[[str], Any] = logger.info,
    progress: bool = False,
    engine: Engine | None = None,
    limits: Limits | None = None,
    trust: bool = False,
    audio_track: int | str = "auto",
    names: Mapping[str, str] | None = None,
    transcript: Path | None = None,
    segmentation: str | None = None,
    dry_run: bool = False,
    **bounds: int | None,
) -> dict[Path, str]:
    """Diarize many files, each once. A file that fails never stops the others.

    Parameters
    ----------
    files : sequence of Path
    into : Path or None
        Output folder. It receives ``<name>.rttm``, ``<name>.json``, the page ``<name>.html``, and
        the records of the run. With None, the folder of each file receives its outputs.
    pipeline : str, optional
        Anything that ``Pipeline.from_pretrained`` accepts.
    formats : sequence of str, optional
        Names of formats; see :data:`pyannote_av.batch.diarization.FORMATS`.
    overwrite : bool, optional
        Process finished files again, and replace plain files that pyannote-av did not write.
    device : str, optional
    tell : callable, optional
        Called with one line per file.
    progress : bool, optional
        Show progress bars.
    engine : Engine, optional
        Where the work is done. Defaults to this process, which a bad file can hang.
    limits : Limits, optional
        Time limit and number of attempts per file.
    trust : bool, optional
        Load classes and pickles that the pipeline refers to.
    audio_track : int or str, optional
        See :class:`pyannote_av.Video`. With "each", every audio track of a file is diarized by
        itself, as ``<name>_track<number>``.
    names : mapping of str to str, optional
        New names of speakers, by label.
    transcript : Path, optional
        Transcript of the only file, or a folder with one for each file.
    segmentation : str, optional
        Weights to use in place of those of the pipeline.
    dry_run : bool, optional
        Only tell what would be done with each file. Nothing is written or decoded, and no network
        is loaded.
    **bounds
        ``num_speakers``, ``min_speakers``, ``max_speakers``.

    Returns
    -------
    failures : dict of path to message
        With `dry_run`, files that are refused.

    Raises
    ------
    StartError, OSError, RuntimeError, ValueError
        See :func:`~pyannote_av.batch.run.process`.
    """
    from pyannote_av.batch.diarization import Diarize
    from pyannote_av.batch.engines import Engine
    from pyannote_av.batch.ledger import Ledger

    transcripts = transcripts_of(files, transcript)
    if into is None:
        given = {
            "pipeline": pipeline,
            "formats": formats,
            "overwrite": overwrite,
            "device": device,
            "tell": tell,
            "progress": progress,
            "engine": engine,
            "limits": limits,
            "trust": trust,
            "audio_track": audio_track,
            "names": names,
            "transcript": transcript,
            "segmentation": segmentation,
            "dry_run": dry_run,
            **bounds,
        }
        failed = {}
        for folder, beside in _by_folder(files).items():
            failed |= apply_all(beside, folder, **given)
        return failed
    work = Diarize(pipeline, formats, device, trust, segmentation, names or {}, into)
    options = _given(bounds)
    if dry_run:
        ledger = Ledger(into, work)
        outputs = unique_names(files, ledger.names())
        parts = split_tracks(outputs, audio_track, ledger.names(), progress)
        heads, jobs = _heads(parts), _jobs(parts, options, transcripts)
        refused = _tell_plan(work, jobs, into, tell, heads, limits, overwrite)
        return {parts[name][0]: why for name, why in refused.items()}
    with Ledger(into, work) as ledger:
        # another run may add other files of the same name
        outputs = unique_names(files, ledger.names())
        parts = split_tracks(outputs, audio_track, ledger.names(), progress)
        ledger.remember({name: str(path.resolve()) for name, (path, _) in parts.items()})
        older = set() if overwrite else _done_by_older_versions(ledger, work, outputs)
        heads = _heads(parts)
        for name in parts:
            if name in older:
                tell(_line(f"{heads[name]}: {_OLDER}"))
        jobs = [job for job in _jobs(parts, options, transcripts) if job.name not in older]
        labels = {name: os.path.abspath(path) for name, (path, _) in parts.items()}
        report = _diarize(
            work,
            jobs,
            ledger,
            _Teller(tell, heads, into),
            labels,
            engine=engine or Engine(workers=0),
            limits=limits,
            again=overwrite,
            progress=progress,
        )
    failed = [(path, name) for name, (path, _) in parts.items() if name in report.failed]
    return {path: report.failed[name] for path, name in failed}


def _by_folder(files: Iterable[Path]) -> dict[Path, list[Path]]:
    """Files by the folder that they are in"""
    found: dict[Path, list[Path]] = {}
    for path in files:
        found.setdefault(path.parent, []).append(path)
    return found


def _heads(parts: Mapping[str, tuple[Path, int | str]]) -> dict[str, str]:
    """Beginning of the line about each file, by output name"""
    return {
        name: f"[{i}/{len(parts)}] {path}" for i, (name, (path, _)) in enumerate(parts.items(), 1)
    }


def _jobs(
    parts: Mapping[str, tuple[Path, int | str]],
    options: dict[str, int],
    transcripts: Mapping[Path, Path],
) -> list[Job]:
    """Jobs for the output names"""
    from pyannote_av.batch.jobs import Job

    jobs = []
    for name, (path, track) in parts.items():
        columns: dict[str, Any] = {} if track == "auto" else {"audio_track": track}
        if path in transcripts:
            columns["transcript"] = transcripts[path]
        jobs.append(Job(name, {"video": os.path.abspath(path)}, options, columns))
    return jobs


def _tell_plan(
    work: Diarize,
    jobs: Sequence[Job],
    into: Path,
    tell: Callable[[str], Any],
    heads: Mapping[str, str],
    limits: Limits | None,
    again: bool,
) -> dict[str, str]:
    """Tell what would be done with each file; return the reasons of those that are refused"""
    from pyannote_av.batch.run import plan

    refused = {}
    for job, verdict, why, outputs in plan(work, jobs, into, limits, again):
        head = heads[job.name]
        if verdict == "refused":
            refused[job.name] = why
            tell(_line(f"{head}: would be refused: {why}"))
        elif verdict == "done before":
            tell(_line(f"{head}: already done, would be skipped (--overwrite repeats it)"))
        else:
            places = ", ".join(str(into / output) for output in outputs)
            tell(_line(f"{head}: would be diarized -> {places}"))
    return refused


def apply_manifest(
    manifest: Path,
    into: Path,
    pipeline: str = DEFAULT,
    formats: Sequence[str] = ("rttm", "json", "html"),
    overwrite: bool = False,
    device: str = "cpu",
    tell: Callable[[str], Any] = logger.info,
    progress: bool = False,
    engine: Engine | None = None,
    limits: Limits | None = None,
    trust: bool = False,
    audio_track: int | str = "auto",
    names: Mapping[str, str] | None = None,
    segmentation: str | None = None,
    dry_run: bool = False,
    **bounds: int | None,
) -> BatchReport:
    """Diarize the files of a manifest, each once; see :func:`apply_all` for other parameters.

    Parameters
    ----------
    manifest : Path
        See :mod:`pyannote_av.batch.manifest`. Its numbers of speakers and its audio tracks take
        precedence over `bounds` and `audio_track`.
    engine : Engine, optional
        Where the work is done. Defaults to one process on this machine.
    """
    from dataclasses import replace

    from pyannote_av.batch.diarization import Diarize
    from pyannote_av.batch.ledger import Ledger
    from pyannote_av.batch.manifest import read_manifest

    options = _given(bounds)
    columns = {} if audio_track == "auto" else {"audio_track": audio_track}
    jobs = [
        replace(job, options={**options, **job.options}, columns={**columns, **job.columns})
        for job in read_manifest(manifest)
    ]
    work = Diarize(pipeline, formats, device, trust, segmentation, names or {}, into)
    labels = {job.name: job.name for job in jobs}
    if dry_run:
        from pyannote_av.batch.run import BatchReport

        refused = _tell_plan(work, jobs, into, tell, labels, limits, overwrite)
        return BatchReport(failed=refused)
    with Ledger(into, work) as ledger:
        return _diarize(
            work,
            jobs,
            ledger,
            _Teller(tell, labels, brief=True, quiet=progress),
            labels,
            engine=engine,
            limits=limits,
            again=overwrite,
            progress=progress,
        )


def _diarize(
    work: Diarize,
    jobs: Sequence[Job],
    ledger: Ledger,
    tell: _Teller,
    labels: Mapping[str, str],
    **options: Any,
) -> BatchReport:
    """Process the jobs and write the list of failures, in which files are named by `labels`."""
    from pyannote_av.batch.run import process

    report = process(work, jobs, ledger, tell=tell, **options)
    failed = {labels[name]: why for name, why in report.failed.items()}
    ledger.note_failures(failed, {*labels, *labels.values()})
    return report


@dataclass(frozen=True)
class _Teller:
    """Reports the result of each file in one line, and that of a single file in a few more.

    Attributes
    ----------
    tell : callable
        Called with each line.
    heads : dict of str to str
        Beginning of the line, by name of the file.
    into : Path, optional
        Output folder, shown for each processed file.
    brief : bool
        Do not mention files that were done before, nor the problems found in files.
    quiet : bool
        Report failures only.
    """

    tell: Callable[[str], Any]
    heads: Mapping[str, str]
    into: Path | None = None
    brief: bool = False
    quiet: bool = False

    def __call__(self, job: Job, result: Any, final: bool) -> None:
        """See :func:`~pyannote_av.batch.run.process`."""
        from pyannote_av.batch.jobs import Made

        head = self.heads[job.name]
        if not isinstance(result, Made):
            again = "" if final else " (tried again)"
            self.tell(_line(f"{head}: FAILED{again}: {result.reason}"))
        elif result.kept and not self.brief:
            self.tell(_line(f"{head}: {_KEPT}"))
        elif not result.kept and not self.quiet:
            where = "" if self.into is None else f" -> {self.into / job.name}"
            self.tell(_line(f"{head}: {result.note}{where}"))
            if len(self.heads) == 1:
                for line in result.summary:
                    self.tell(_line(f"    {line}"))
            for problem in () if self.brief else result.problems:
                self.tell(_line(f"    {problem}"))


def _line(text: str) -> str:
    return printable(text, one_line=True)


def _given(bounds: Mapping[str, int | None]) -> dict[str, int]:
    return {name: value for name, value in bounds.items() if value is not None}


def _done_by_older_versions(ledger: Ledger, work: Diarize, names: Mapping[Path, str]) -> set[str]:
    """Names of the complete files written by an older version, which kept no records."""
    from pyannote_av.batch.ledger import read_record
    from pyannote_av.batch.outputs import output_digest, place_of

    def is_there(output: str) -> bool:
        try:
            return bool(output_digest(place_of(ledger.into, output)))
        except (OSError, ValueError):
            return False

    older = ledger.older_names()
    return {
        name
        for path, name in names.items()
        if older.get(name) == str(path.resolve())
        and read_record(ledger.into, name) is None
        and all(map(is_there, work.outputs(name)))
    }


def _complete_pipeline(incomplete: str) -> list[str]:
    """Names of shipped pipelines, for the completion of the shell"""
    from pyannote_av.pretrained import shipped

    return [name for name in sorted(shipped()) if name.startswith(incomplete)]


def _complete_formats(incomplete: str) -> list[str]:
    """Lists of formats that begin with what was typed, for the completion of the shell"""
    from pyannote_av.batch.diarization import FORMATS

    head, comma, last = incomplete.rpartition(",")
    given = head.split(",")
    return [head + comma + one for one in FORMATS if one.startswith(last) and one not in given]


def command(
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(help="Media files, folders of them, or lists of files (.txt, .lst)."),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option("--into", "-o", help="Output folder. Default: the folder of each file."),
    ] = None,
    manifest: _engine.Manifest = None,
    pipeline: Annotated[
        str,
        typer.Option(
            help="Name of a shipped pipeline, pipeline folder, YAML file or hub identifier.",
            autocompletion=_complete_pipeline,
        ),
    ] = DEFAULT,
    format: Annotated[
        str,
        typer.Option(
            help="Output formats, separated by commas: rttm, json, html, csv, parquet, srt, vtt, "
            "textgrid, eaf, audacity, uem, npz, ava, mot; with --transcript also stm, ctm and txt.",
            autocompletion=_complete_formats,
        ),
    ] = "rttm,json,html",
    transcript: Annotated[
        Path | None,
        typer.Option(
            help="Transcript of the file, or a folder with one per file, whose words get speakers: "
            "JSON of Whisper, WhisperX or faster-whisper, SRT, WebVTT, CTM or STM."
        ),
    ] = None,
    names: Names = None,
    num_speakers: Annotated[
        int | None, typer.Option(min=1, help="Number of speakers, if known.")
    ] = None,
    min_speakers: Annotated[
        int | None, typer.Option(min=1, help="Minimum number of speakers.")
    ] = None,
    max_speakers: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of speakers.")
    ] = None,
    audio_track: Annotated[
        str,
        typer.Option(
            help="Audio track of files that have several: auto, mix, the number of a stream, a "
            "language such as deu, or each (one result per track)."
        ),
    ] = "auto",
    overwrite: Annotated[
        bool,
        typer.Option(
            help="Process finished files again, and replace files written by other programs."
        ),
    ] = False,
    device: _engine.Device = "cpu",
    segmentation: Annotated[
        str | None,
        typer.Option(
            help="Weights to use in place of those of the pipeline, such as the output folder of a "
            "training."
        ),
    ] = None,
    engine: _engine.EngineName = "local",
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Number of parallel processes. 0: the current process, without time limits. "
            "Default: 0 for a single file without --timeout, and otherwise 1.",
        ),
    ] = None,
    timeout: _engine.Timeout = None,
    retries: _engine.Retries = 1,
    retry_failed: _engine.RetryFailed = False,
    address: _engine.Address = None,
    gpus_per_worker: _engine.Gpus = 0.0,
    trust: _engine.Trust = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="List what would be done with each file, and write nothing."
        ),
    ] = False,
) -> None:
    """Diarize videos and audio files: write DIR/<name>.rttm, .json and .html for each.

    The HTML page shows the result: see pyannote-av view.

    Each file is processed once. After an interruption, run the same command again to continue.

    Exit codes: 0 if all files are done, 1 if some failed (or would be refused, with --dry-run), 2
    if the command cannot start or go on, 130 after Ctrl-C.

    Example: pyannote-av apply interview.mp4 talks/ --into output --num-speakers 2

    Example: pyannote-av apply talk.mp4 (writes talk.html and others beside it)

    Example: pyannote-av apply --manifest list.csv --into output --workers 8
    """
    from pyannote_av.batch.diarization import FORMATS
    from pyannote_av.batch.ledger import failures_path
    from pyannote_av.batch.run import Limits
    from pyannote_av.formats.speaker_names import parse_names

    formats = list(dict.fromkeys(name.strip().lower() for name in format.split(",")))
    if unknown := set(formats) - set(FORMATS):
        raise typer.BadParameter(
            f"unknown format: {', '.join(sorted(unknown))}; there are {', '.join(FORMATS)}"
        )
    if need := [name for name in formats if name in ("ctm", "txt") and transcript is None]:
        raise typer.BadParameter(f"{need[0]} holds words: give --transcript")
    if transcript is not None and manifest is not None:
        raise typer.BadParameter("--transcript needs files, not a manifest")
    if bool(inputs) == (manifest is not None):
        raise typer.BadParameter("give files, or --manifest")
    try:
        speaker_bounds(num_speakers, min_speakers, max_speakers)
        track = audio_track if audio_track == "each" else check_audio_track(audio_track)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if manifest is not None and into is None:
        raise typer.BadParameter("--manifest needs --into")
    if track == "each" and manifest is not None:
        raise typer.BadParameter("--audio-track each needs files: name the tracks in the manifest")
    try:
        given_names = None if names is None else parse_names(names)
        files = expand(inputs or (), say)
    except (OSError, ValueError) as error:
        say(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    if manifest is None and not files:
        raise typer.BadParameter("no media files found")
    if workers is None:
        alone = engine == "local" and len(files) == 1 and timeout is None
        workers = 0 if alone else 1
    options = {
        "pipeline": pipeline,
        "formats": formats,
        "overwrite": overwrite,
        "device": device,
        "tell": say,
        "progress": sys.stderr.isatty(),
        "limits": Limits(timeout, retries, retry_failed),
        "trust": trust,
        "segmentation": segmentation,
        "audio_track": track,
        "names": given_names,
        "dry_run": dry_run,
        "num_speakers": num_speakers,
        "min_speakers": min_speakers,
        "max_speakers": max_speakers,
    }
    try:
        options["engine"] = _engine.make_engine(engine, workers, address, gpus_per_worker, device)
        if manifest is not None:
            report = apply_manifest(manifest, into, **options)
            failed = len(report.failed)
            number = failed if dry_run else _summary(report, into)
        else:
            failed, number = (
                len(apply_all(files, into, transcript=transcript, **options)),
                len(files),
            )
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        say(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    if dry_run and failed:
        say(f"{failed} file{'s' if failed > 1 else ''} would be refused")
        raise typer.Exit(1)
    if failed:
        where = failures_path(into or Path("FOLDER"))
        say(f"{failed} of {number} files failed, see {where}")
        raise typer.Exit(1)


def _summary(report: BatchReport, into: Path) -> int:
    """Print how many files were done, kept and failed; return their total."""
    done, kept, failed = len(report.done), len(report.kept), len(report.failed)
    say(f"{into}: {done} files done, {kept} done before, {failed} failed")
    return done + kept + failed
