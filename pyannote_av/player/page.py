"""The page: one HTML file with result, program and style, which works from disk, offline."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import mimetypes
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pyannote_av.core.atomic import replacing
from pyannote_av.core.files import AUDIO_SUFFIXES
from pyannote_av.core.tracks import FaceTracks

if TYPE_CHECKING:
    from pyannote.audio.pipelines.speaker_diarization import DiarizeOutput

#: files of the program, in the order in which they are joined
SCRIPTS = ("data.js", "edits.js", "exports.js", "stage.js", "timeline.js", "panels.js", "main.js")
#: maximum size, in MB, of a recording that is embedded
MAX_EMBED_MB = 100.0

_KEY = re.compile(r'<meta name="pyannote-av-key" content="([0-9a-f]{32})">')
_SPANS = (
    re.compile(r"from (\d+(?:\.\d+)?)(?: s)? to (\d+(?:\.\d+)?) s\b"),
    re.compile(r"\b(\d+(?:\.\d+)?) to (\d+(?:\.\d+)?) s\b"),
    re.compile(r"\bat (\d+(?:\.\d+)?) s\b"),
)
# types that mimetypes does not know on every machine
_TYPES = {".mkv": "video/x-matroska", ".webm": "video/webm", ".m4a": "audio/mp4"}
_TYPES |= {".opus": "audio/ogg", ".flac": "audio/flac", ".mka": "audio/x-matroska"}


def write_page(
    output: DiarizeOutput | Mapping[str, Any],
    path: str | Path,
    video: str | Path | None = None,
    embed: bool = False,
    max_embed_mb: float = MAX_EMBED_MB,
    folder: str | Path | None = None,
) -> Path:
    """Write a page that plays, corrects and exports a result.

    The page is one file. It needs no network and no server, and refuses both by its content
    security policy. It refers to the recording by a relative path, so both can be moved together.

    Parameters
    ----------
    output : DiarizeOutput, AVDiarizeOutput or mapping
        Result of a pipeline, or what its ``serialize()`` returns.
    path : str or Path
        The page. It is written atomically.
    video : str or Path, optional
        Recording that the page plays: a video, or an audio file. Without it, the page asks for it.
        Pictures of faces are cut out of it.
    embed : bool, optional
        Put the recording itself into the page.
    max_embed_mb : float, optional
        Maximum size of an embedded recording, in MB (1e6 bytes).
    folder : str or Path, optional
        Folder to which the page will be moved, and to which the path of the recording is relative.
        By default, that of `path`.

    Returns
    -------
    path : Path

    Raises
    ------
    FileNotFoundError
        When the recording is to be embedded, and there is no such file.
    ValueError
        When the recording is larger than `max_embed_mb`, or when the result is malformed.
    """
    path = Path(path)
    content = output if isinstance(output, Mapping) else _content(output)
    page = make_page(content, folder or path.parent, video, embed, max_embed_mb)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")
    return path


def _content(output: DiarizeOutput) -> dict[str, Any]:
    """Result of ``serialize``, but with face tracks as they are: lists of hours of them are slow"""
    tracks = getattr(output, "face_tracks", None)
    if tracks is None:
        return output.serialize()
    return {**replace(output, face_tracks=None).serialize(), "face_tracks": tracks}


def make_page(
    content: Mapping[str, Any],
    folder: str | Path,
    video: str | Path | None = None,
    embed: bool = False,
    max_embed_mb: float = MAX_EMBED_MB,
) -> str:
    """Text of the page; see :func:`write_page`. Face tracks may be a ``FaceTracks`` or a dict."""
    from pyannote_av import __version__

    embedded = _embedded(Path(video), max_embed_mb) if embed and video is not None else ""
    data = page_data(content, folder, video, embed)
    style, script = _read("style.css"), _script()
    policy = (
        "default-src 'none'; "
        f"script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "img-src data:; media-src 'self' file: blob:; base-uri 'none'; form-action 'none'"
    )
    parts = {
        "policy": policy,
        "version": html.escape(__version__),
        "key": data["key"],
        "title": html.escape(data["title"].encode("utf-8", "replace").decode()),
        "style": style,
        "data": _in_script(json.dumps(data, allow_nan=False, separators=(",", ":"))),
        "media": f'<script type="text/plain" id="media">{embedded}</script>' if embedded else "",
        "script": script,
    }
    # in one pass: what is filled in is not searched again
    return re.sub("@@([a-z]+)@@", lambda match: parts[match[1]], _read("page.html"))


def content_key(content: Mapping[str, Any]) -> str:
    """Digest of turns and owners of faces, under which the browser keeps corrections of them."""
    faces = content.get("face_tracks")
    if isinstance(faces, FaceTracks):
        owners = [[track, faces.speaker.get(track)] for track in faces.tracks]
    else:
        owners = [[one.get("id"), one.get("speaker")] for one in (faces or {}).get("tracks", ())]
    text = json.dumps([content.get("uri"), content["diarization"], owners], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def key_of_page(path: str | Path) -> str | None:
    """Digest of the result that a page shows; None if the file is not such a page."""
    with open(path, encoding="utf-8", errors="replace") as file:
        match = _KEY.search(file.read(4000))
    return match[1] if match else None


def page_data(
    content: Mapping[str, Any],
    folder: str | Path,
    video: str | Path | None = None,
    embed: bool = False,
) -> dict[str, Any]:
    """Data of the page, of which JSON is made.

    Times are whole milliseconds, speakers are numbers, and face tracks are reduced to knots; see
    :func:`~pyannote_av.player.tracks.page_tracks`.
    """
    from pyannote_av.core.output_format import FORMAT, VERSION
    from pyannote_av.player.faces import face_pictures
    from pyannote_av.player.tracks import page_tracks

    turns = content["diarization"]
    tracks = content.get("face_tracks")
    if tracks is not None and not isinstance(tracks, FaceTracks):
        tracks = FaceTracks.from_dict(tracks)
    # a list of dicts keeps the order: speakers with turns, then those who are only seen
    names = list(content.get("speakers") or dict.fromkeys(turn["speaker"] for turn in turns))
    names += [turn["speaker"] for turn in turns]
    names += list(tracks.speaker.values()) if tracks else []
    speakers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    report = content.get("report")
    data: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "key": content_key(content),
        "uri": content.get("uri"),
        "title": Path(video).name if video is not None else content.get("uri") or "recording",
        "duration": _duration(content, tracks),
        "media": _media(folder, video, embed, tracks, report),
        "speakers": list(speakers),
        "faces": {},
        "turns": _columns(turns, speakers, provenance=True),
        "notes": _notes(report or {}),
        "report": report,
    }
    if "exclusive_diarization" in content:
        data["exclusive"] = _columns(content["exclusive_diarization"], speakers)
    if "audio_only" in content:
        alone = content["audio_only"]
        names = sorted({turn["speaker"] for turn in alone})
        data["audioSpeakers"] = names
        data["audioOnly"] = _columns(alone, {name: i for i, name in enumerate(names)})
    if tracks is not None:
        data["tracks"] = page_tracks(tracks, speakers)
    if tracks and video is not None:
        data["faces"] = {
            speakers[name]: f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"
            for name, picture in face_pictures(video, tracks).items()
        }
    return data


def _columns(
    turns: list[dict[str, Any]], speakers: dict[str, int], provenance: bool = False
) -> dict[str, list[Any]]:
    for turn in turns:
        # exclusive turns may name speakers that have no others
        speakers.setdefault(turn["speaker"], len(speakers))
    turns = sorted(turns, key=lambda turn: (turn["start"], turn["end"]))
    columns = {
        "start": [round(1000 * turn["start"]) for turn in turns],
        "end": [round(1000 * turn["end"]) for turn in turns],
        "speaker": [speakers[turn["speaker"]] for turn in turns],
    }
    if provenance:
        for name in ("confidence", "modality", "edited"):
            if any(turn.get(name) is not None for turn in turns):
                columns[name] = [turn.get(name) for turn in turns]
    return columns


def _duration(content: Mapping[str, Any], tracks: FaceTracks | None) -> float:
    ends = [(content.get("report") or {}).get("duration", 0.0)]
    ends += [
        turn["end"] for name in ("diarization", "audio_only") for turn in content.get(name, ())
    ]
    if tracks:
        ends.append(float(tracks.time.max()) + 1 / tracks.frame_rate)
    return round(max(ends), 3)


def _notes(report: Mapping[str, Any]) -> list[tuple[int, int, str]]:
    """Start, end (ms) and text of ignored regions, and of problems whose sentence has a time."""
    notes = [
        (region["start"], region["end"], f"sound alone: {region['reason']}")
        for region in report.get("ignored_regions", [])
    ]
    for problem in report.get("problems", []):
        for span in _SPANS:
            if match := span.search(problem):
                start, end = float(match[1]), float(match[match.re.groups])
                notes.append((start, max(end, start + 0.1), problem))
                break
    return sorted((round(1000 * start), round(1000 * end), text) for start, end, text in notes)


def _media(
    folder: str | Path,
    video: str | Path | None,
    embed: bool,
    tracks: FaceTracks | None,
    report: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """How the page finds the recording, and whether it has pictures."""
    streams = (report or {}).get("streams", [])
    pictures = bool(tracks) or any(one.get("kind") == "video" for one in streams)
    if video is None:
        return {"kind": "video" if pictures else "audio", "name": "", "src": "", "type": ""}
    video = Path(video)
    suffix = video.suffix.lower()
    sound = suffix in AUDIO_SUFFIXES and not pictures
    return {
        "kind": "audio" if sound else "video",
        "name": video.name,
        "src": "" if embed else relative_address(video, folder),
        "type": _TYPES.get(suffix) or mimetypes.guess_type(video.name)[0] or "",
    }


def relative_address(file: str | Path, folder: str | Path) -> str:
    """Address of a file for a page in a folder: relative, or absolute on another drive.

    >>> relative_address("/data/my talk #1.mp4", "/data/out")
    '../my%20talk%20%231.mp4'
    """
    file = Path(file).absolute()
    try:
        way = Path(os.path.relpath(file, Path(folder).absolute())).as_posix()
    except ValueError:  # another drive, on Windows
        return file.as_uri()
    return quote(os.fsencode(way))


def _embedded(file: Path, max_mb: float) -> str:
    """Base64 of a file"""
    size = file.stat().st_size
    if size > 1e6 * max_mb:
        raise ValueError(
            f"{file} has {size / 1e6:.1f} MB, and {max_mb:g} MB are embedded at most: raise the "
            "limit (--max-embed-mb), or let the page refer to the file"
        )
    return base64.b64encode(file.read_bytes()).decode("ascii")


def _read(name: str) -> str:
    return (files("pyannote_av.player") / "web" / name).read_text(encoding="utf-8")


def _script() -> str:
    return '(() => {\n"use strict";\n' + "\n".join(map(_read, SCRIPTS)) + "})();\n"


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _in_script(text: str) -> str:
    """JSON that cannot end the element which holds it"""
    # json.dumps writes all but ASCII as escapes
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")
