"""``pyannote-av convert``: convert results of diarization to another format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from pyannote_av.cli._output import say


def convert(
    source: Path,
    target: Path,
    source_format: str | None = None,
    target_format: str | None = None,
    *,
    transcript: Path | None = None,
    names: Mapping[str, str] | None = None,
    merge: bool = False,
    uri: str | None = None,
    media: Path | None = None,
    overwrite: bool = False,
    tell: Callable[[str], Any] = lambda line: None,
) -> Path:
    """Convert a file of results to another format. Nothing is written if anything is wrong.

    Parameters
    ----------
    source, target : Path
    source_format, target_format : str, optional
        Names of formats. By default, suffixes tell.
    transcript : Path, optional
        Transcript of the same file, whose words get speakers.
    names : mapping of str to str, optional
        New names of speakers, by label.
    merge : bool, optional
        Make one speaker of those that get the same name.
    uri : str, optional
        File to convert, of those that `source` is about.
    media : Path, optional
        Media file. ELAN files are linked to it, and MOT files need the size of its pictures.
    overwrite : bool, optional
        Replace an existing file.
    tell : callable, optional
        Called with one line about each thing that is not kept.

    Returns
    -------
    target : Path

    Raises
    ------
    FileExistsError
        When `target` exists, and `overwrite` is False.
    FileNotFoundError, ValueError
        When a file is missing or malformed, or the format cannot hold the result.
    """
    from pyannote_av.core.paths import no_such_file
    from pyannote_av.formats.registry import format_of, lost, read, write

    chosen = format_of(target, target_format)
    if not overwrite and (target.exists() or target.is_symlink()):
        raise FileExistsError(f"{target} exists: give another name, or use --overwrite")
    if media is not None and not media.exists():
        raise FileNotFoundError(no_such_file(media))
    moves = chosen.name == "mot" or format_of(source, source_format).name == "mot"
    size = frame_size(media) if moves and media is not None else None
    content = read(source, source_format, uri, size)
    content = replace(content, media=media)
    if size is not None and content.face_tracks is not None:
        content.face_tracks = replace(content.face_tracks, frame_size=size)
    if transcript is not None:
        content = with_words(content, transcript, tell)
    if names:
        content = content.rename(names, merge)
    for note in lost(content, chosen):
        tell(f"{chosen.name}: {note}")
    return write(content, target, chosen.name)


def frame_size(media: Path) -> tuple[int, int]:
    """Width and height of the pictures of a media file, in pixels."""
    from pyannote_av.core.io import Video

    stream = Video().probe(media).video
    if stream is None:
        raise ValueError(f"{media} has no pictures")
    return stream.width, stream.height


def with_words(content: Any, transcript: Path, tell: Callable[[str], Any]) -> Any:
    """Same content with the words of a transcript and their speakers."""
    from pyannote_av import assign_speakers
    from pyannote_av.formats.transcripts import read_transcript

    try:
        assigned = assign_speakers(read_transcript(transcript), content)
    except ValueError as error:
        if str(transcript) in str(error):
            raise
        raise ValueError(f"{transcript}: {error}") from error
    words = assigned.words
    if unknown := sum(word.speaker is None for word in words):
        tell(f"{transcript}: {unknown} of {len(words)} words have no speaker")
    return replace(content, transcript=assigned)


Names = Annotated[
    str | None,
    typer.Option(
        help="Names of speakers: SPEAKER_00=Ann,SPEAKER_01=Bob, a CSV file with two columns, or "
        "the export of the player (.json)."
    ),
]


def command(
    source: Annotated[Path, typer.Argument(metavar="IN", help="File of results.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="File to write.")],
    source_format: Annotated[
        str | None, typer.Option("--from", help="Format of IN. Default: its suffix tells.")
    ] = None,
    target_format: Annotated[
        str | None, typer.Option("--to", help="Format of OUT. Default: its suffix tells.")
    ] = None,
    transcript: Annotated[
        Path | None,
        typer.Option(
            help="Transcript of the same file, whose words get speakers: JSON of Whisper, WhisperX "
            "or faster-whisper, SRT, WebVTT, CTM or STM."
        ),
    ] = None,
    names: Names = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Make one speaker of those that get the same name.")
    ] = False,
    uri: Annotated[
        str | None, typer.Option(help="File to convert, if IN is about several.")
    ] = None,
    media: Annotated[
        Path | None,
        typer.Option(
            help="Media file: ELAN files are linked to it, and MOT files need its picture size."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace OUT if it exists.")
    ] = False,
) -> None:
    """Convert results of diarization to another format, and say what that format does not keep.

    Formats: rttm, json, csv, parquet, stm, ctm, srt, vtt, textgrid, eaf, audacity, txt, uem, npz,
    ava, mot.

    Example: pyannote-av convert talk.json talk.eaf --media talk.mp4

    Example: pyannote-av convert talk.json talk.srt --transcript talk.whisper.json
    """
    from pyannote_av.formats.speaker_names import parse_names

    try:
        convert(
            source,
            target,
            source_format,
            target_format,
            transcript=transcript,
            names=None if names is None else parse_names(names),
            merge=merge,
            uri=uri,
            media=media,
            overwrite=overwrite,
            tell=lambda line: say(line, err=True),
        )
    except (OSError, ValueError, ImportError) as error:
        say(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    say(f"{source} -> {target}")
