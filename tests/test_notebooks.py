"""The notebooks of the documentation: they run, and are those of their sources."""

import re
import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "notebooks"
nbformat = pytest.importorskip("nbformat", reason="pip install '.[notebook]'")
tool = runpy.run_path(str(FOLDER / "build.py"))


@pytest.mark.parametrize("name", tool["SOURCES"])
def test_notebooks_are_up_to_date_small_and_name_no_machine(name):
    path = FOLDER / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert [one.source for one in notebook.cells] == [
        one.source for one in tool["make"](name).cells
    ]
    assert path.stat().st_size < 500_000
    text = re.sub(r'"image/png": ".*?"|base64,[\w+/=]+', "", path.read_text("utf-8"))
    assert not re.search(r"/(home|root|tmp|work|Users)/", text)
    executed = {bool(one.execution_count) for one in notebook.cells if one.cell_type == "code"}
    assert len(executed) == 1  # as a whole


@pytest.mark.slow
@pytest.mark.parametrize("name", tool["SOURCES"])
def test_notebooks_run(name, tmp_path):
    pytest.importorskip("nbclient", reason="pip install '.[notebook]'")
    pytest.importorskip("ipykernel", reason="pip install '.[notebook]'")
    notebook = tool["run"](tool["make"](name), tmp_path)
    assert all(one.execution_count for one in notebook.cells if one.cell_type == "code")
