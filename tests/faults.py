"""The table of faults that documentation and tests share.

`python tests/faults.py` writes ``docs/faults.md`` anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import import_module
from importlib.util import find_spec
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

For every file, either the output is right, or the report says what is missing, or the file is
refused with an error that says why. This page lists how each fault is handled. The last column
shows a part of the message. Messages are in `report.problems` of the result, in the JSON that
`pyannote-av apply` writes, and in the error if a file is refused. A dash means that there is no
message, because nothing is lost.

`tests/faults_picture.py` and `tests/faults_sound.py` define the rows and make the files, and the
tests check each row. `python tests/faults.py` writes this page.
"""


class Row(Protocol):
    """One fault of a list"""

    id: str
    fault: str
    done: str
    said: str | None


def lists() -> list[tuple[str, Sequence[Row]]]:
    """Title and rows of each section"""
    there = [(title, name) for title, name in SECTIONS if find_spec(name) is not None]
    return [(title, import_module(name).FAULTS) for title, name in there]


def table(rows: Iterable[Row]) -> str:
    """Rows as a table of Markdown"""
    lines = ["| | fault | what is done | what is said |", "|---|---|---|---|"]
    for row in rows:
        said = "–" if row.said is None else f"`{row.said}`" if row.said else "a sentence"
        cells = (f"`{row.id}`", row.fault, row.done, said)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def page(sections: Iterable[tuple[str, Sequence[Row]]]) -> str:
    """Content of ``docs/faults.md``"""
    parts = [f"## {title}\n\n{table(rows)}\n" for title, rows in sections]
    return "\n".join([HEAD, *parts])


if __name__ == "__main__":
    PAGE.write_text(page(lists()), encoding="utf-8")
