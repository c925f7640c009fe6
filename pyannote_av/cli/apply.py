"""``pyannote-av apply``: diarize files, folders or lists of files."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pyannote_av.cli import _engine
from pyannote_av.cli._output import say
from pyannote_av.cli.convert import Names
from pyannote_av.core.counts import speaker_bounds
from pyannote_av.core.files import (
    AUDIO_SUFFIXES,
    VIDEO_SUFFIXES,
    check_audio_track,
    refuse_address,
)
from pyannote_av.core.text import name_on_any_disk, printable
from pyannote_av.pretrained import DEFAULT

if TYPE_CHECKING:
    from pyannote_av.batch.diarization import Diarize
    from pyannote_av.batch.engines import Engine
    from pyannote_av.batch.jobs import Job
    from pyannote_av.batch.ledger import Ledger
    from pyannote_av.batch.run import BatchReport, Limits

logger = logging.getLogger(__name__)

_MEDIA = {*VIDEO_SUFFIXES, *AUDIO_SUFFIXES}

# suffixes of what lies beside media and is never opened to see whether it is media
_NO_MEDIA = {".txt", ".lst", ".csv", ".tsv", ".json", ".rttm", ".uem", ".stm", ".ctm", ".lab"}
_NO_MEDIA |= {".srt", ".vtt", ".ass", ".eaf", ".textgrid", ".html", ".htm", ".xml", ".yaml", ".yml"}
_NO_MEDIA |= {".md", ".rst", ".py", ".log", ".pdf", ".doc", ".docx", ".xls", ".xlsx", ".parquet"}
_NO_MEDIA |= {".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".svg"}
_NO_MEDIA |= {".zip", ".gz", ".tar", ".7z", ".npz", ".npy", ".pt", ".ckpt", ".exe", ".dll", ".so"}
# containers that are recognised by their content; streams without a container are not
_CONTAINERS = {"mov", "matroska", "avi", "mpegts", "mpeg", "flv", "asf", "ogg", "mxf", "nut", "rm"}
_CONTAINERS |= {"wtv", "wav", "w64", "rf64", "aiff", "au", "caf", "flac", "ivf"}

_KEPT = "already done, skipped (--overwrite repeats it)"
_OLDER = (
    "done by an older version, which did not record its options; skipped (--overwrite repeats it)"
)


def expand(inputs: Iterable[Path], tell: Callable[[str], Any] = logger.warning) -> list[Path]:
    """List the files in `inputs`: plain files, media in folders, lines of ``.txt``/``.lst``.

    Media in folders are found by their suffix. A file with an unknown suffix is media if its header
    is that of a container with video or sound. Left out are files that begin with ``.``, such as
    ``._name``, in which macOS keeps attributes, and videos drawn by ``pyannote-av draw``
    (``NAME.annotated.mp4``). A file that is named twice is listed once.

    Parameters
    ----------
    inputs : iterable of Path
    tell : callable, optional
        Called with one line per folder about what else it holds.
    """
    from pyannote_av.formats.lists import read_paths

    files: list[Path] = []
    for path in inputs:
        refuse_address(path)
        if path.is_dir():
            visible = sorted(one for one in path.iterdir() if not one.name.startswith("."))
            media = [one for one in visible if _is_media(one)]
            files += media
            known = set(media)
            if others := [one.name + "/" * one.is_dir() for one in visible if one not in known]:
                some = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
                tell(_line(f"{path}: {len(others)} left out, not media files: {some}"))
        elif path.suffix.lower() in {".txt", ".lst"} and path.is_file():
            files += read_paths(path)
        else:
            files.append(path)
    # links to one file under other names are files of their own
    once: dict[tuple[Path, str], Path] = {}
    for path in files:
        once.setdefault((path.resolve(), path.name), path)
    return list(once.values())


def _is_media(path: Path) -> bool:
    """Whether a file in a folder is media, by its suffix or else by its header"""
    suffix = path.suffix.lower()
    if path.is_dir() or path.stem.endswith(".annotated"):
        return False
    if suffix in _MEDIA or suffix in _NO_MEDIA:
        return suffix in _MEDIA
    from pyannote_av.core.media import open_media

    try:
        with open(path, "rb") as opened:
            head = opened.read(64)
        # text, and files too short for any container
        if len(head) < 64 or (head.isascii() and head.decode("ascii").isprintable()):
            return False
        with open_media(path) as container:
            kinds = {stream.type for stream in container.streams}
            return container.format.name.split(",")[0] in _CONTAINERS and bool(
                kinds & {"video", "audio"}
            )
    except (OSError, ValueError):
        return False


def unique_names(files: Sequence[Path], known: Mapping[str, str] | None = None) -> dict[Path, str]:
    """Output name of each file: its stem, or its full name and folder if stems collide.

    Names that differ only in case or Unicode form collide, because they are one name on some disks.

    Parameters
    ----------
    files : sequence of Path
    known : dict of name to absolute path, optional
        Names assigned by earlier runs. They are kept and never assigned to another file.
    """
    known = known or {}
    taken = {name_on_any_disk(name): whole for name, whole in known.items()}
    names: dict[Path, str] = {}

    def is_free(name: str, whole: str) -> bool:
        if name in known:
            return known[name] == whole
        return taken.setdefault(name_on_any_disk(name), whole) == whole

    for path in files:
        whole = str(path.resolve())
        candidates = [path.stem, path.name, f"{path.resolve().parent.name}_{path.name}"]
        candidates += [f"{candidates[-1]}_{i}" for i in range(2, len(files) + len(taken) + 3)]
        candidates = [re.sub(r"\.\.|\\|^\s+$", "_", name) for name in candidates]
        names[path] = next(name for name in candidates if is_free(name, whole))
    return names


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


def transcripts_of(files: Sequence[Path], transcript: Path | None) -> dict[Path, Path]:
    """Transcript of each file.

    Parameters
    ----------
    files : sequence of Path
    transcript : Path or None
        Transcript of the only file, or a folder with transcripts named like the files:
        ``talk.json``, ``talk.mp4.json`` or ``talk.whisper.json``, or with another suffix.

    Raises
    ------
    FileNotFoundError
        When there is no transcript of a file.
    ValueError
        When one transcript is given for several files.
    """
    if transcript is None:
        return {}
    from pyannote_av.core.paths import no_such_file
    from pyannote_av.formats.transcripts import SUFFIXES

    transcript = transcript.absolute()
    if not transcript.exists():
        raise FileNotFoundError(no_such_file(transcript))
    if not transcript.is_dir():
        if len(files) != 1:
            raise ValueError(
                f"{transcript} is one transcript for {len(files)} files: give a folder of them"
            )
        return {files[0]: transcript}
    found = {}
    for path in files:
        stems = (path.stem, path.name, f"{path.stem}.whisper")
        candidates = [transcript / f"{stem}{suffix}" for suffix in SUFFIXES for stem in stems]
        there = next((one for one in candidates if one.is_file()), None)
        if there is None:
            raise FileNotFoundError(
                f"no transcript of {path} in {transcript} ({path.stem} with {', '.join(SUFFIXES)})"
            )
        found[path] = there
    return found


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


def split_tracks(
    names: Mapping[Path, str],
    track: int | str,
    known: Mapping[str, str] | None = None,
    progress: bool = False,
) -> dict[str, tuple[Path, int | str]]:
    """File and audio track of each output name: one per file, or one per audio track for "each".

    Parameters
    ----------
    names : dict of path to str
        See :func:`unique_names`.
    track : int or str
        See :func:`apply_all`.
    known : dict of name to absolute path, optional
        Names assigned by earlier runs, never assigned to another file.
    progress : bool, optional
        Whether to show a progress bar.
    """
    if track != "each":
        return {name: (path, track) for path, name in names.items()}
    parts: dict[str, tuple[Path, int | str]] = {}
    taken = {**(known or {}), **{name: str(path.resolve()) for path, name in names.items()}}
    for (path, name), tracks in zip(names.items(), _audio_tracks(names, progress), strict=True):
        if len(tracks) < 2:
            parts[name] = (path, "auto")
            continue
        for index in tracks:
            part, whole = f"{name}_track{index}", str(path.resolve())
            while taken.setdefault(part, whole) != whole:
                part += "_"
            parts[part] = (path, index)
    return parts


def _audio_tracks(paths: Collection[Path], progress: bool) -> list[list[int]]:
    """Indices of the audio tracks of each file; none if it cannot be read"""
    from pyannote_av.batch.progress import Progress
    from pyannote_av.core.media import probe

    found = []
    with Progress(progress) as bars:
        bars.begin("looking for audio tracks", len(paths))
        for path in paths:
            try:
                found.append(sorted(stream.index for stream in probe(path).audio))
            except (OSError, ValueError):
                found.append([])  # fails with a reason when its turn comes
            bars.advance(1)
    return found


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
