"""``pyannote-av view``: make the page of a result, and open it in the browser."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from pyannote_av.cli._output import say
from pyannote_av.core.atomic import HOUSEKEEPING
from pyannote_av.core.files import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from pyannote_av.core.paths import no_such_file
from pyannote_av.pretrained import DEFAULT

_MAX_EMBED_MB = 100.0


def stem_of(path: Path) -> str:
    """Name of a JSON file without ``.json`` or ``.json.gz``."""
    name = path.name.removesuffix(".gz")
    return name[: -len(".json")] if name.lower().endswith(".json") else name


def find_recording(path: Path) -> Path | None:
    """Recording of a JSON result: next to it, or where ``apply`` found it.

    Parameters
    ----------
    path : Path

    Returns
    -------
    recording : Path or None
    """
    from pyannote_av.batch.ledger import input_files

    path, stem = path.absolute(), stem_of(path)
    media = {*VIDEO_SUFFIXES, *AUDIO_SUFFIXES}
    names = [f"{stem}{suffix}" for suffix in (*VIDEO_SUFFIXES, *AUDIO_SUFFIXES)]
    if Path(stem).suffix.lower() in media:  # results of talk.mp4 and talk.mkv have whole names
        names.insert(0, stem)
    there = {one.name.lower(): one for one in sorted(path.parent.iterdir(), reverse=True)}
    for name in names:
        if (found := there.get(name.lower())) and found.is_file():
            return found
    for folder in path.parents:
        if (folder / HOUSEKEEPING).is_dir():
            name = (path.parent / stem).relative_to(folder).as_posix()
            recording = input_files(folder).get(name)
            if recording is not None and Path(recording).is_file():
                return Path(recording)
    return None


def page_of_json(
    path: Path,
    video: Path | None = None,
    into: Path | None = None,
    embed: bool = False,
    max_embed_mb: float = _MAX_EMBED_MB,
) -> Path:
    """Page of a JSON result; one that is there already, and shows this result, is kept.

    Parameters
    ----------
    path : Path
    video : Path, optional
        The recording; see :func:`find_recording`.
    into : Path, optional
        Folder of the page. By default, that of `path`.
    embed : bool, optional
        Put the recording into the page, which is then called ``<name>.embedded.html``.
    max_embed_mb : float, optional

    Returns
    -------
    page : Path

    Raises
    ------
    OSError, ValueError
        When the result or the recording cannot be read, or when another file has the name of the
        page.
    """
    from pyannote_av.formats.json import read_content
    from pyannote_av.player.page import content_key, key_of_page, write_page

    content = read_content(path)
    if video is not None and not video.is_file():
        raise FileNotFoundError(no_such_file(video))
    page = (into or path.parent) / f"{stem_of(path)}{'.embedded' if embed else ''}.html"
    if page.exists():
        key = key_of_page(page)
        if key is None:
            raise FileExistsError(f"{page} exists, and is no page of pyannote-av: move it")
        if key == content_key(content) and video is None and not embed:
            return page
    video = video or find_recording(path)
    if embed and video is None:
        raise FileNotFoundError(f"the recording of {path} is not next to it: name it with --video")
    return write_page(content, page, video, embed, max_embed_mb)


def result_of_media(path: Path, into: Path | None = None, pipeline: str = DEFAULT) -> Path:
    """JSON result of a recording, which is diarized first unless that was done before.

    Raises
    ------
    ValueError
        When the recording cannot be diarized.
    OSError, RuntimeError
        See :func:`~pyannote_av.cli.apply.apply_all`.
    """
    from pyannote_av.batch.inputs import unique_names
    from pyannote_av.batch.ledger import input_files
    from pyannote_av.cli.apply import apply_all

    if not path.exists():
        raise FileNotFoundError(no_such_file(path))
    into = into or path.parent
    if failed := apply_all([path], into, pipeline, tell=say):
        raise ValueError(failed[path])
    return into / f"{unique_names([path], input_files(into))[path]}.json"


def command(
    path: Annotated[
        Path, typer.Argument(help="JSON result of apply, or a recording, which is diarized first.")
    ],
    video: Annotated[
        Path | None,
        typer.Option(help="The recording. Default: next to the result, or where apply found it."),
    ] = None,
    into: Annotated[
        Path | None, typer.Option(help="Folder of the page. Default: that of PATH.")
    ] = None,
    embed: Annotated[
        bool, typer.Option(help="Put the recording into the page: one file to hand on.")
    ] = False,
    max_embed_mb: Annotated[
        float, typer.Option(min=0, help="Maximum size of an embedded recording in MB.")
    ] = _MAX_EMBED_MB,
    pipeline: Annotated[str, typer.Option(help="Pipeline for recordings, as in apply.")] = DEFAULT,
    open_page: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in the browser.")
    ] = True,
) -> None:
    """Look at a result: a page with the video, the faces and a timeline, to correct and export.

    Example: pyannote-av view output/talk.json

    Example: pyannote-av view talk.mp4 --into output
    """
    try:
        if path.suffix.lower() not in (".json", ".gz"):
            if embed:
                video = video or path
            path = result_of_media(path, into, pipeline)
        page = page_of_json(path, video, into, embed, max_embed_mb)
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        say(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    say(page)
    if open_page and not webbrowser.open(page.absolute().as_uri()):
        say("no browser was found: open this file in one", err=True)
