"""Audacity labels: start, end and name of each turn, separated by tabs.

Audacity reads them with File > Import > Labels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyannote_av.core.atomic import write_text
from pyannote_av.core.reading import ReadError
from pyannote_av.core.transcript import Cue
from pyannote_av.formats.content import Content
from pyannote_av.formats.lines import lines_of, one_line, times, written_names


def to_audacity(output: Any) -> str:
    """Turns as labels.

    Parameters
    ----------
    output : AVDiarizeOutput, Annotation, Transcript or Content

    Raises
    ------
    ValueError
        When two speakers would get the same name.
    """
    turns = Content.of(output).speaker_diarization
    names = written_names(turns.labels(), "labels of Audacity", turns.uri)
    return "".join(
        f"{segment.start:.6f}\t{segment.end:.6f}\t{names[label]}\n"
        for segment, _, label in turns.itertracks(yield_label=True)
    )


def write_audacity(output: Any, path: str | Path) -> Path:
    """Write turns to a file of labels; return its path. See :func:`to_audacity`."""
    return write_text(path, to_audacity(output))


def read_audacity(path: str | Path) -> Content:
    """Turns of a file of labels. Labels without duration are left out, frequencies ignored.

    Raises
    ------
    ReadError
        With file and line, when a line is malformed.
    """
    cues = []
    for where, line in lines_of(path):
        # a line that begins with a backslash holds the frequencies of the label before
        if not line.strip() or line.startswith("\\"):
            continue
        fields = line.split("\t", 2)
        if len(fields) < 2:
            raise ReadError(f"{where}: start, end and name must be separated by tabs")
        start, end = times(where, fields[0].strip(), fields[1].strip())
        cues.append(Cue(start, end, "", one_line(fields[2]) if len(fields) > 2 else ""))
    return Content.of_cues(cues, Path(path).name.split(".")[0])
