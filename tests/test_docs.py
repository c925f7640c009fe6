"""What README and documentation tell users to type does what they say."""

import json
import re
import shlex
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from conversations import write_speech
from scenes import SMALL, cut_sample

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
def folder(sample, short_sample, tmp_path_factory) -> Path:
    """What readers have at hand: the sample, and some seconds of it as `interview.mp4`."""
    folder = tmp_path_factory.mktemp("made")
    for path in short_sample.values():
        shutil.copy(path, folder / path.name)
    cut_sample(sample, (13.0, 19.2), size=SMALL).write(folder / "interview.mp4")
    (folder / "speech").mkdir()
    write_speech(folder / "speech")
    (folder / "said").mkdir()
    said = {"start": 0.2, "end": 2.0, "text": " Hello there.", "words": []}
    (folder / "said" / "interview.json").write_text(json.dumps({"segments": [said]}))
    (folder / "interviews.lst").write_text("sample\n")
    (folder / "sample.uem").write_text("sample 1 0.000 8.000\n")
    (folder / "database.yml").write_text(PROTOCOL)
    return folder


#: a protocol of readers
PROTOCOL = """
Protocols:
  Mine:
    SpeakerDiarization:
      Interviews:
        development:
          uri: interviews.lst
          video: ./{uri}.mp4
          annotation: ./{uri}.rttm
          annotated: ./{uri}.uem
          face_tracks: ./{uri}.tracks.npz
"""


#: pages that repeat README, or run whole networks and several pipelines
SLOW = (
    "pictures_and_tracks.md",
    "index.md",
    "quickstart.md",
    "hmsanet.md",
    "active_speaker.md",
    "batch.md",
    "corpora.md",
    "evaluation.md",
    "formats.md",
    "sharing.md",
    "training.md",
    "tuning.md",
    "player.md",
    "windows.md",
)


def pages():
    for page in PAGES:
        if blocks(page):
            marks = [pytest.mark.slow] if page.name in SLOW else []
            yield pytest.param(page, id=str(page.relative_to(ROOT)), marks=marks)


@pytest.mark.parametrize("page", pages())
def test_code_blocks_run(page, folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
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


@pytest.mark.slow
@pytest.mark.parametrize("builder", ["dummy", "html"])
def test_documentation_builds(builder, tmp_path):
    """Without a warning: references lead somewhere, and docstrings are well formed"""
    sphinx = pytest.importorskip("sphinx.cmd.build", reason="pip install '.[doc]'")
    docs = str(Path(__file__).resolve().parents[1] / "docs")
    assert sphinx.build_main(["-q", "-W", "-b", builder, docs, str(tmp_path)]) == 0


def test_links_lead_somewhere():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:\s]+?)(?:#[^)]*)?\)", text):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
