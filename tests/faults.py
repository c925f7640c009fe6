"""The table of faults that documentation and tests share.

`python tests/faults.py` writes ``docs/faults.md`` anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol

PAGE = Path(__file__).resolve().parent.parent / "docs" / "faults.md"

# title of a section, and the module with its list FAULTS
SECTIONS = (
    ("Pictures, tracks and whole files", "faults_picture"),
    ("Sound and the clock", "faults_sound"),
)

HEAD = """\
# Faulty files

A faulty file gives the right result, a result with a report of what is missing, or a clear error.
This page lists the outcome of each fault. The last column quotes the message, which is in
`report.problems` of the result, in the JSON that `pyannote-av apply` writes, or in the error if the
file is refused. A dash means that there is no message, because nothing is lost.

`tests/faults_picture.py` and `tests/faults_sound.py` contain these rows and create the files. The
tests check every row. `python tests/faults.py` writes this page. [Time and sound](media.md) and
[pictures and tracks](pictures_and_tracks.md) explain the rules.
"""


class Row(Protocol):
    """One fault of a list"""

    id: str
    fault: str
    outcome: str
    message: str | None


def lists() -> list[tuple[str, Sequence[Row]]]:
    """Title and rows of each section"""
    return [(title, import_module(name).FAULTS) for title, name in SECTIONS]


def table(rows: Iterable[Row]) -> str:
    """Rows as a table of Markdown"""
    lines = ["| | fault | outcome | message |", "|---|---|---|---|"]
    for row in rows:
        message = "–" if row.message is None else f"`{row.message}`"
        cells = (f"`{row.id}`", row.fault, row.outcome, message)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def page(sections: Iterable[tuple[str, Sequence[Row]]]) -> str:
    """Content of ``docs/faults.md``"""
    parts = [f"## {title}\n\n{table(rows)}\n" for title, rows in sections]
    return "\n".join([HEAD, *parts])


if __name__ == "__main__":
    PAGE.write_text(page(lists()), encoding="utf-8")
