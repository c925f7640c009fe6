"""``pyannote-av prepare``: extract the faces and the sound of a whole corpus once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pyannote_av.cli import _engine
from pyannote_av.cli._output import say
from pyannote_av.core.protocols import files_of
from pyannote_av.core.text import printable

if TYPE_CHECKING:
    from pyannote_av.batch.engines import Engine
    from pyannote_av.batch.jobs import Job
    from pyannote_av.batch.run import Limits
    from pyannote_av.data.build import BuildReport

COLUMNS = ("uri", "video", "audio", "face_tracks")
MANIFEST = "manifest.json"


class _File(dict):
    """Columns of a file from which a store is built. Missing columns are left out."""

    def __init__(self, file: Mapping[str, Any]):
        super().__init__({"uri": file["uri"]})
        for column in COLUMNS[1:]:
            try:
                self[column] = file[column]
            except KeyError:
                continue
            except (OSError, ValueError) as error:
                # a missing file must not stop the others
                self.error = error

    error: Exception | None = None


def prepare(
    name: str | None,
    into: Path,
    subsets: Sequence[str] = (),
    engine: Engine | None = None,
    database: Path | None = None,
    progress: bool = False,
    voices: bool = False,
    identities: bool = False,
    manifest: Path | None = None,
    limits: Limits | None = None,
    first_pass: bool = False,
) -> BuildReport:
    """Detect, track and crop the faces of many files, and store them with the sound.

    Face tracks given by the protocol (column ``face_tracks``) are used as they are. Without this
    column, faces are detected and tracked. Files that are already in the store are kept, so that
    an interrupted run can be continued. A file that fails does not stop the others.

    Parameters
    ----------
    name, subsets, database
        Files of a protocol, see :func:`~pyannote_av.core.protocols.files_of`.
    into : Path
        Folder of the store (:class:`~pyannote_av.data.crop_store.CropStore`). Its
        ``manifest.json`` lists the files in the store and the problems found in them.
    engine : Engine, optional
        Where the work is done. Defaults to this process.
    progress : bool, optional
        Show progress bars.
    voices : bool, optional
        Also compute speaker embeddings, for target speakers (see
        :func:`~pyannote_av.data.speaker_embeddings.build_speaker_embeddings`).
    first_pass : bool, optional
        Also diarize the sound, for networks that correct the result (see
        :func:`~pyannote_av.data.first_pass.build_first_pass`).
    identities : bool, optional
        Also compute face embeddings (see
        :func:`~pyannote_av.data.face_embeddings.build_face_embeddings`).
    manifest : Path, optional
        A list of files instead of a protocol, see :mod:`pyannote_av.batch.manifest`.
    limits : Limits, optional
        Time limit and number of attempts per file.

    Returns
    -------
    report : BuildReport

    Raises
    ------
    ValueError
        When neither a protocol nor a list is given, or when the ``manifest.json`` in the folder
        was not written by pyannote-av.
    """
    from pyannote_av.batch.engines import Engine
    from pyannote_av.batch.preparation import Prepare
    from pyannote_av.batch.run import process
    from pyannote_av.data.build import BuildReport
    from pyannote_av.data.crop_store import CropStore

    read_manifest_of(into)  # fail before any work is done
    by_subset, failed = _jobs(name, subsets, database, manifest)
    jobs = [job for some in by_subset.values() for job in some if job.name not in failed]
    engine = engine or Engine(workers=0)
    done = process(Prepare(into), jobs, into, engine, limits, progress=progress)
    report = BuildReport(
        CropStore(into), done.done, done.kept, {**failed, **done.failed}, done.problems
    )
    uris = {subset: [job.name for job in some] for subset, some in by_subset.items()}
    there = [uri for some in uris.values() for uri in some if uri in report.store]
    if voices:
        from pyannote_av.data.speaker_embeddings import build_speaker_embeddings

        report.failed |= build_speaker_embeddings(report.store, there, progress=progress).failed
    if first_pass:
        from pyannote_av.data.first_pass import build_first_pass

        report.failed |= build_first_pass(report.store, there, progress=progress).failed
    if identities:
        from pyannote_av.data.face_embeddings import build_face_embeddings

        report.failed |= build_face_embeddings(report.store, there, progress=progress).failed
    write_manifest(into, name or str(manifest), uris, report)
    return report


def _jobs(
    name: str | None, subsets: Sequence[str], database: Path | None, manifest: Path | None
) -> tuple[dict[str, list[Job]], dict[str, str]]:
    """Files by subset, and the reasons why some of them cannot be processed."""
    from pyannote_av.batch.jobs import Job
    from pyannote_av.batch.manifest import read_manifest

    if manifest is not None:
        return {"all": read_manifest(manifest)}, {}
    if name is None:
        raise ValueError("neither a protocol nor a list of files")
    by_subset: dict[str, list[Job]] = {}
    failed = {}
    for subset, files in files_of(name, subsets, database).items():
        for file in map(_File, files):
            if file.error is not None:
                failed[file["uri"]] = str(file.error)
            media = {kind: str(file[kind]) for kind in ("video", "audio") if kind in file}
            columns = {kind: file[kind] for kind in ("face_tracks", "audio_track") if kind in file}
            by_subset.setdefault(subset, []).append(Job(file["uri"], media, columns=columns))
    return by_subset, failed


def read_manifest_of(into: Path) -> dict[str, dict[str, Any]]:
    """Content of the ``manifest.json`` of a store: its files by protocol and subset.

    Raises
    ------
    ValueError
        When its ``manifest.json`` was not written by pyannote-av.
    """
    from pyannote_av.core.reading import ReadError, read_json

    path = into / MANIFEST
    try:
        content = read_json(path)
    except FileNotFoundError:
        return {}
    except ReadError:
        content = None
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise ValueError(f"{path} exists and was not written by pyannote-av: move it")
    return content


def write_manifest(
    into: Path, name: str, uris: Mapping[str, Sequence[str]], report: BuildReport
) -> Path:
    """Add the files of a protocol to the ``manifest.json`` of a store; other entries are kept."""
    import json

    from pyannote_av.core.atomic import write_text

    path = into / MANIFEST
    content = read_manifest_of(into)
    there = set(report.store.uris)
    subsets = content.setdefault(name, {})
    for subset, names in uris.items():
        subsets[subset] = {
            "files": [uri for uri in names if uri in there and uri not in report.failed],
            "failed": {uri: report.failed[uri] for uri in names if uri in report.failed},
            "problems": {uri: report.problems[uri] for uri in names if uri in report.problems},
        }
    return write_text(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def command(
    into: Annotated[Path, typer.Option("--into", "-o", help="Folder of the store.")],
    protocol: Annotated[
        str | None, typer.Argument(help="Protocol, such as AVA-AVD.SpeakerDiarization.Clips.")
    ] = None,
    manifest: _engine.Manifest = None,
    subset: Annotated[
        list[str] | None,
        typer.Option(help="Subset: train, development or test. Can be repeated. Default: all."),
    ] = None,
    database: Annotated[
        Path | None, typer.Option(help="database.yml that defines the protocol.")
    ] = None,
    voices: Annotated[
        bool,
        typer.Option(
            "--voices", help="Also compute speaker embeddings, for tasks that tell speakers apart."
        ),
    ] = False,
    first_pass: Annotated[
        bool,
        typer.Option(
            "--first-pass",
            help="Also diarize the sound, for networks that correct the result (HMSANet with "
            "first_pass).",
        ),
    ] = False,
    identities: Annotated[
        bool,
        typer.Option(
            "--identities",
            help="Also compute face embeddings, for tasks that compare or count speakers.",
        ),
    ] = False,
    engine: _engine.EngineName = "local",
    workers: _engine.Workers = 1,
    timeout: _engine.Timeout = None,
    retries: _engine.Retries = 1,
    retry_failed: _engine.RetryFailed = False,
    address: _engine.Address = None,
) -> None:
    """Extract face tracks, crops and sound of a corpus once, ready for training.

    After an interruption, run the same command again to continue. A file that cannot be read is
    reported and does not stop the others; the exit code is then 1.

    Example: pyannote-av prepare AVA-AVD.SpeakerDiarization.Clips --into crops --workers 8

    Example: pyannote-av prepare --manifest list.csv --into crops --engine ray --address auto
    """
    import sys

    from pyannote_av.batch.run import Limits

    if (protocol is None) == (manifest is None):
        raise typer.BadParameter("give a protocol, or --manifest")
    if manifest is not None and (subset or database):
        raise typer.BadParameter("--subset and --database are for protocols")
    try:
        report = prepare(
            protocol,
            into,
            subset or (),
            _engine.make_engine(engine, workers, address),
            database,
            progress=sys.stderr.isatty(),
            voices=voices,
            first_pass=first_pass,
            identities=identities,
            manifest=manifest,
            limits=Limits(timeout, retries, retry_failed),
        )
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        say(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    for uri, problems in report.problems.items():
        for problem in problems:
            say(printable(f"note: {uri}: {problem}", one_line=True))
    for uri, reason in report.failed.items():
        say(printable(f"error: {uri}: {reason}", one_line=True), err=True)
    say(
        f"{into}: {len(report.written)} files written, {len(report.kept)} already present, "
        f"{len(report.failed)} failed"
    )
    if report.failed:
        raise typer.Exit(1)
