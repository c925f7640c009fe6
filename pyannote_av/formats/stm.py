"""STM: one line per utterance, with speaker and text (NIST sclite; meeteval).

``FILE CHANNEL SPEAKER START END [<LABELS>] TEXT``, in seconds. Lines that begin with ``;;`` are
comments. Lines may overlap. Cues of nobody have the speaker
``(unknown)``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pyannote_av.core.atomic import write_text
from pyannote_av.core.reading import ReadError
from pyannote_av.core.text import field_name
from pyannote_av.core.transcript import Cue
from pyannote_av.formats.content import UNKNOWN, Content
from pyannote_av.formats.lines import lines_of, one_line, times, written_names

_LABELS = re.compile(r"<[^<>\s,]*(?:,[^<>\s,]*)+>(?:\s+|$)")


def to_stm(output: Any) -> str:
    """Utterances as STM lines. Without a transcript, their text is empty.

    Parameters
    ----------
    output : AVDiarizeOutput, Annotation, Transcript or Content

    Raises
    ------
    ValueError
        When two speakers would get the same name: names hold no white space in STM.
    """
    content = Content.of(output)
    cues, uri = content.cues(), field_name(content.uri or "<NA>")
    names = written_names((cue.speaker for cue in cues), "STM", content.uri, field_name)
    return "".join(
        f"{uri} 1 {names.get(cue.speaker, UNKNOWN)} {cue.start:.3f} {cue.end:.3f} "
        f"{one_line(cue.text)}".rstrip()
        + "\n"
        for cue in cues
    )


def write_stm(output: Any, path: str | Path) -> Path:
    """Write utterances to an STM file; return its path. See :func:`to_stm`."""
    return write_text(path, to_stm(output))


def read_stm(path: str | Path) -> dict[str | None, Content]:
    """Utterances of an STM file, by uri. Labels such as ``<o,f0,male>`` are left out.

    Raises
    ------
    ReadError
        With file and line, when a line is malformed.
    """
    cues: dict[str | None, list[Cue]] = {}
    for where, line in lines_of(path, comment=";;"):
        fields = line.split(None, 5)
        if len(fields) < 5:
            raise ReadError(f"{where}: {len(fields)} fields where at least 5 are expected")
        uri, _, speaker, start, end = fields[:5]
        start, end = times(where, start, end)
        text = fields[5].strip() if len(fields) > 5 else ""
        if labels := _LABELS.match(text):
            text = text[labels.end() :]
        speaker = None if speaker == UNKNOWN else speaker
        cues.setdefault(uri, []).append(Cue(start, end, text, speaker))
    return {uri: Content.of_cues(some, uri) for uri, some in cues.items()}
