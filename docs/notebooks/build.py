"""Make the notebooks from their sources: ``python docs/notebooks/build.py [NAME ...]``.

A source is a Python file with cells in the percent format. ``# %%`` begins code,
``# %% [markdown]`` begins text in comments, and ``# %% [bash]`` begins shell commands in comments.
Notebooks are run in a temporary folder and written next to their sources, with their outputs. This
needs ``pip install 'pyannote-av[notebook]'``.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
SOURCES = ("from_video_to_transcript", "fine_tune_and_compare")


def cells_of(source: str) -> list[tuple[str, str]]:
    """(kind, text) of each cell of a source; `kind` is "markdown" or "code"."""
    cells = []
    for part in source.split("# %%")[1:]:
        head, _, text = part.partition("\n")
        kind = head.strip(" []")
        if kind:
            lines = [line.removeprefix("#").removeprefix(" ") for line in text.strip().splitlines()]
            text = "\n".join(lines)
        if kind == "bash":
            text = f"%%bash -e\n{text}"
        cells.append(("markdown" if kind == "markdown" else "code", text.strip()))
    return cells


def make(name: str) -> Any:
    """Notebook of a source, without outputs."""
    from nbformat import v4

    cells = []
    for i, (kind, text) in enumerate(cells_of((FOLDER / f"{name}.py").read_text("utf-8"))):
        cell = v4.new_markdown_cell(text) if kind == "markdown" else v4.new_code_cell(text)
        cell.id = f"cell-{i}"
        cells.append(cell)
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def run(notebook: Any, folder: str | Path) -> Any:
    """Run a notebook in a folder. Warnings and progress bars are left out of its outputs."""
    from nbclient import NotebookClient

    commands = str(Path(sys.executable).parent)  # has pyannote-av
    if not os.environ["PATH"].startswith(commands):
        os.environ["PATH"] = os.pathsep.join([commands, os.environ["PATH"]])
    client = NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(folder)}})
    client.execute(env={**os.environ, "IPYTHONDIR": str(folder), "COLUMNS": "100"})
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
    notebook.metadata.pop("language_info", None)
    return notebook


def build(name: str) -> Path:
    """Run a notebook and write it; return its path."""
    import nbformat

    with tempfile.TemporaryDirectory() as folder:
        text = nbformat.writes(run(make(name), folder)).rstrip() + "\n"
        for place in (folder, str(Path.home()) + "/", str(FOLDER.parents[1])):
            if place in text:
                raise ValueError(f"{name}: an output has a path of this machine, {place}")
    path = FOLDER / f"{name}.ipynb"
    path.write_text(text, "utf-8")
    return path


if __name__ == "__main__":
    for one in sys.argv[1:] or SOURCES:
        print(build(one))
