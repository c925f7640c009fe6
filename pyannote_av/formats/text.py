"""A transcript as text: one paragraph each time another speaker begins."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

from pyannote_av.core.atomic import write_text
from pyannote_av.formats.content import UNKNOWN, Content
from pyannote_av.formats.lines import one_line, written_names


def to_text(output: Any) -> str:
    """Transcript as text, ``Ann: What do you think?``, with a blank line between paragraphs.

    Parameters
    ----------
    output : AVDiarizeOutput, Transcript or Content

    Raises
    ------
    ValueError
        Without a transcript, or when two speakers would get the same name.
    """
    content = Content.of(output)
    if content.transcript is None:
        raise ValueError("a text needs words: add a transcript (--transcript, assign_speakers)")
    cues = [cue for cue in content.cues() if cue.text.strip()]
    names = written_names((cue.speaker for cue in cues), "the text", content.uri)
    paragraphs = []
    for speaker, some in groupby(cues, lambda cue: cue.speaker):
        said = " ".join(one_line(cue.text) for cue in some)
        paragraphs.append(f"{names.get(speaker, UNKNOWN)}: {said}\n")
    return "\n".join(paragraphs)


def write_text_of(output: Any, path: str | Path) -> Path:
    """Write a transcript to a text file; return its path. See :func:`to_text`."""
    return write_text(path, to_text(output))
