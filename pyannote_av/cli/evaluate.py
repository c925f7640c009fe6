"""``pyannote-av evaluate``: score diarization, anybody's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pyannote.core import Annotation, Timeline

    from pyannote_av.core.tracks import FaceTracks


def read_tracks(path: Path, uris: Sequence[str]) -> dict[str, FaceTracks]:
    """Face tracks of files: one file of them, or ``<uri>.npz|json|csv[.gz]`` of a folder."""
    from pyannote_av.core.tracks import FaceTracks

    if not path.is_dir():
        return {uri: FaceTracks.read(path) for uri in uris[:1]}
    kinds = (".npz", ".tracks.npz", ".json", ".json.gz", ".csv", ".csv.gz")
    found = {}
    for uri in uris:
        files = [path / f"{uri}{kind}" for kind in kinds if (path / f"{uri}{kind}").is_file()]
        if not files:
            raise FileNotFoundError(f"no face tracks of {uri!r} in {path} ({', '.join(kinds)})")
        found[uri] = FaceTracks.read(files[0])
    return found


def names_of(paths: Sequence[Path]) -> list[str]:
    """Names of systems: what tells their paths apart."""
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    if len(set(names)) < len(names):
        raise ValueError("the same hypothesis is given twice")
    return names


def protocol_files(protocol: str, subset: str) -> list[Mapping]:
    """Files of a subset of a pyannote.database protocol."""
    from pyannote.database import registry

    try:
        files = list(getattr(registry.get_protocol(protocol), subset)())
    except (AttributeError, NotImplementedError) as error:
        raise ValueError(f"{protocol} has no subset {subset!r}") from error
    uris = [file["uri"] for file in files]
    if twice := {uri for uri in uris if uris.count(uri) > 1}:
        raise ValueError(f"{protocol}, {subset}: {min(twice)!r} is there twice")
    return files


def load_pipelines(names: Sequence[str], device: str) -> dict[str, Any]:
    """Pipelines by name, on a device."""
    import torch

    from pyannote_av import Pipeline

    if len(set(names)) < len(names):
        raise ValueError("the same pipeline is given twice")
    return {name: Pipeline.from_pretrained(name).to(torch.device(device)) for name in names}


def reference_tracks(files: Sequence[Mapping]) -> dict[str, FaceTracks] | None:
    """Face tracks of a protocol, where all of its files have some and say whose they are."""
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
        Path | None, typer.Argument(help="RTTM file, or folder of RTTM files.")
    ] = None,
    hypothesis: Annotated[
        list[Path] | None, typer.Argument(help="The same of each system to be scored.")
    ] = None,
    uem: Annotated[
        Path | None, typer.Option(help="What is scored: UEM file or folder; all unless given.")
    ] = None,
    vad: Annotated[
        Path | None,
        typer.Option(help="Speech regions for oracle VAD: LAB file or folder; else the reference."),
    ] = None,
    tracks: Annotated[
        Path | None,
        typer.Option(help="Reference face tracks: adds conditions on who is on screen."),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write everything, per file too.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write all scores, per file too.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the error rates (.png, .svg).")] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Instead of files: name of a pyannote.database protocol.")
    ] = None,
    pipeline: Annotated[
        list[str] | None, typer.Option(help="What is run on the protocol; again for more.")
    ] = None,
    subset: Annotated[str, typer.Option(help="train, development or test.")] = "test",
    device: Annotated[str, typer.Option(help="Of the pipeline: cpu, cuda, ...")] = "cpu",
) -> None:
    """Score one system or several: error rates as the papers report them, and where errors are.

    Every figure comes with collar and without, with automatic and with oracle voice activity
    detection. Several systems are compared, with significance.

    Example: pyannote-av evaluate reference.rttm audio.rttm late_fusion.rttm --uem test.uem
    """
    from pyannote_av.evaluation import report
    from pyannote_av.evaluation.sweeps import diarization
    from pyannote_av.formats.annotations import read_lab, read_reference, read_rttm

    if protocol is not None or pipeline:
        if protocol is None or not pipeline or reference is not None or uem is not None:
            raise typer.BadParameter("--protocol and --pipeline go together, and with no files")
    elif reference is None or not hypothesis:
        raise typer.BadParameter("give REFERENCE HYPOTHESIS..., or --protocol and --pipeline")
    try:
        systems: Mapping[str, Any]
        faces = found = None
        if protocol is not None and pipeline:
            files = protocol_files(protocol, subset)
            systems = {
                name: {file["uri"]: diarization(loaded, file) for file in files}
                for name, loaded in load_pipelines(pipeline, device).items()
            }
            references = {file["uri"]: file["annotation"] for file in files}
            maps = {file["uri"]: file["annotated"] for file in files}
            faces = reference_tracks(files)
            given = any(file.get("face_tracks") is not None for file in files)
            found = "given" if given else "found"
        else:
            references, maps = read_reference(reference, uem)
            systems = {
                name: read_rttm(path)
                for name, path in zip(names_of(hypothesis), hypothesis, strict=True)
            }
        speech = read_lab(vad) if vad is not None else None
        if tracks is not None:
            faces = read_tracks(tracks, sorted(references))
        results, comparisons, tables = score(references, systems, maps, speech, faces, found)
    except (OSError, ValueError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(report.to_text(results, comparisons, tables))
    if json is not None:
        report.write_json(json, results, comparisons, tables)
    if csv is not None:
        report.write_csv(csv, results)
    if plot is not None:
        report.plot(results, plot)


def score(
    references: Mapping[str, Annotation],
    systems: Mapping[str, Mapping[str, Annotation]],
    maps: Mapping[str, Timeline] | None = None,
    speech: Mapping[str, Timeline] | None = None,
    faces: Mapping[str, FaceTracks] | None = None,
    tracks: str | None = None,
) -> tuple[list, list, list]:
    """Results, comparisons of systems, and tables by condition."""
    from pyannote_av.evaluation.conditions import conditions
    from pyannote_av.evaluation.diarization import evaluate
    from pyannote_av.evaluation.significance import compare

    results = [
        evaluate(references, hypotheses, maps, speech, name, tracks)
        for name, hypotheses in systems.items()
    ]
    tables = [
        conditions(references, hypotheses, maps, faces, system=name)
        for name, hypotheses in systems.items()
    ]
    return results, compare(results), tables
