"""The page as text: its data, its security policy, its pictures, and the commands that write it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from importlib.resources import files
from pathlib import Path
from urllib.parse import unquote

import cv2
import numpy as np
import pytest
from media import write_media

from pyannote_av.cli.view import find_recording, page_of_json
from pyannote_av.core.tracks import FaceTracks
from pyannote_av.formats.json import read_json
from pyannote_av.player.faces import best_rows, face_pictures
from pyannote_av.player.page import SCRIPTS, key_of_page, make_page, relative_address, write_page
from pyannote_av.player.tracks import TOLERANCE, first_rows, knots, page_tracks

TURN = {"start": 0.5, "end": 2.0, "speaker": "A"}


def result(**more) -> dict:
    return {"uri": "talk", "diarization": [TURN], "exclusive_diarization": [TURN], **more}


def data_of(page: str) -> dict:
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', page)[1]
    )


def moving(rows: int = 500, tracks: int = 3) -> FaceTracks:
    """Tracks with gaps that move unevenly and tremble."""
    rng = np.random.default_rng(0)
    time = np.tile(np.arange(rows) / 25, tracks)
    track = np.repeat(np.arange(tracks) * 2, rows)
    centre = 0.5 + 0.2 * np.sin(time + track)[:, None] * [1, 0.3]
    centre = centre + rng.normal(0, 0.0003, centre.shape)
    keep = rng.random(len(time)) > 0.01
    box = np.hstack([centre - 0.1, centre + 0.1])
    return FaceTracks(time[keep], track[keep], box[keep], speaker={0: "A", 2: "B"})


# --- face tracks ---


def test_knots_give_every_box_to_the_tolerance():
    tracks = moving()
    first = first_rows(tracks)
    rows = knots(tracks.time, tracks.box, first)
    assert len(rows) < len(tracks) / 3
    last = np.r_[first[1:], len(tracks)] - 1
    assert {*first, *last} <= set(rows.tolist())
    for begin, end in zip(first, last, strict=True):
        some = rows[(rows >= begin) & (rows <= end)]
        for column in range(4):
            time = tracks.time[begin : end + 1]
            again = np.interp(time, tracks.time[some], tracks.box[some, column])
            error = np.abs(again - tracks.box[begin : end + 1, column])
            assert error.max() <= TOLERANCE + 1e-9


def test_runs_end_at_gaps_and_tracks():
    time = np.r_[np.arange(3), np.arange(5, 7), np.arange(2)] / 25
    tracks = FaceTracks(time, [1, 1, 1, 1, 1, 4, 4], np.tile([0, 0, 0.5, 0.5], (7, 1)))
    assert first_rows(tracks).tolist() == [0, 3, 5]
    content = page_tracks(tracks, {})
    assert content["ids"] == [1, 4]
    assert content["owner"] == [-1, -1]
    assert np.frombuffer(base64.b64decode(content["track"]), "<u4").tolist() == [0, 0, 1]
    assert np.frombuffer(base64.b64decode(content["first"]), "<u4").tolist() == [0, 2, 4, 6]


def test_no_faces():
    assert len(knots(np.empty(0), np.empty((0, 4)), first_rows(FaceTracks.empty()))) == 0
    assert page_tracks(FaceTracks.empty(), {})["ids"] == []


def test_the_face_picture_is_of_the_largest_frontal_face(tmp_path):
    """A face in profile is larger, and a small one is frontal."""
    colours = {0: (200, 30, 30), 1: (30, 200, 30), 2: (30, 30, 200)}

    def draw(t: float) -> np.ndarray:
        return np.full((120, 160, 3), colours[min(int(t), 2)], np.uint8)

    video = write_media(tmp_path / "talk.mp4", duration=3, size=(160, 120), draw=draw)
    time = np.arange(75) / 25
    half = np.where(time < 1, 0.15, np.where(time < 2, 0.25, 0.3))
    box = np.stack([0.5 - half, 0.5 - half, 0.5 + half, 0.5 + half], axis=1)
    landmarks = np.tile(
        np.array([[0.45, 0.4], [0.55, 0.4], [0.5, 0.5], [0.45, 0.6], [0.55, 0.6]]), (75, 1, 1)
    )
    landmarks[time >= 2, 2, 0] = 0.56  # the nose beside the eyes
    tracks = FaceTracks(time, np.zeros(75), box, landmarks, speaker={0: "A"}, frame_size=(160, 120))
    assert 1 <= time[best_rows(tracks)["A"]] < 2
    picture = face_pictures(video, tracks)["A"]
    image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (96, 96, 3)
    assert image.mean(axis=(0, 1)).argmax() == 1  # green
    assert len(picture) < 10_000


def test_a_video_that_cannot_be_read_gives_no_pictures(tmp_path, caplog):
    (tmp_path / "talk.mp4").write_bytes(b"nothing")
    assert face_pictures(tmp_path / "talk.mp4", moving()) == {}
    assert "no pictures of faces" in caplog.text


# --- the page ---


def test_the_policy_allows_the_own_script_and_style_and_nothing_else(tmp_path):
    page = make_page(result(), tmp_path)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[1]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert "unsafe" not in policy
    assert "http" not in policy
    for tag, rule in (("script", "script-src"), ("style", "style-src")):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    # attributes with code or style are refused by the policy
    body = page.partition("<body>")[2].partition("<script")[0]
    assert not re.search(r"\s(on\w+|style)=", body)
    assert not re.search(r"(src|href)=.?(http|//)", page)


def test_what_is_filled_in_ends_no_element(tmp_path):
    name = "</script><!--<script>@@script@@\u2028&lt;\ud800"
    turns = [{"start": 0, "end": 1, "speaker": name}]
    page = write_page(
        {"uri": name, "diarization": turns, "report": {"reasons": [name]}}, tmp_path / "x.html"
    ).read_text(encoding="utf-8")
    assert data_of(page)["speakers"] == [name]
    assert page.count("<script") == 2
    assert "<!--" not in page.partition("<title>")[2]


def test_the_files_of_the_program_are_in_the_package():
    folder = files("pyannote_av.player") / "web"
    names = {one.name for one in folder.iterdir()}
    assert names == {"page.html", "style.css", *SCRIPTS}


def test_data_are_columns(tmp_path):
    turns = [
        TURN | {"confidence": 0.5, "modality": "audio"},
        {"start": 3, "end": 4, "speaker": "B"},
    ]
    report = {
        "duration": 9.5,
        "problems": ["sound is silent", "a gap from 1.50 to 2.00 s in talk.mp4"],
        "ignored_regions": [{"start": 0.0, "end": 1.0, "reason": "dark"}],
    }
    content = result(diarization=turns, audio_only=[TURN], report=report)
    data = data_of(make_page(content, tmp_path))
    assert data["speakers"] == ["A", "B"]
    assert data["turns"] == {
        "start": [500, 3000],
        "end": [2000, 4000],
        "speaker": [0, 1],
        "confidence": [0.5, None],
        "modality": ["audio", None],
    }
    assert data["duration"] == 9.5
    assert data["audioSpeakers"] == ["A"]
    assert data["notes"] == [[0, 1000, "sound alone: dark"], [1500, 2000, report["problems"][1]]]
    assert data["media"]["kind"] == "audio"


def test_the_recording_is_found_from_the_page(tmp_path):
    odd = tmp_path / "my talks" / "a #1 50%?.mp4"
    address = relative_address(odd, tmp_path / "out" / "deep")
    assert unquote(address) == "../../my talks/a #1 50%?.mp4"
    assert not set(" #?") & set(address)
    data = data_of(make_page(result(), tmp_path, odd))
    assert data["media"] == {
        "kind": "video",
        "name": "a #1 50%?.mp4",
        "src": "my%20talks/a%20%231%2050%25%3F.mp4",
        "type": "video/mp4",
    }


def test_embedding_has_a_limit(tmp_path):
    video = tmp_path / "talk.mp4"
    video.write_bytes(b"x" * 3000)
    with pytest.raises(ValueError, match=r"talk\.mp4 has 0\.0 MB, and 0\.001 MB .*--max-embed-mb"):
        write_page(result(), tmp_path / "talk.html", video, embed=True, max_embed_mb=0.001)
    assert not (tmp_path / "talk.html").exists()
    page = make_page(result(), tmp_path, video, embed=True)
    assert base64.b64encode(b"x" * 3000).decode() in page
    assert data_of(page)["media"]["src"] == ""


# --- commands ---


@pytest.fixture
def talk(tmp_path) -> Path:
    path = tmp_path / "out" / "talk.json"
    path.parent.mkdir()
    path.write_text(json.dumps(result()))
    return path


def test_a_recording_is_found_next_to_its_result(talk, tmp_path):
    assert find_recording(talk) is None
    (talk.parent / "talk.MP4").write_bytes(b"")
    assert find_recording(talk) == talk.parent / "talk.MP4"
    (talk.parent / "talk.MP4").unlink()
    # or where apply found it
    deep = talk.parent / "a" / "b.json"
    recording = tmp_path / "videos" / "b.mkv"
    for path in (deep, recording, talk.parent / ".pyannote_av" / "files.json"):
        path.parent.mkdir()
        path.touch()
    (talk.parent / ".pyannote_av" / "files.json").write_text(json.dumps({"a/b": str(recording)}))
    assert find_recording(deep) == recording


def test_a_page_is_made_once(talk):
    page = page_of_json(talk)
    assert page == talk.with_suffix(".html")
    stamp = page.stat().st_mtime_ns
    assert page_of_json(talk).stat().st_mtime_ns == stamp
    talk.write_text(json.dumps(result(diarization=[TURN | {"speaker": "B"}])))
    before = key_of_page(page)
    page_of_json(talk)
    assert key_of_page(page) != before
    page.write_text("<html>mine</html>")
    with pytest.raises(FileExistsError, match="no page of pyannote-av"):
        page_of_json(talk)


def run(monkeypatch, *arguments) -> int:
    from pyannote_av.cli import main

    monkeypatch.setattr("sys.argv", ["pyannote-av", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code or 0


def test_view_opens_the_page_of_a_result(talk, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or True)
    assert run(monkeypatch, "view", talk) == 0
    assert opened == [talk.with_suffix(".html").as_uri()]
    assert run(monkeypatch, "view", talk, "--no-open", "--into", talk.parent / "pages") == 0
    assert (talk.parent / "pages" / "talk.html").is_file()
    assert len(opened) == 1
    talk.write_text('{"text": "", "segments": []}')
    assert run(monkeypatch, "view", talk) == 2
    assert "a transcript, such as those of Whisper" in capsys.readouterr().err
    assert run(monkeypatch, "view", talk.parent / "gone.json") == 2


def test_view_diarizes_a_recording_first(tmp_path, monkeypatch):
    video = write_media(tmp_path / "silent.mp4", duration=1.0)
    into = tmp_path / "out"
    command = ("view", video, "--no-open", "--pipeline", "audio", "--into", into)
    assert run(monkeypatch, *command) == 0
    page = into / "silent.html"
    assert data_of(page.read_text(encoding="utf-8"))["media"]["src"] == "../silent.mp4"
    written = {path: path.stat().st_mtime_ns for path in into.glob("silent.*")}
    assert {path.suffix for path in written} == {".rttm", ".json", ".html"}
    assert run(monkeypatch, *command) == 0  # nothing is done again
    assert {path: path.stat().st_mtime_ns for path in into.glob("silent.*")} == written


def test_an_output_shows_itself(talk, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    output = read_json(talk)
    page = output.view()
    assert opened == [page.as_uri()]
    assert page.name == "talk.html"
    assert output.view(path=talk.parent / "x.html", open_browser=False).name == "x.html"
    assert len(opened) == 1
