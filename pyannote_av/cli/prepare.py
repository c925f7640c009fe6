"""``pyannote-av prepare``: faces and sound of a whole corpus, found once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pyannote_av.core.crop_store_build import BuildReport

SUBSETS = ("train", "development", "test")
COLUMNS = ("uri", "video", "audio", "face_tracks")
MANIFEST = "manifest.json"


def files_of(
    name: str, subsets: Sequence[str] = (), database: Path | None = None
) -> dict[str, list[Mapping[str, Any]]]:
    """Files of a protocol by subset.

    Parameters
    ----------
    name : str
        Such as ``AVA-AVD.SpeakerDiarization.Clips``.
    subsets : sequence of str, optional
        All that there are unless given.
    database : Path, optional
        A ``database.yml`` to load first.

    Raises
    ------
    ValueError
        When there is no such protocol or subset, or a file is listed twice.
    """
    import warnings

    import yaml
    from pyannote.database import registry

    if database is not None:
        if not database.is_file():
            raise FileNotFoundError(f"no such file: {database}")
        try:
            with warnings.catch_warnings():
                # that of the working directory may have the same protocol, for another folder
                warnings.filterwarnings("ignore", "Replacing existing")
                registry.load_database(database)
        except (yaml.YAMLError, AttributeError, TypeError) as error:
            raise ValueError(f"{database} is no list of protocols: {error}") from error
    if unknown := [subset for subset in subsets if subset not in SUBSETS]:
        raise ValueError(f"no subset {unknown[0]!r}; there is {', '.join(SUBSETS)}")
    if name.count(".") != 2:
        raise ValueError(f"{name!r} is no protocol: names read DATABASE.TASK.PROTOCOL")
    try:
        protocol = registry.get_protocol(name)
    except (ValueError, KeyError, AttributeError) as error:
        there = (
            ", ".join(sorted(registry)) or "none: give --database, or set PYANNOTE_DATABASE_CONFIG"
        )
        raise ValueError(f"no protocol {name!r}; there is {there}") from error
    found: dict[str, list[Mapping[str, Any]]] = {}
    seen: dict[str, str] = {}
    for subset in subsets or SUBSETS:
        try:
            found[subset] = list(getattr(protocol, subset)())
        except NotImplementedError as error:
            if subsets:
                raise ValueError(f"{name} has no subset {subset!r}") from error
            continue
        for file in found[subset]:
            uri = file["uri"]
            if uri in seen:
                raise ValueError(f"{name}: {uri!r} is in {seen[uri]} and again in {subset}")
            seen[uri] = subset
    if not seen:
        raise ValueError(f"{name} has no files")
    return found


class _File(dict):
    """Columns of a file that a store is made of; those it has not are simply not there."""

    def __init__(self, file: Mapping[str, Any]):
        super().__init__({"uri": file["uri"]})
        for column in COLUMNS[1:]:
            try:
                self[column] = file[column]
            except KeyError:
                continue
            except (OSError, ValueError) as error:
                # one file that is not there is no reason to stop the others
                self.error = error

    error: Exception | None = None


def prepare(
    name: str,
    into: Path,
    subsets: Sequence[str] = (),
    workers: int = 0,
    database: Path | None = None,
    progress: bool = False,
    voices: bool = False,
    identities: bool = False,
) -> BuildReport:
    """Find, track and cut out the faces of a protocol's files, and keep their sound.

    What a protocol says of faces (column ``face_tracks``) is taken as it is; faces are looked for
    where it has no such column. Files that are in the store already are left as they are, so that
    whoever was interrupted goes on; a file that fails does not stop the others.

    Parameters
    ----------
    name, subsets, database
        See :func:`files_of`.
    into : Path
        Folder of the store (:class:`~pyannote_av.core.crop_store.CropStore`); its
        ``manifest.json`` says which files are in it, and what is wrong with them.
    workers : int, optional
        Processes at work at once; 0 does without other processes.
    progress : bool, optional
        Show a bar.
    voices : bool, optional
        Embed the voices, too, for target speakers (see
        :func:`~pyannote_av.tasks.voices.build_voices`).
    identities : bool, optional
        Embed the faces, too (see :func:`~pyannote_av.tasks.identities.build_identities`).

    Returns
    -------
    report : BuildReport
    """
    from pyannote_av.core.crop_store import CropStore

    by_subset = files_of(name, subsets, database)
    files = [_File(file) for some in by_subset.values() for file in some]
    whole = [file for file in files if file.error is None]
    report = CropStore.build(into, whole, num_workers=workers, progress=progress)
    report.failed |= {file["uri"]: str(file.error) for file in files if file.error is not None}
    uris = {subset: [file["uri"] for file in some] for subset, some in by_subset.items()}
    there = [uri for some in uris.values() for uri in some if uri in report.store]
    if voices:
        from pyannote_av.tasks.voices import build_voices

        report.failed |= build_voices(report.store, there, progress=progress).failed
    if identities:
        from pyannote_av.tasks.identities import build_identities

        report.failed |= build_identities(report.store, there, progress=progress).failed
    write_manifest(into, name, uris, report)
    return report


def write_manifest(
    into: Path, name: str, uris: Mapping[str, Sequence[str]], report: BuildReport
) -> Path:
    """Write down what a store holds of a protocol, next to what it holds of others."""
    import json

    from pyannote_av.core.atomic import write_text

    path = into / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = {}
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
    protocol: Annotated[str, typer.Argument(help="Such as AVA-AVD.SpeakerDiarization.Clips.")],
    into: Annotated[Path, typer.Option("--into", help="Folder of the store to write.")],
    subset: Annotated[
        list[str] | None, typer.Option(help="train, development or test; all unless given.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes at work at once.")] = 0,
    database: Annotated[
        Path | None, typer.Option(help="database.yml that has the protocol.")
    ] = None,
    voices: Annotated[
        bool,
        typer.Option("--voices", help="Embed voices too, for all that tells speakers apart."),
    ] = False,
    identities: Annotated[
        bool,
        typer.Option("--identities", help="Embed faces too, for networks that compare or count."),
    ] = False,
) -> None:
    """Find the faces of a corpus once: tracks, crops and sound, ready for training.

    Started again, it goes on where it was. A file that cannot be read is reported and does not stop
    the others; the exit code is 1 then.

    Example: pyannote-av prepare AVA-AVD.SpeakerDiarization.Clips --into crops --workers 8
    """
    import sys

    try:
        report = prepare(
            protocol,
            into,
            subset or (),
            workers,
            database,
            progress=sys.stderr.isatty(),
            voices=voices,
            identities=identities,
        )
    except (OSError, ValueError, RuntimeError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    for uri, problems in report.problems.items():
        for problem in problems:
            typer.echo(f"note: {uri}: {problem}")
    for uri, reason in report.failed.items():
        typer.echo(f"error: {uri}: {reason}", err=True)
    typer.echo(
        f"{into}: {len(report.written)} files written, {len(report.kept)} there already, "
        f"{len(report.failed)} failed"
    )
    if report.failed:
        raise typer.Exit(1)
