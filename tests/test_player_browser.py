"""The page in a real browser: faces in their places, corrections, exports, bad input.

These tests drive Chromium by Playwright. They are skipped where one of the two is missing.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from media import write_media

from pyannote_av.core.io import Video
from pyannote_av.core.output_format import FORMAT, VERSION
from pyannote_av.core.tracks import FaceTracks
from pyannote_av.formats.annotations import read_rttm
from pyannote_av.formats.json import read_json
from pyannote_av.player.page import write_page

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
CHROMIUM = os.environ.get("PYANNOTE_AV_CHROMIUM") or shutil.which("chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium: apt-get install chromium")

#: width and height of the picture, side of the white square that stands for a face
SIZE, SIDE = (320, 240), 60
#: the square is out of the picture in between
GAP = (5.0, 6.0)
TURNS = [(0.5, 2.0, "A"), (1.5, 4.0, "B"), (4.5, 7.0, "A"), (7.5, 9.0, "B")]


def place(t: float) -> tuple[float, float]:
    """Left and top edge of the square: it moves, but not at an even pace."""
    return 20 + 200 * (0.5 - 0.5 * np.cos(t / 2)), 30 + 12 * t


def picture(t: float) -> np.ndarray:
    image = np.full((SIZE[1], SIZE[0], 3), 40, np.uint8)
    if not GAP[0] <= t < GAP[1]:
        x, y = map(round, place(t))
        image[y : y + SIDE, x : x + SIDE] = 255
    return image


def square_tracks() -> FaceTracks:
    time = np.arange(250) / 25
    time = time[(time < GAP[0]) | (time >= GAP[1])]
    corner = np.array([place(t) for t in time])
    box = np.hstack([corner, corner + SIDE]) / [*SIZE, *SIZE]
    track = (time >= GAP[1]).astype(int) + 3
    return FaceTracks(time, track, box, speaker={3: "A", 4: "A"}, uri="talk", frame_size=SIZE)


def result(turns=TURNS, tracks: FaceTracks | None = None, **more: Any) -> dict[str, Any]:
    """What `serialize` returns."""
    listed = [{"start": s, "end": e, "speaker": name} for s, e, name in turns]
    content = {"format": FORMAT, "version": VERSION, "uri": "talk", "diarization": listed}
    content |= {"exclusive_diarization": listed, "speakers": sorted({one[2] for one in turns})}
    if tracks is not None:
        content["face_tracks"] = tracks.to_dict()
    return content | more


@pytest.fixture(scope="session")
def square(made_once) -> Path:
    """A video of a white square."""
    folder = made_once(
        "square",
        lambda folder: write_media(folder / "talk.mp4", duration=10, size=SIZE, draw=picture),
    )
    return folder / "talk.mp4"


@pytest.fixture(scope="session")
def browser():
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"],
        )
        yield found
        found.close()


@dataclass
class Visit:
    """A page in the browser, with what went wrong in it and what it asked for."""

    page: Any
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def js(self, code: str) -> Any:
        return self.page.evaluate(code)

    def wait(self, condition: str) -> None:
        """Wait for a condition; `wait_for_function` is refused by the page's security policy."""
        for _ in range(400):
            if self.js(condition):
                return
            self.page.wait_for_timeout(25)
        pytest.fail(f"not within 10 s: {condition}")

    def seek(self, time: float) -> None:
        self.js(f"pyannoteAV.seek({time})")
        shows = f"!pyannoteAV.media.seeking && Math.abs(pyannoteAV.drawn.time - {time}) < 0.021"
        self.wait(shows)

    def turns(self) -> list[tuple[float, float, str]]:
        return [
            (turn["start"], turn["end"], turn["speaker"])
            for turn in json.loads(self.js("pyannoteAV.textOf('json')"))["diarization"]
        ]

    def download(self, kind: str, folder: Path) -> Path:
        self.page.click("#export summary")
        with self.page.expect_download() as started:
            self.page.click(f"[data-export={kind}]")
        path = folder / started.value.suggested_filename
        started.value.save_as(path)
        return path

    def lane(self, speaker: str) -> dict[str, float]:
        """Middle of a speaker's lane, and the left edge and width of all lanes."""
        names = self.page.locator("#names")
        name = names.get_by_role("button", name=speaker, exact=True).bounding_box()
        lanes = self.page.locator("#lanes").bounding_box()
        return {"y": name["y"] + name["height"] / 2, "x": lanes["x"], "width": lanes["width"]}

    def at(self, speaker: str, time: float) -> tuple[float, float]:
        """Place of a time in a speaker's lane."""
        lane, view = self.lane(speaker), self.js("pyannoteAV.view")
        return lane["x"] + (time - view["start"]) / view["span"] * lane["width"], lane["y"]


@pytest.fixture
def visit(browser, tmp_path) -> Iterator[Any]:
    """Opens pages; afterwards checks that none had an error or asked for more than its video."""
    visits, contexts = [], []

    def opened(
        content: dict[str, Any] | Path,
        video: Path | None = None,
        context: Any = None,
        **options: Any,
    ) -> Visit:
        written = {key: options.pop(key) for key in ("embed",) if key in options}
        if not isinstance(content, Path):
            content = write_page(content, tmp_path / "talk.html", video, **written)
        if context is None:
            options = {"viewport": {"width": 1280, "height": 800}} | options
            context = browser.new_context(offline=True, **options)
            contexts.append(context)
        one = Visit(context.new_page())
        visits.append(one)
        one.page.on("pageerror", lambda error: one.errors.append(str(error)))
        one.page.on("console", lambda said: said.type == "error" and one.errors.append(said.text))
        one.page.on("request", lambda request: one.requests.append(request.url))
        one.page.goto(content.as_uri())
        return one

    yield opened
    try:
        for one in visits:
            # a missing video is an error in the console, and nothing else is
            assert [text for text in one.errors if "ERR_FILE_NOT_FOUND" not in text] == []
            others = {url for url in one.requests if not url.startswith(("blob:", "data:"))}
            others -= {one.requests[0]}  # the page itself
            assert all(url.startswith("file:") and url.endswith(".mp4") for url in others)
    finally:
        for context in contexts:
            context.close()


@pytest.fixture
def square_page(visit, square) -> Visit:
    return visit(result(tracks=square_tracks()), square)


def white_area(one: Visit) -> np.ndarray:
    """x1, y1, x2, y2 of the white square on the stage, from a screenshot without the boxes."""
    one.page.click("#show-boxes")
    bounds = one.page.locator("#stage").bounding_box()
    image = cv2.imdecode(
        np.frombuffer(one.page.screenshot(clip=bounds), np.uint8), cv2.IMREAD_COLOR
    )
    one.page.click("#show-boxes")
    white = (image > 200).all(axis=2)
    white[:16, :16] = white[:16, -16:] = False  # round corners of the stage
    y, x = np.nonzero(white)
    return np.array([x.min(), y.min(), x.max() + 1, y.max() + 1])


def drawn_boxes(one: Visit) -> list[np.ndarray]:
    boxes = one.js("pyannoteAV.drawn")["boxes"]
    return [np.array([b["x"], b["y"], b["x"] + b["width"], b["y"] + b["height"]]) for b in boxes]


# --- the faces ---


@pytest.mark.parametrize("viewport", [(1280, 800), (390, 844)])
def test_boxes_are_where_the_faces_are(visit, square, viewport):
    width, height = viewport
    one = visit(result(tracks=square_tracks()), square, viewport={"width": width, "height": height})
    for time in (1.0, 3.24, 8.6):
        one.seek(time)
        (box,) = drawn_boxes(one)
        assert np.abs(box - white_area(one)).max() < 3  # pixels of a square of about 80
        # the box is on the canvas, in the colour of its speaker
        pixel = one.js(
            """(() => { const [b] = pyannoteAV.drawn.boxes, c = document.getElementById("boxes");
            const r = devicePixelRatio, at = [(b.x + b.width) * r, (b.y + b.height / 2) * r];
            return [...c.getContext("2d").getImageData(...at, 1, 1).data]; })()"""
        )
        assert np.abs(np.array(pixel) - [0x3F, 0x90, 0xDA, 255]).max() < 60


def test_no_box_in_a_gap_between_tracks(square_page):
    square_page.seek(4.9)
    assert [box["track"] for box in square_page.js("pyannoteAV.drawn.boxes")] == [3]
    for time in (5.1, 5.5, 5.9):
        square_page.seek(time)
        assert drawn_boxes(square_page) == []
    square_page.seek(6.04)
    assert [box["track"] for box in square_page.js("pyannoteAV.drawn.boxes")] == [4]


def test_boxes_tell_who_speaks(square_page):
    square_page.seek(1.0)
    assert [(box["name"], box["speaks"]) for box in square_page.js("pyannoteAV.drawn.boxes")] == [
        ("A", True)
    ]
    square_page.seek(3.0)
    assert square_page.js("pyannoteAV.drawn.boxes")[0]["speaks"] is False


def test_boxes_on_a_video_that_is_turned(visit, tmp_path):
    video = write_media(
        tmp_path / "turned.mp4", duration=2, size=SIZE, draw=lambda t: picture(2), rotation=90
    )
    (frame,) = Video().frames(str(video), 1.0, 1.04)
    y, x = np.nonzero(frame.image.min(axis=2) > 200)
    height, width = frame.image.shape[:2]
    assert height > width
    box = np.array([x.min(), y.min(), x.max() + 1, y.max() + 1]) / [width, height, width, height]
    time = np.arange(50) / 25
    tracks = FaceTracks(time, np.zeros(50), np.tile(box, (50, 1)), frame_size=(width, height))
    one = visit(result([(0.2, 1.0, "A")], tracks), video)
    one.seek(1.0)
    (box,) = drawn_boxes(one)
    assert np.abs(box - white_area(one)).max() < 3


def test_boxes_move_while_the_video_plays(square_page):
    square_page.seek(1.0)
    square_page.page.click("#play")
    square_page.wait("pyannoteAV.drawn.time > 1.5")
    square_page.page.click("#play")
    square_page.page.wait_for_timeout(200)
    time = square_page.js("pyannoteAV.drawn.time")
    (box,) = drawn_boxes(square_page)
    assert np.abs(box - white_area(square_page)).max() < 4, time


# --- seeking and playing ---


def test_click_keys_and_list_seek(square_page):
    page = square_page.page
    page.mouse.click(*square_page.at("B", 6.0))
    assert square_page.js("pyannoteAV.time") == pytest.approx(6.0, abs=0.05)
    page.keyboard.press("Home")
    assert square_page.js("pyannoteAV.time") == 0
    page.keyboard.press("ArrowRight")
    page.keyboard.press(".")
    assert square_page.js("pyannoteAV.time") == pytest.approx(1.04)
    page.keyboard.press("n")  # the next turn begins at 1.5
    assert square_page.js("pyannoteAV.time") == pytest.approx(1.5)
    page.keyboard.press("p")
    assert square_page.js("pyannoteAV.time") == pytest.approx(0.5)
    page.click("#names button >> nth=1")
    assert page.locator("#turns [role=option]").count() == 2  # those of B
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert square_page.js("pyannoteAV.time") == pytest.approx(7.5)
    ruler = page.locator("#ruler").bounding_box()
    page.mouse.move(ruler["x"] + ruler["width"] / 4, ruler["y"] + 5)
    page.mouse.down()
    page.mouse.move(ruler["x"] + ruler["width"] / 2, ruler["y"] + 5)
    page.mouse.up()
    assert square_page.js("pyannoteAV.time") == pytest.approx(5.0, abs=0.1)
    assert "5.0" in page.locator("#lanes").get_attribute("aria-valuetext")


def test_zoom_and_pan(square_page):
    page = square_page.page
    page.mouse.move(*square_page.at("A", 4.0))
    page.mouse.wheel(0, -400)
    square_page.wait("pyannoteAV.view.span < 6")
    view = square_page.js("pyannoteAV.view")
    assert view["start"] < 4.0 < view["start"] + view["span"]
    x, y = square_page.at("A", 4.2)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 100, y, steps=4)
    page.mouse.up()
    assert square_page.js("pyannoteAV.view.start") > view["start"]
    page.keyboard.press("0")
    assert square_page.js("pyannoteAV.view.span") == pytest.approx(10, abs=0.1)
    page.click("#zoom-in")
    assert square_page.js("pyannoteAV.view.span") == pytest.approx(5, abs=0.1)


def test_only_one_speaker_is_played(square_page):
    square_page.seek(3.6)
    square_page.page.click("[aria-label='Play only B']")
    # from the end of the second turn (4.0) to the beginning of the fourth (7.5)
    square_page.wait("pyannoteAV.time > 7.4")
    assert square_page.page.locator("#solo").inner_text() == "Only B"
    square_page.page.keyboard.press("Escape")
    assert square_page.page.locator("#solo").is_hidden()


def test_a_turn_is_played_and_looped(square_page):
    page = square_page.page
    page.mouse.click(*square_page.at("A", 1.2))
    page.locator("#turn-end").fill("0.9")
    page.keyboard.press("Tab")
    page.click("#turn-play")
    square_page.wait("pyannoteAV.media.paused && pyannoteAV.time >= 0.9")
    assert square_page.js("pyannoteAV.time") < 1.3
    square_page.js("window.jumps = 0, pyannoteAV.media.onseeking = () => { jumps += 1; }, 0")
    page.click("#loop")
    square_page.wait("jumps >= 3")
    assert 0.4 < square_page.js("pyannoteAV.time") < 1.3
    page.click("#loop")
    page.click("#play")


# --- corrections ---


def test_rename(square_page):
    page = square_page.page
    square_page.seek(1.0)
    name = page.locator("#speakers input[type=text]").first
    name.fill("Ann")
    name.press("Enter")
    assert square_page.js("pyannoteAV.drawn.boxes")[0]["name"] == "Ann"
    assert page.locator("#names button").first.inner_text() == "Ann"
    assert {turn[2] for turn in square_page.turns()} == {"Ann", "B"}
    page.keyboard.press("u")
    assert {turn[2] for turn in square_page.turns()} == {"A", "B"}
    # a name that another speaker has means that both are one: the page asks
    name = page.locator("#speakers input[type=text]").first
    name.fill("B")
    name.press("Enter")
    assert page.locator("#merge-title").inner_text() == "Merge A"
    page.click("#merge .primary")
    assert square_page.turns() == [(0.5, 4.0, "B"), (4.5, 7.0, "B"), (7.5, 9.0, "B")]
    assert page.locator("#speakers li").count() == 1
    assert square_page.js("pyannoteAV.drawn.boxes")[0]["name"] == "B"
    page.click("#undo")
    assert len(square_page.turns()) == 4


def test_a_boundary_is_dragged_and_undone(square_page):
    page, before = square_page.page, square_page.turns()
    page.mouse.move(*square_page.at("A", 7.0))
    page.mouse.down()
    page.mouse.move(*square_page.at("A", 8.0), steps=5)
    assert "Ends at" in page.locator("#tip").inner_text()
    page.mouse.up()
    turns = square_page.turns()
    assert turns[2][1] == pytest.approx(8.0, abs=0.03)
    assert turns[:2] == before[:2]
    # not beyond the next turn of the same speaker
    page.mouse.move(*square_page.at("A", 2.0))
    page.mouse.down()
    page.mouse.move(*square_page.at("A", 6.0), steps=5)
    page.mouse.up()
    assert square_page.turns()[0][1] == 4.5
    page.keyboard.press("Control+z")
    page.keyboard.press("u")
    assert square_page.turns() == before
    assert page.locator("#undo").is_disabled()
    page.keyboard.press("Shift+U")
    assert square_page.turns() == turns


def test_turns_are_given_away_added_split_and_deleted(square_page):
    page = square_page.page
    page.mouse.click(*square_page.at("A", 5.0))
    page.select_option("#turn-speaker", label="B")
    assert square_page.turns()[2] == (4.5, 7.0, "B")
    page.locator("#lanes").focus()
    page.keyboard.press("1")
    assert square_page.turns()[2] == (4.5, 7.0, "A")
    page.keyboard.press("x")
    assert [turn[2] for turn in square_page.turns()] == ["A", "B", "A", "A", "B"]
    page.keyboard.press("Delete")
    assert len(square_page.turns()) == 4
    page.mouse.dblclick(*square_page.at("B", 9.5))
    assert square_page.turns()[-1] == (pytest.approx(9.5, abs=0.05), pytest.approx(10), "B")
    page.keyboard.press("End")
    page.keyboard.press("Escape")
    page.keyboard.press("Home")
    page.keyboard.press("a")
    assert square_page.turns()[0] == (0, 0.5, "A")
    assert "added" in page.locator("#status").inner_text()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("[")  # a start cannot pass the end
    assert square_page.turns()[0][0] == pytest.approx(0.48)
    page.locator("#turn-start").fill("0.2")
    page.keyboard.press("Enter")
    assert square_page.turns()[0] == (0.2, 0.5, "A")


def test_a_new_speaker_and_a_new_colour(square_page):
    page = square_page.page
    page.click("#new-speaker")
    page.keyboard.type("Bea")
    page.keyboard.press("Enter")
    page.mouse.click(*square_page.at("A", 5.0))
    page.select_option("#turn-speaker", label="Bea")
    assert square_page.turns()[2] == (4.5, 7.0, "Bea")
    page.locator("#speakers input[type=color]").first.fill("#00ff00")
    assert square_page.js("pyannoteAV.state.speakers[0].colour") == "#00ff00"


def test_corrections_are_kept_in_the_browser(visit, square, browser):
    with browser.new_context(offline=True) as context:
        one = visit(result(tracks=square_tracks()), square, context=context)
        one.page.mouse.click(*one.at("A", 5.0))
        one.page.keyboard.press("Delete")
        path = Path(one.page.url.removeprefix("file://"))
        one.page.close()
        again = visit(path, context=context)
        assert len(again.turns()) == 4
        again.page.click("[data-answer=restore]")
        assert len(again.turns()) == 3
        again.page.click("#undo")
        assert len(again.turns()) == 4
        again.page.close()
        # another result does not get them
        other = visit(result([(0, 1, "A")]), square, context=context)
        assert other.page.locator("#restore").is_hidden()
        other.page.close()


# --- exports ---


def test_what_is_exported_is_read_again(square_page, tmp_path):
    page = square_page.page
    name = page.locator("#speakers input[type=text]").first
    name.fill('Ann, "the" <host>')
    name.press("Enter")
    page.mouse.click(*square_page.at("B", 8.0))
    page.locator("#turn-end").fill("8.25")
    page.keyboard.press("Tab")
    ann = 'Ann, "the" <host>'
    expected = [(0.5, 2.0, ann), (1.5, 4.0, "B"), (4.5, 7.0, ann), (7.5, 8.25, "B")]

    output = read_json(square_page.download("json", tmp_path))
    turns = output.speaker_diarization.itertracks(yield_label=True)
    assert [(turn.start, turn.end, label) for turn, _, label in turns] == expected
    exclusive = output.exclusive_speaker_diarization
    assert exclusive.get_overlap().duration() == 0
    assert exclusive.get_timeline().support() == output.speaker_diarization.get_timeline().support()
    assert list(output.provenance.values()) == [{"confidence": None, "edited": True}]
    truth, tracks = square_tracks(), output.face_tracks
    assert tracks.speaker == {3: ann, 4: ann}
    assert tracks.frame_size == SIZE
    np.testing.assert_allclose(tracks.time, truth.time, atol=1e-6)
    np.testing.assert_allclose(tracks.box, truth.box, atol=0.0012)

    path = square_page.download("rttm", tmp_path)
    assert path.name == "talk.corrected.rttm"
    turns = read_rttm(path)["talk"].itertracks(yield_label=True)
    found = [(round(turn.start, 3), round(turn.end, 3), label) for turn, _, label in turns]
    assert found == [(s, e, label.replace(" ", "_")) for s, e, label in expected]

    text = square_page.download("csv", tmp_path).read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(float(r["start"]), float(r["end"]), r["speaker"]) for r in rows] == expected

    cues = square_page.download("srt", tmp_path).read_text(encoding="utf-8").strip().split("\n\n")
    assert cues[3] == "4\n00:00:07,500 --> 00:00:08,250\nB"
    assert len(cues) == 4

    names = json.loads(square_page.download("names", tmp_path).read_text(encoding="utf-8"))
    assert names["names"] == {"A": ann, "B": "B"}


def test_what_is_not_corrected_is_exported_as_it_was(visit, square):
    turns = [
        {"start": 0.5, "end": 2.0, "speaker": "A", "confidence": 0.9, "modality": "audio+video"},
        {"start": 1.5, "end": 4.0, "speaker": "B", "confidence": None, "modality": "audio"},
    ]
    report = {"video_used": True, "reasons": ["x"], "duration": 10.0, "numbers": {"a": 0.5}}
    content = result(
        tracks=square_tracks(),
        diarization=turns,
        exclusive_diarization=[{"start": 0.5, "end": 2.0, "speaker": "A"}],
        audio_only=[{"start": 0.0, "end": 2.0, "speaker": "voice 1"}],
        report=report,
    )
    one = visit(content, square)
    again = json.loads(one.js("pyannoteAV.textOf('json')"))
    assert again.keys() == content.keys()
    assert [one.keys() for one in again["face_tracks"]["tracks"]] == [
        {"id", "speaker", "start", "end", "times", "boxes"}
    ] * 2
    for key in content.keys() - {"face_tracks"}:
        assert again[key] == content[key], key


def test_scores_of_faces_are_exported(visit, square):
    tracks, rng = square_tracks(), np.random.default_rng(0)
    speaking = rng.normal(0, 5, len(tracks)).round(3)
    speaking[7] = np.nan
    confidence = np.where(tracks.track == 3, rng.random(len(tracks)).round(3), np.nan)
    tracks = replace(tracks, speaking=speaking, confidence=confidence)
    one = visit(result(tracks=tracks), square)
    again = json.loads(one.js("pyannoteAV.textOf('json')"))["face_tracks"]
    assert ["confidence" in one for one in again["tracks"]] == [True, False]
    again = FaceTracks.from_dict(again)
    np.testing.assert_allclose(again.speaking, speaking, atol=1e-6)
    np.testing.assert_allclose(again.confidence, confidence, atol=1e-6)


# --- lanes of what sound alone said, of changes, and of notes ---


def test_changes_and_notes(visit, square):
    content = result(
        [(0.0, 2.0, "A"), (3.0, 5.0, "B"), (6.0, 8.0, "A")],
        square_tracks(),
        audio_only=[
            {"start": 0.0, "end": 2.02, "speaker": "x"},
            {"start": 3.0, "end": 4.0, "speaker": "x"},
            {"start": 4.0, "end": 5.0, "speaker": "y"},
            {"start": 8.0, "end": 9.0, "speaker": "x"},
            {"start": 6.0, "end": 8.0, "speaker": "x"},
        ],
        report={
            "video_used": True,
            "duration": 10.0,
            "reasons": ["<b>one</b> face"],
            "problems": ["video of talk.mp4 is damaged from 2.00 s to 2.50 s"],
            "ignored_regions": [{"start": 9.0, "end": 10.0, "reason": "no face"}],
        },
    )
    one = visit(content, square)
    changes = [(c["kind"], c["start"], c["end"]) for c in one.js("pyannoteAV.changes")]
    assert changes == [("relabelled", 3.0, 4.0), ("removed", 8.0, 9.0)]
    titles = one.page.locator("#names li").all_inner_texts()
    assert titles == ["A", "B", "Sound alone", "Changed by picture", "Problems"]
    x, _ = one.at("A", 2.25)
    lanes = one.page.locator("#names li").last.bounding_box()
    one.page.mouse.move(x, lanes["y"] + lanes["height"] / 2)
    assert "damaged from 2.00 s" in one.page.locator("#tip").inner_text()
    one.page.click("#tab-report")
    report = one.page.locator("#panel-report").inner_text()
    assert "<b>one</b> face" in report
    assert "no face" in report


# --- bad input ---

HOSTILE = [
    "<img src=x onerror=window.hit=1>",
    "</script><script>window.hit=1</script>",
    "\u202eright to left",
    "\u05d0\u05d1\u05d2",
    "\U0001f469\u200d\U0001f680",
    "__proto__",
    "@@script@@",
    "a\u2028b",
    '" onfocus="window.hit=1',
]


def test_hostile_names_are_text(visit, square):
    turns = [(i, i + 0.9, name) for i, name in enumerate(HOSTILE)]
    tracks = square_tracks().with_speakers({3: HOSTILE[0], 4: HOSTILE[1]})
    one = visit(result(turns, tracks, uri=HOSTILE[1]), square)
    one.seek(1.0)
    assert one.js("pyannoteAV.drawn.boxes")[0]["name"] == HOSTILE[0]
    assert one.js("window.hit") is None
    values = one.page.locator("#speakers input[type=text]").evaluate_all("a => a.map(e => e.value)")
    # one-line inputs show no line separators; the state has them
    assert sorted(values) == sorted(HOSTILE)
    assert sorted({turn[2] for turn in one.turns()}) == sorted(HOSTILE)
    assert one.page.locator("img[onerror]").count() == 0
    one.page.click("#tab-turns")
    assert one.page.locator("#turns [role=option]").count() == len(HOSTILE)


def test_two_hundred_speakers(visit, square):
    turns = [(i / 25, i / 25 + 0.5, f"SPEAKER_{i:03}") for i in range(200)]
    one = visit(result(turns), square)
    colours = one.js("pyannoteAV.state.speakers.map((one) => one.colour)")
    assert len(set(colours)) == 200
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in colours)
    names = one.page.locator("#names button")
    assert names.count() == 200
    names.last.scroll_into_view_if_needed()
    one.page.mouse.click(*one.at("SPEAKER_199", 8.1))
    assert one.page.locator("#turn-speaker option:checked").inner_text() == "SPEAKER_199"


def test_zero_turns(visit, square):
    one = visit(result([]), square)
    assert one.turns() == []
    one.page.keyboard.press("n")
    one.page.click("#tab-turns")
    assert one.page.locator("#panel-turns .empty").is_visible()
    one.page.keyboard.press("a")  # a turn needs somebody
    assert one.turns() == [(0.0, 1.0, "Speaker 1")]
    for kind in ("rttm", "json", "srt", "csv", "names"):
        assert one.js(f"typeof pyannoteAV.textOf('{kind}')") == "string"


def test_a_video_that_moved_is_asked_for(visit, square, tmp_path):
    one = visit(result(tracks=square_tracks()), tmp_path / "gone away.mp4")
    one.page.wait_for_selector("#missing:not([hidden])")
    assert "gone%20away.mp4" in one.page.locator("#missing p").inner_text()
    # the result can be read and corrected all the same
    one.page.mouse.click(*one.at("A", 5.0))
    one.page.keyboard.press("Delete")
    assert len(one.turns()) == 3
    one.page.set_input_files("#file", square)
    one.page.wait_for_selector("#missing", state="hidden")
    one.seek(1.0)
    assert len(drawn_boxes(one)) == 1


def test_a_page_without_a_video(visit):
    one = visit(result())
    assert "without its recording" in one.page.locator("#missing p").inner_text()
    one.page.keyboard.press("n")
    assert one.js("pyannoteAV.time") == 0.5


def test_an_embedded_video(visit, square):
    one = visit(result(tracks=square_tracks()), square, embed=True)
    one.seek(3.24)
    (box,) = drawn_boxes(one)
    assert np.abs(box - white_area(one)).max() < 3
    assert all(not url.endswith(".mp4") for url in one.requests)


def test_sound_without_pictures(visit, tmp_path):
    sound = write_media(tmp_path / "talk.m4a", duration=10, video=False)
    one = visit(result(), sound, embed=True)
    one.wait("pyannoteAV.media.readyState > 0")
    assert one.page.locator("audio").count() == 1
    assert one.page.locator("video").count() == 0
    assert one.page.locator("#show-boxes").is_hidden()
    one.page.keyboard.press("n")
    assert one.js("pyannoteAV.media.currentTime") == 0.5


# --- everybody can use it ---


def long_result(count: int = 5000, hours: float = 3.0) -> dict[str, Any]:
    """Many turns, and two faces in view all the time."""
    rng = np.random.default_rng(0)
    step = 3600 * hours / count
    turns = [
        (round(i * step, 3), round((i + rng.uniform(0.3, 1.3)) * step, 3), f"S{rng.integers(6)}")
        for i in range(count)
    ]
    last: dict[str, float] = {}
    for i, (start, end, name) in enumerate(turns):
        turns[i] = (max(start, last.get(name, 0.0)), max(end, last.get(name, 0.0) + 0.1), name)
        last[name] = turns[i][1]
    time = np.arange(0, 3600 * hours)
    count = len(time)
    drift = np.cumsum(rng.normal(0, 0.002, (2 * count, 2)), axis=0)
    drift = np.clip(drift, -0.1, 0.1)
    box = np.hstack([drift + np.array([0.2, 0.3]), drift + np.array([0.35, 0.6])])
    box[count:, [0, 2]] += 0.4
    tracks = FaceTracks(
        np.tile(time, 2), np.repeat([0, 1], count), box, speaker={0: "S0", 1: "S1"}, uri="talk"
    )
    return result(sorted(turns), tracks)


@pytest.fixture(scope="session")
def long_page(made_once) -> Path:
    folder = made_once("long", lambda folder: write_page(long_result(), folder / "long.html"))
    return folder / "long.html"


def test_of_many_turns_only_the_visible_ones_are_elements(visit, long_page):
    one = visit(long_page)
    one.page.click("#tab-turns")
    rows = one.page.locator("#turns [role=option]")
    assert 5 < rows.count() < 60
    assert rows.first.get_attribute("aria-setsize") == "5000"
    one.page.focus("#turns")
    one.page.keyboard.press("End")
    assert one.page.locator("#turns [aria-selected=true]").get_attribute("aria-posinset") == "5000"
    assert one.js("pyannoteAV.time") > 10_000
    assert one.js("document.querySelectorAll('*').length") < 1000


@pytest.mark.parametrize("width", [320, 390, 768, 1024])
def test_nothing_is_wider_than_the_screen(visit, square, width):
    content = result([(0, 3, "A" * 120), (3, 5, "B")], square_tracks().with_speakers({}))
    one = visit(content, square, viewport={"width": width, "height": 800})
    for tab in ("speakers", "turns", "report"):
        one.page.click(f"#tab-{tab}")
        assert one.js("document.documentElement.scrollWidth") <= width
    one.page.locator("#turns, #tab-turns").first.focus()
    one.page.keyboard.press("n")
    assert one.js("document.documentElement.scrollWidth") <= width


def test_touch(visit, square):
    one = visit(
        result(tracks=square_tracks()),
        square,
        viewport={"width": 390, "height": 844},
        has_touch=True,
        is_mobile=True,
    )
    x, _ = one.at("A", 5.5)
    canvas = one.page.locator("#lanes").bounding_box()
    one.page.touchscreen.tap(x, canvas["y"] + 30)
    assert one.js("pyannoteAV.time") == pytest.approx(5.5, abs=0.1)
    assert one.page.locator("#turn-start").input_value() == "4.50"


def test_keys_are_explained_and_colours_chosen(square_page):
    page = square_page.page
    page.keyboard.press("?")
    assert page.locator("#keys").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("#keys").is_hidden()
    page.click("#theme")
    assert square_page.js("document.documentElement.dataset.theme") == "dark"
    page.reload()
    assert square_page.js("document.documentElement.dataset.theme") == "dark"
    page.click("#tab-report")
    page.keyboard.press("ArrowLeft")
    assert page.locator("#tab-turns").get_attribute("aria-selected") == "true"
    assert page.locator("#panel-report").is_hidden()


def test_typing_is_not_taken_for_keys(square_page):
    name = square_page.page.locator("#speakers input[type=text]").first
    name.fill("")
    name.type("nux ?")
    assert name.input_value() == "nux ?"
    assert len(square_page.turns()) == 4


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_nothing_serious(visit, square, scheme, width):
    """https://github.com/dequelabs/axe-core: npm pack axe-core, and name its axe.min.js."""
    axe = os.environ.get("PYANNOTE_AV_AXE", "")
    if not Path(axe).is_file():
        pytest.skip("no axe: set PYANNOTE_AV_AXE to axe.min.js of the package axe-core")
    content = result(
        tracks=square_tracks(),
        audio_only=[{"start": 0.0, "end": 2.0, "speaker": "A"}],
        report={"video_used": True, "reasons": ["x"], "problems": ["odd"], "duration": 10.0},
    )
    one = visit(content, square, viewport={"width": width, "height": 800}, color_scheme=scheme)
    one.page.keyboard.press("n")
    script = Path(axe).read_text(encoding="utf-8")
    found = []
    for show in ("#tab-speakers", "#tab-turns", "#tab-report", "#help", "#export summary"):
        one.page.click(show)
        one.js(script)  # evaluated by the debugger, past the content security policy
        for issue in one.js("axe.run(document).then((result) => result.violations)"):
            found.append((show, issue["impact"], issue["id"], issue["nodes"][0]["html"][:200]))
        one.page.keyboard.press("Escape")
    assert found == []
