"""What README and documentation tell users to type does what they say."""

import re
import shlex
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import av
import pytest

pytest.importorskip("skimage", reason="the sample needs scikit-image: pip install '.[sample]'")

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    ROOT / "README.md",
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts),
]
_BLOCK = re.compile(
    r"^(?P<skip><!-- not run: (?P<reason>.+?) -->\n+)?"
    r"^```(?P<language>python|bash)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, code) of the blocks that are run, at the lines that they have in the page."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        language, code = match["language"], match["code"]
        if match["skip"] or (language == "bash" and not code.startswith("pyannote-av ")):
            continue
        before = text.count("\n", 0, match.start("code"))
        found.append((language, "\n" * before + code))
    return found


def run_command(line: str, monkeypatch) -> None:
    """One command line of ours, in this process: another one would import torch again."""
    from pyannote_av.cli import main

    monkeypatch.setattr(sys, "argv", shlex.split(line))
    try:
        main()
    except SystemExit as end:
        if end.code:
            pytest.fail(f"{line} ended with {end.code}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What readers have at hand: the sample, and ten seconds of it as `interview.mp4`."""
    from pyannote_av.simulation.sample import make_sample

    folder = tmp_path_factory.mktemp("made")
    cut(make_sample(folder)["video"], folder / "interview.mp4", start=10, end=20)
    return folder


def cut(source: Path, target: Path, start: float, end: float) -> None:
    """Copy packets; `start` must be at a key frame."""
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        copies = {s.index: writer.add_stream_from_template(s) for s in reader.streams}
        for packet in reader.demux():
            if packet.pts is None or not start <= packet.pts * packet.time_base < end:
                continue
            shift = round(start / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = copies[packet.stream.index]
            writer.mux(packet)


@pytest.mark.parametrize(
    "page",
    [pytest.param(p, id=str(p.relative_to(ROOT))) for p in PAGES if blocks(p)],
)
def test_code_blocks_run(page, folder, tmp_path, monkeypatch):
    for path in folder.iterdir():
        shutil.copy(path, tmp_path / path.name)
    monkeypatch.chdir(tmp_path)
    namespace: dict = {"__name__": "__page__"}
    for language, code in blocks(page):
        if language == "python":
            exec(compile(code, str(page), "exec"), namespace)
        else:
            for line in code.replace("\\\n", " ").strip().splitlines():
                run_command(line, monkeypatch)


def test_the_reference_names_modules_that_are_there():
    for page in (ROOT / "docs/api").glob("*.md"):
        for name in re.findall(r"automodule:: (\S+)", page.read_text(encoding="utf-8")):
            assert find_spec(name) is not None, f"{page.name} names {name}"


def test_links_lead_somewhere():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:\s]+?)(?:#[^)]*)?\)", text):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
