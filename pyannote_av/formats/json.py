"""JSON: speakers, turns with confidence and deciding modality, face tracks, report."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyannote_av.core import reading
from pyannote_av.core.atomic import write_text
from pyannote_av.core.output_format import FORMAT, VERSION
from pyannote_av.core.paths import no_such_file
from pyannote_av.core.reading import LONGEST, TRACKS_LIMIT, ReadError

if TYPE_CHECKING:
    from pyannote.audio.pipelines.speaker_diarization import DiarizeOutput
    from pyannote.core import Annotation

    from pyannote_av.core.output import AVDiarizeOutput, Report

_TURN = ("start", "end", "speaker")
# what other JSON files have, and this one lacks
_OTHERS = {
    "word_segments": "a transcript of WhisperX",
    "segments": "a transcript, such as those of Whisper",
    "transcription": "a transcript of whisper.cpp",
    "tracks": "a file of face tracks: read it with FaceTracks.read",
    "names": "a list of names of speakers",
}


def write_json(output: DiarizeOutput, path: str | Path) -> Path:
    """Write the result of ``output.serialize()`` to a JSON file; return its path."""
    return write_text(path, json.dumps(output.serialize(), allow_nan=False) + "\n")


def read_json(path: str | Path) -> AVDiarizeOutput:
    """Read what :func:`write_json` wrote.

    Times are rounded to milliseconds in such files, and embeddings are not written. Apart from
    that, the result equals what was written. Files of older versions, which have no ``version``,
    and files in pyannote.audio's own format are read as well.

    Parameters
    ----------
    path : str or Path
        Plain or ``.gz``.

    Raises
    ------
    ReadError
        With the name of the file, when it is truncated, of a newer version of this package or of
        another program, or when a turn has impossible times.
    FileNotFoundError
        When there is no such file.
    """
    return from_dict(read_content(path), str(path))


def read_content(path: str | Path) -> dict[str, Any]:
    """Content of a JSON file that :func:`write_json` wrote, as ``serialize`` returned it.

    Turns are checked, face tracks and the report are not. torch is not loaded.

    Raises
    ------
    ReadError, FileNotFoundError
        See :func:`read_json`.
    """
    if not Path(path).exists():
        raise FileNotFoundError(no_such_file(path))
    text = reading.read_text(path, TRACKS_LIMIT)
    try:
        content = reading.parse_json(text, str(path))
    except ReadError as error:
        if _is_truncated(text, error.__cause__):
            raise ReadError(f"{path} is truncated: it ends in the middle of its JSON") from error
        raise
    check_content(content, str(path))
    if content.get("uri") is None:
        content["uri"] = Path(path).name.removesuffix(".gz").removesuffix(".json") or None
    return content


def _is_truncated(text: str, error: BaseException | None) -> bool:
    """Whether JSON fails to parse because its end is missing."""
    text = text.rstrip()
    if not isinstance(error, json.JSONDecodeError) or not text.startswith(("{", "[")):
        return False
    # an unfinished "false" or number fails a few characters before the end
    return error.pos > len(text) - 8 or error.msg.startswith("Unterminated string")


def check_content(content: Any, where: str) -> None:
    """Raise ReadError if `content` is not what ``AVDiarizeOutput.serialize`` returns.

    Parameters
    ----------
    content : dict
    where : str
        Name of the source, for error messages.
    """
    if not isinstance(content, dict):
        raise ReadError(f"{where}: not a result of diarization, but a {type(content).__name__}")
    if "diarization" not in content:
        other = next((what for key, what in _OTHERS.items() if key in content), None)
        has = ", ".join(map(repr, list(content)[:5])) or "nothing"
        raise ReadError(
            f"{where}: not a result of diarization, but {other}"
            if other
            else f"{where}: not a result of diarization, it has no 'diarization' (but {has})"
        )
    if content.get("format", FORMAT) != FORMAT:
        raise ReadError(f"{where} has the format {content['format']!r}, not {FORMAT!r}")
    version = content.get("version", VERSION)
    if type(version) is not int or not 1 <= version <= VERSION:
        raise ReadError(
            f"{where} has version {version!r} of the format, and this pyannote-av reads version "
            f"{VERSION}: update it, or write the file again"
        )
    if not isinstance(content.get("uri"), (str, type(None))):
        raise ReadError(f"{where}: uri must be text, not {content['uri']!r}")
    for key in ("diarization", "exclusive_diarization", "audio_only"):
        if key in content:
            _check_turns(content[key], f"{where}, {key}")


def _check_turns(turns: Any, where: str) -> None:
    if not isinstance(turns, list):
        raise ReadError(f"{where}: a list of turns is expected, not {type(turns).__name__}")
    for number, turn in enumerate(turns):
        if not isinstance(turn, dict) or (missing := [key for key in _TURN if key not in turn]):
            lacks = f" (no {missing[0]!r})" if isinstance(turn, dict) else ""
            raise ReadError(f"{where}, turn {number} is not a turn{lacks}")
        if not isinstance(turn["speaker"], str):
            raise ReadError(f"{where}, turn {number}: a speaker is called {turn['speaker']!r}")
        for key in ("start", "end"):
            time = turn[key]
            if type(time) not in (int, float) or not math.isfinite(time) or abs(time) > LONGEST:
                raise ReadError(f"{where}, turn {number}: {key} is {time!r}, not a time in seconds")
        if turn["end"] < turn["start"]:
            raise ReadError(
                f"{where}, turn {number} ends at {turn['end']:.3f} s, before it starts "
                f"({turn['start']:.3f} s)"
            )


def from_dict(content: dict[str, Any], where: str = "diarization") -> AVDiarizeOutput:
    """Convert what ``output.serialize()`` returned back to an output.

    Parameters
    ----------
    content : dict
    where : str, optional
        Name of the source, for error messages.

    Raises
    ------
    ReadError
        See :func:`read_json`.
    """
    from pyannote_av.core.output import AVDiarizeOutput
    from pyannote_av.core.tracks import FaceTracks

    check_content(content, where)
    uri = content.get("uri")
    turns, provenance = _annotation(content["diarization"], uri)
    exclusive = content.get("exclusive_diarization", content["diarization"])
    tracks = report = audio_only = None
    if "face_tracks" in content:
        tracks = FaceTracks.from_dict(content["face_tracks"], f"{where}, face_tracks")
    if "report" in content:
        report = _report(content["report"], f"{where}, report")
    if "audio_only" in content:
        audio_only = _annotation(content["audio_only"], uri)[0]
    return AVDiarizeOutput(
        turns,
        _annotation(exclusive, uri)[0],
        face_tracks=tracks,
        report=report,
        audio_only=audio_only,
        provenance=provenance,
    )


def _annotation(turns: list[dict[str, Any]], uri: str | None) -> tuple[Annotation, dict]:
    """Turns as annotation, and whatever else the file says about each of them"""
    from pyannote.core import Annotation, Segment

    annotation, provenance = Annotation(uri=uri), {}
    width = len(str(len(turns)))
    for number, turn in enumerate(turns):
        # names of tracks are sorted as text, and keep simultaneous turns in the order of the file
        segment, track = Segment(turn["start"], turn["end"]), f"{number:0{width}}"
        if segment:
            annotation[segment, track] = turn["speaker"]
            if rest := {key: value for key, value in turn.items() if key not in _TURN}:
                provenance[segment, track] = rest
    return annotation, provenance


def _report(content: Any, where: str) -> Report:
    """Report from ``Report.to_dict``; keys of newer versions are left out"""
    from pyannote_av.core.output import Report

    if not isinstance(content, dict):
        raise ReadError(f"{where}: a mapping is expected, not {type(content).__name__}")
    report = Report()
    for one in fields(Report):
        if one.name not in content:
            continue
        value, default = content[one.name], getattr(report, one.name)
        wanted = (int, float) if type(default) is float else type(default)
        if default is not None and not isinstance(value, wanted):
            raise ReadError(f"{where}: {one.name} cannot be {value!r}")
        setattr(report, one.name, value)
    return report
