"""Inputs of a batch: media in folders and lists, their output names, transcripts and tracks."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pyannote_av.core.files import AUDIO_SUFFIXES, VIDEO_SUFFIXES, refuse_address
from pyannote_av.core.text import name_on_any_disk, printable

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
                said = f"{path}: {len(others)} left out, not media files: {some}"
                tell(printable(said, one_line=True))
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
        Index of an audio track, "auto", or "each".
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
