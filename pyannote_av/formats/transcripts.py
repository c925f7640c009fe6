"""Readers of transcripts: JSON of Whisper and its relatives, SRT, WebVTT, CTM and STM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyannote_av.core.paths import no_such_file
from pyannote_av.core.reading import TRACKS_LIMIT, ReadError, read_json
from pyannote_av.core.transcript import Transcript
from pyannote_av.formats.ctm import read_ctm
from pyannote_av.formats.srt import read_transcript as read_srt_transcript
from pyannote_av.formats.stm import read_stm
from pyannote_av.formats.webvtt import read_webvtt
from pyannote_av.formats.whisper import from_json

#: suffixes of transcripts
SUFFIXES = (".json", ".srt", ".vtt", ".ctm", ".stm")


def read_transcript(path: str | Path) -> Transcript:
    """Read a transcript. The suffix of the file selects the format.

    JSON may be that of

    - Whisper, WhisperX, and the API of OpenAI (``segments``, perhaps with ``words``),
    - faster-whisper, as a list of its segments, or a list of words,
    - whisper.cpp (``transcription``), and pipelines of transformers (``chunks``),
    - this package (``transcript``).

    Words without times, as WhisperX has them for numbers, share the time between their neighbours.
    Speakers are those of the file, if it names any.

    Parameters
    ----------
    path : str or Path

    Raises
    ------
    ReadError
        With the file, and the line or the segment, when it is malformed or has no times.
    ValueError
        When the suffix is that of no transcript.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(no_such_file(path))
    suffix = path.suffix.lower()
    if suffix == ".json":
        return from_json(read_json(path, TRACKS_LIMIT, nan=True), str(path), _stem(path))
    if suffix == ".srt":
        return read_srt_transcript(path)
    if suffix == ".vtt":
        content = read_webvtt(path)
    elif suffix in (".ctm", ".stm"):
        content = _of_lines(path)
    else:
        raise ValueError(f"{path}: transcripts are {', '.join(SUFFIXES)} files")
    return content.transcript or Transcript(uri=content.uri)


def _stem(path: Path) -> str:
    return path.name.split(".")[0]


def _of_lines(path: Path) -> Any:
    found = (read_ctm if path.suffix.lower() == ".ctm" else read_stm)(path)
    if len(found) != 1:
        names = ", ".join(map(repr, list(found)[:5])) or "nothing"
        raise ReadError(f"{path}: the transcript of one file is expected, but there is {names}")
    return next(iter(found.values()))
