"""All formats of results: their names, suffixes, readers and writers, and what they keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyannote_av.core.reading import ReadError
from pyannote_av.core.text import field_name
from pyannote_av.formats.lines import one_line

# pyannote.core takes more than a second to import, and the list of formats is needed without it
if TYPE_CHECKING:
    from pyannote_av.formats.content import Content

#: everything that a result may hold
PARTS = {
    "turns": "turns of speakers",
    "confidence": "confidence and modality of turns",
    "text": "the transcript",
    "words": "times and speakers of single words",
    "faces": "face tracks",
    "audio_only": "the turns of the audio alone",
    "report": "the report",
}


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes
    ----------
    name : str
        As in ``--format``.
    suffixes : tuple of str
        Suffixes by which files are recognised. The first one is written.
    keeps : frozenset of str
        Keys of :data:`PARTS`.
    read, write : str or None
        Functions, as ``module:function``. Readers take a path. Writers take a :class:`Content` and
        a path.
    names : {"exact", "line", "field"}
        How names of speakers are written: as they are, on one line, or without white space.
    united : bool
        Whether turns of one speaker that overlap become one.
    opened_by : str
        Programs that read the format.
    """

    name: str
    suffixes: tuple[str, ...]
    keeps: frozenset[str]
    read: str | None
    write: str | None
    names: str = "exact"
    united: bool = False
    opened_by: str = ""

    @property
    def suffix(self) -> str:
        """Suffix of files that are written."""
        return self.suffixes[0]


def _format(name: str, suffixes: str, keeps: str, opened_by: str, **options: Any) -> Format:
    here = f"pyannote_av.formats.registry:_{{}}_{name}"
    options = {"read": here.format("read"), "write": here.format("write"), **options}
    return Format(
        name, tuple(suffixes.split()), frozenset(keeps.split()), opened_by=opened_by, **options
    )


def _codec(module: str, name: str) -> dict[str, str]:
    whole = f"pyannote_av.formats.{module}"
    return {"read": f"{whole}:read_{name}", "write": f"{whole}:write_{name}"}


#: all formats, by name
FORMATS: Mapping[str, Format] = {
    one.name: one
    for one in (
        _format("rttm", ".rttm", "turns", "all tools of diarization", names="field"),
        _format("json", ".json", " ".join(PARTS), "pyannote-av, jq, Python"),
        _format(
            "csv", ".csv", "turns confidence", "spreadsheets, pandas, R", **_codec("csv", "csv")
        ),
        _format(
            "parquet",
            ".parquet",
            "turns confidence",
            "pandas, polars, DuckDB",
            **_codec("parquet", "parquet"),
        ),
        _format(
            "stm", ".stm", "turns text", "sclite, meeteval", names="field", **_codec("stm", "stm")
        ),
        _format(
            "ctm", ".ctm", "text words", "sclite, meeteval", names="field", **_codec("ctm", "ctm")
        ),
        _format(
            "srt",
            ".srt",
            "turns text",
            "players, subtitle editors",
            names="line",
            **_codec("srt", "srt"),
        ),
        _format(
            "vtt",
            ".vtt",
            "turns text",
            "browsers, subtitle editors",
            names="line",
            **_codec("webvtt", "webvtt"),
        ),
        _format(
            "textgrid",
            ".TextGrid",
            "turns text",
            "Praat",
            united=True,
            **_codec("textgrid", "textgrid"),
        ),
        _format(
            "eaf",
            ".eaf",
            "turns text",
            "ELAN",
            names="line",
            united=True,
            **_codec("eaf", "eaf"),
        ),
        _format(
            "audacity",
            ".audacity.txt .labels.txt",
            "turns",
            "Audacity",
            names="line",
            **_codec("audacity", "audacity"),
        ),
        _format(
            "txt",
            ".txt",
            "text",
            "people",
            names="line",
            read=None,
            write="pyannote_av.formats.text:write_text_of",
        ),
        _format("uem", ".uem", "", "md-eval, dscore, pyannote", read=None),
        _format("npz", ".npz", "faces", "FaceTracks.read, numpy"),
        _format("ava", ".ava.csv", "faces", "tools of AVA-ActiveSpeaker"),
        _format("mot", ".mot.txt", "faces", "MOTChallenge, CVAT, TrackEval"),
        _format("transcript", "", "text words", "", write=None),
    )
}
#: names of the formats that can be written
WRITTEN = tuple(name for name, one in FORMATS.items() if one.write is not None)
_BY_SUFFIX = {suffix.lower(): one for one in FORMATS.values() for suffix in one.suffixes}


def format_of(path: str | Path, name: str | None = None) -> Format:
    """Format called `name`, or else the one that the suffix of a file tells.

    Raises
    ------
    ValueError
        When there is no such format.
    """
    if name is not None:
        if name.lower() not in FORMATS:
            raise ValueError(f"{name!r} is not a format: there are {', '.join(FORMATS)}")
        return FORMATS[name.lower()]
    whole = Path(path).name.lower().removesuffix(".gz")
    fitting = [suffix for suffix in _BY_SUFFIX if whole.endswith(suffix)]
    if not fitting:
        raise ValueError(
            f"{path}: no format has this suffix: name one of {', '.join(FORMATS)}, "
            f"or use {', '.join(suffix for suffix in _BY_SUFFIX)}"
        )
    return _BY_SUFFIX[max(fitting, key=len)]


def read(
    path: str | Path,
    format: str | None = None,
    uri: str | None = None,
    frame_size: tuple[int, int] | None = None,
) -> Content:
    """Read a file of results.

    Parameters
    ----------
    path : str or Path
    format : str, optional
        Name of a format. By default, the suffix tells.
    uri : str, optional
        File to read, of those that `path` is about.
    frame_size : (int, int), optional
        Width and height of the displayed picture, which MOT files do not hold.

    Raises
    ------
    ReadError
        With file and line, when the file is malformed.
    ValueError
        When the format is unknown or cannot be read, or when `path` is about several files, and
        `uri` is none of them.
    FileNotFoundError
    """
    chosen = format_of(path, format)
    if chosen.read is None:
        raise ValueError(f"{path}: {chosen.name} is written only, it holds no turns to read")
    options = {"frame_size": frame_size} if chosen.name == "mot" else {}
    found = _function(chosen.read)(path, **options)
    if not isinstance(found, dict):
        return found
    if uri is None and len(found) == 1:
        return next(iter(found.values()))
    if uri not in found:
        names = ", ".join(map(repr, list(found)[:5])) + (", ..." if len(found) > 5 else "")
        about = f"{len(found)} files: {names}" if found else "no file"
        raise ValueError(
            f"{path} is about {about}; " + ("name one with uri" if uri is None else f"not {uri!r}")
        )
    return found[uri]


def write(output: Any, path: str | Path, format: str | None = None) -> Path:
    """Write a result to a file; return its path.

    Parameters
    ----------
    output : AVDiarizeOutput, Annotation, Transcript, FaceTracks or Content
    path : str or Path
    format : str, optional
        Name of a format. By default, the suffix tells.

    Raises
    ------
    ValueError
        When the format is unknown or cannot be written, or cannot hold the result.
    """
    from pyannote_av.formats.content import Content

    chosen = format_of(path, format)
    if chosen.write is None:
        raise ValueError(f"{chosen.name} is read only")
    content = Content.of(output)
    # outputs of pipelines write JSON themselves
    whole = output if chosen.name == "json" and hasattr(output, "serialize") else content
    _function(chosen.write)(whole, Path(path))
    return Path(path)


def lost(content: Content, format: Format) -> list[str]:
    """What a format does not keep of a result, in sentences."""
    transcript = content.transcript
    parts = {
        "turns": len(content.speaker_diarization) > 0 and transcript is None,
        "confidence": bool(content.provenance),
        "text": transcript is not None,
        "words": transcript is not None and any(cue.words for cue in transcript.cues),
        "faces": content.face_tracks is not None,
        "audio_only": content.audio_only is not None,
        "report": content.report is not None,
    }
    if not format.keeps & {"text"}:
        parts["words"] = False
    missing = [PARTS[part] for part, there in parts.items() if there and part not in format.keeps]
    notes = []
    if missing:
        verb = "are" if len(missing) > 1 or not missing[0].startswith("the ") else "is"
        if missing == [PARTS["audio_only"]]:
            verb = "are"
        notes.append(f"{_listed(missing)} {verb} not kept")
    if transcript is not None and {"turns", "text"} <= format.keeps and format.name != "json":
        notes.append("turns are those of the words: speech without words is not kept")
    if "turns" in format.keeps or "text" in format.keeps:
        notes += _renamed(content, format)
    if format.united and (number := _overlaps(content)):
        notes.append(f"{number} turns that overlap another turn of the same speaker are united")
    return notes


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _renamed(content: Content, format: Format) -> list[str]:
    spelled = {"field": field_name, "line": one_line, "exact": str}[format.names]
    labels = content.speaker_diarization.labels()
    changed = [(label, spelled(label)) for label in labels if spelled(label) != label]
    if not changed:
        return []
    more = f", and {len(changed) - 3} more" if len(changed) > 3 else ""
    return ["names change: " + ", ".join(f"{a!r} to {b!r}" for a, b in changed[:3]) + more]


def _overlaps(content: Content) -> int:
    from pyannote_av.formats.content import by_speaker

    cues = content.cues()
    return len(cues) - sum(map(len, by_speaker(cues).values()))


def _function(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    return getattr(import_module(module), function)


def _read_rttm(path: str | Path) -> dict[str, Content]:
    from pyannote_av.formats.annotations import read_rttm
    from pyannote_av.formats.content import Content

    return {uri: Content(turns) for uri, turns in read_rttm(path).items()}


def _write_rttm(content: Content, path: Path) -> None:
    from pyannote_av.formats.rttm import write_rttm

    write_rttm(content.speaker_diarization, path)


def _write_uem(content: Content, path: Path) -> None:
    from pyannote_av.formats.uem import whole_file, write_uem

    write_uem(whole_file(content), path)


def _read_json(path: str | Path) -> Content:
    """A result, or face tracks or a transcript in JSON"""
    from pyannote_av.core.reading import TRACKS_LIMIT, read_json
    from pyannote_av.formats.content import Content
    from pyannote_av.formats.json import read_content

    try:
        return Content.from_dict(read_content(path), str(path))
    except ReadError:
        content = read_json(path, TRACKS_LIMIT, nan=True)
        if not isinstance(content, dict) or "diarization" in content:
            raise
        if "tracks" in content:
            return _read_npz(path)
        if "segments" in content:
            return _read_transcript(path)
        raise


def _write_json(content: Content, path: Path) -> None:
    from pyannote_av.formats.json import write_json

    write_json(content, path)


def _read_transcript(path: str | Path) -> Content:
    from pyannote_av.formats.content import Content
    from pyannote_av.formats.transcripts import read_transcript

    return Content.of(read_transcript(path))


def _read_npz(path: str | Path) -> Content:
    from pyannote_av.core.tracks import FaceTracks
    from pyannote_av.formats.content import Content

    return Content.of(FaceTracks.read(path))


_read_ava = _read_npz


def _tracks(content: Content, path: Path) -> Any:
    if content.face_tracks is None:
        raise ValueError(f"{path}: there are no face tracks to write")
    return content.face_tracks


def _write_npz(content: Content, path: Path) -> None:
    _tracks(content, path).write(path)


_write_ava = _write_npz


def _read_mot(path: str | Path, frame_size: tuple[int, int] | None) -> Content:
    from pyannote_av.formats.content import Content
    from pyannote_av.formats.mot import read_mot

    if frame_size is None:
        raise ValueError(f"{path}: MOT holds pixels, and the size of the picture is not known")
    return Content.of(read_mot(path, frame_size, uri=Path(path).name.split(".")[0]))


def _write_mot(content: Content, path: Path) -> None:
    from pyannote_av.formats.mot import write_mot

    write_mot(_tracks(content, path), path)
