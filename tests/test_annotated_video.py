"""Results drawn into videos."""

import math
from fractions import Fraction

import numpy as np
import pytest
from pyannote.core import Annotation, Segment

from pyannote_av import FaceTracks, Video
from pyannote_av.core.files import MediaError
from pyannote_av.core.media import probe
from pyannote_av.core.output import AVDiarizeOutput
from pyannote_av.core.palette import colour_of, rgb
from pyannote_av.core.sources import PyAVSource
from pyannote_av.formats.json import write_json
from pyannote_av.vision.annotated_video import draw_video, is_drawn
from pyannote_av.vision.drawing import Boxes, Turns, label
from tests.media import Pictures, chirps, offset_at, write_media, write_streams
from tests.test_cli import run

SIZE = (192, 128)


def moving(seconds=2.0, speaker="Ann"):
    """A face that moves to the right by a tenth of the picture per second, from (0.2, 0.4)."""
    time = np.arange(round(seconds * 25)) / 25
    left = 0.2 + 0.1 * time
    box = np.stack([left, 0 * time + 0.4, left + 0.25, 0 * time + 0.8], axis=1)
    return FaceTracks(time, np.zeros(len(time), int), box, speaker={0: speaker})


def result(turns=((0.5, 1.5, "Ann"), (1.2, 1.9, "Bob")), tracks=None):
    annotation = Annotation(uri="talk")
    for i, (start, end, speaker) in enumerate(turns):
        annotation[Segment(start, end), i] = speaker
    return AVDiarizeOutput(annotation, annotation, face_tracks=tracks or moving())


def grey(time):
    return np.full((128, 192, 3), 90, np.uint8)


def pictures(path):
    """Times and RGB pictures of a file."""
    return [(p.time, p.converted("rgb24")) for p in PyAVSource(probe(path))(0.0)]


def near(pixel, colour, tolerance=40):
    return np.abs(np.asarray(pixel, int) - colour).max() <= tolerance


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    video = write_media(folder / "talk.mp4", duration=2.0, draw=grey, audio_signal=chirps)
    path = folder / "talk.annotated.mp4"
    seen = []
    problems = draw_video(result(), video, path, progress=lambda *times: seen.append(times))
    return video, path, problems, seen


@pytest.mark.parametrize(("time", "speaking"), [(0.2, False), (1.0, True), (1.8, False)])
def test_box_is_at_its_place(drawn, time, speaking):
    _, image = min(pictures(drawn[1]), key=lambda one: abs(one[0] - time))
    ann = np.array(rgb(colour_of(0)))
    left, right = ((0.2 + 0.1 * time + side) * 191 for side in (0.0, 0.25))
    row = image[round(0.6 * 127)].astype(int)
    marked = [x for x in range(192) if np.abs(row[x] - 90).max() > 18]
    assert min(marked) == pytest.approx(left, abs=4)
    assert max(marked) == pytest.approx(right, abs=4)
    assert len(marked) >= 7 if speaking else len(marked) <= 12
    if speaking:
        assert near(row[round(left)], ann)
    else:
        assert not near(row[round(left)], ann)
    assert near(image[round(0.6 * 127), round((left + right) / 2)], 90, 12)


def test_sound_and_times_are_kept(drawn):
    video, path, problems, seen = drawn
    old, new = (Video().waveform(str(one)) for one in (video, path))
    assert np.array_equal(old, new)
    times = [[time for time, _ in pictures(one)] for one in (video, path)]
    assert np.allclose(*times, atol=1e-3)
    assert probe(path).duration == pytest.approx(probe(video).duration, abs=0.04)
    assert problems == []
    assert seen[-1] == (pytest.approx(1.96), pytest.approx(2.0, abs=0.05))
    assert is_drawn(path)
    assert not is_drawn(video)


def test_strip_has_colours_of_speakers(drawn):
    _, image = min(pictures(drawn[1]), key=lambda one: abs(one[0] - 1.4))
    strip = image[-20:].reshape(-1, 3).astype(int)
    for number in (0, 1):
        assert any(near(pixel, rgb(colour_of(number)), 45) for pixel in strip)


def test_a_click_does_not_flatten_the_waveform(tmp_path):
    def clicked(t):
        return np.where(t < 0.05, 0.9, 0.1) * np.sin(2 * np.pi * 400 * t)

    video = write_media(tmp_path / "talk.wav.mkv", audio_codec="pcm_s16le", duration=2.4, draw=grey,
                        audio_signal=clicked)  # fmt: skip
    draw_video(result(tracks=FaceTracks.empty()), video, tmp_path / "new.mp4")
    (_, image) = pictures(tmp_path / "new.mp4")[-1]
    # half a second before the playhead, where nobody speaks: the strip is dark, and the sound grey
    column = image[-28:-2, 96 - 4].astype(int).mean(axis=1)
    assert 14 < (column > 110).sum() < 24


def test_off_screen_speakers_are_named(drawn):
    bob = np.array(rgb(colour_of(1)))
    count = {}
    for time, image in pictures(drawn[1]):
        line = image[128:144].reshape(-1, 3).astype(int)
        count[round(time, 2)] = sum(near(pixel, bob, 30) for pixel in line)
    assert count[1.4] > 20
    assert count[0.8] == 0


def test_turned_and_mirrored_pictures_are_upright(tmp_path):
    sideways = write_media(tmp_path / "turned.mp4", duration=0.4, rotation=90)
    draw_video(result(tracks=FaceTracks.empty()), sideways, tmp_path / "a.mp4")
    for (_, one), (_, other) in zip(pictures(sideways), pictures(tmp_path / "a.mp4"), strict=True):
        assert one.shape[:2] == (192, 128)
        assert np.abs(one.astype(int) - other[:192, :128]).mean() < 6
    wide = Pictures(duration=0.4, aspect=Fraction(2), matrix=(-1, 0, 0, 1))
    mirrored = write_streams(tmp_path / "mirrored.mp4", wide)
    draw_video(result(tracks=FaceTracks.empty()), mirrored, tmp_path / "b.mp4")
    (_, one), (_, other) = (pictures(p)[3] for p in (mirrored, tmp_path / "b.mp4"))
    assert one.shape[1] == 384
    assert np.abs(one.astype(int) - other[:128, :384]).mean() < 6
    info = probe(tmp_path / "b.mp4").video
    assert (info.rotation, info.mirrored, info.pixel_aspect) == (0, False, 1)


def test_variable_rate_keeps_times(tmp_path):
    times = [0.0, 0.04, 0.3, 0.35, 0.9, 1.0]
    video = write_media(tmp_path / "odd.mkv", duration=1.2, timestamps=times)
    draw_video(result(), video, tmp_path / "new.mp4")
    assert [time for time, _ in pictures(tmp_path / "new.mp4")] == pytest.approx(times, abs=2e-3)


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "pcm_s16le"), ("b.webm", "libopus")])
def test_sound_of_other_codecs(tmp_path, name, codec):
    video_codec = "libvpx" if name.endswith("webm") else "libx264"
    video = write_media(
        *(tmp_path / name,), duration=1.0, audio_codec=codec, video_codec=video_codec,
        audio_signal=chirps,
    )  # fmt: skip
    draw_video(result(), video, tmp_path / "new.mp4")
    new = Video().waveform(str(tmp_path / "new.mp4"))[0].numpy()
    assert len(new) == pytest.approx(16000, abs=1500)
    # decoders differ in the samples that they skip at the beginning
    assert abs(offset_at(new, 0.3)) < 0.015


def test_nothing_is_overwritten_or_left_half_written(tmp_path):
    video = write_media(tmp_path / "talk.mp4", duration=0.4)
    foreign = tmp_path / "mine.mp4"
    foreign.write_bytes(video.read_bytes())
    with pytest.raises(FileExistsError, match=r"mine\.mp4 exists"):
        draw_video(result(), video, foreign)
    with pytest.raises(FileExistsError, match="the video itself"):
        draw_video(result(), video, video, overwrite=True)
    draw_video(result(), video, foreign, overwrite=True)
    draw_video(result(), video, foreign)  # its own

    def interrupt(done, total):
        if done > 0.2:
            raise KeyboardInterrupt

    before = foreign.read_bytes()
    for path in (foreign, tmp_path / "other.mp4"):
        with pytest.raises(KeyboardInterrupt):
            draw_video(result(), video, path, progress=interrupt)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["mine.mp4", "talk.mp4"]
    assert foreign.read_bytes() == before


def test_errors(tmp_path):
    sound = write_media(tmp_path / "sound.wav", video=False, duration=0.5, audio_codec="pcm_s16le")
    with pytest.raises(MediaError, match="no pictures"):
        draw_video(result(), sound, tmp_path / "new.mp4")
    video = write_media(tmp_path / "talk.mp4", duration=0.4)
    with pytest.raises(ValueError, match="not a supported container"):
        draw_video(result(), video, tmp_path / "new.gif")
    (problem,) = draw_video(result([(0, 90, "Ann")]), video, tmp_path / "new.mp4")
    assert "90.00 s" in problem
    assert "right video" in problem


def test_boxes_are_interpolated_but_not_across_gaps():
    time = np.array([0.0, 0.08, 1.0, 1.04])
    box = np.array([[0.1, 0.1, 0.2, 0.2], [0.3, 0.1, 0.4, 0.2], *[[0.5, 0.1, 0.6, 0.2]] * 2])
    boxes = Boxes(FaceTracks(time, np.zeros(4, int), box))
    assert boxes.at(0.04)[0][0] == pytest.approx(0.2)
    assert boxes.at(0.5) == {}
    assert boxes.at(1.0)[0][0] == pytest.approx(0.5)
    assert boxes.at(2.0) == {}


def test_turns_at_any_time():
    turns = Turns(result().speaker_diarization)
    assert [turns.at(t) for t in (0.0, 0.5, 1.3, 1.5, 1.95)] == [(), (0,), (0, 1), (1,), ()]
    parts = [(round(a, 2), round(b, 2), who) for a, b, who in turns.between(1.0, 1.6)]
    assert parts == [(1.0, 1.2, (0,)), (1.2, 1.5, (0, 1)), (1.5, 1.6, (1,))]
    assert Turns(Annotation()).at(1.0) == ()


@pytest.mark.parametrize(
    "name", ["Ann", "Ζωή", "Юлия", "سلمى", "😀\U0001faa8", "<b>", "a\x1b[2J", "x" * 500, ""]
)
def test_any_name_is_drawn(name):
    image = label(name, "#3f90da", 20, 100)
    assert image.shape[0] == 20
    assert 0 < image.shape[1] <= 100
    assert not name.strip() or len(np.unique(image.reshape(-1, 3), axis=0)) > 1
    assert math.isfinite(image.mean())


@pytest.fixture
def talk(tmp_path):
    """A video, and its result in another folder."""
    video = write_media(tmp_path / "talk.mp4", duration=0.4, draw=grey)
    (tmp_path / "out").mkdir()
    write_json(result([(0.0, 0.4, "Ann")]), tmp_path / "out" / "talk.json")
    return video, tmp_path / "out" / "talk.json"


def test_the_command_draws_next_to_the_result(talk, monkeypatch, capsys):
    video, json = talk
    assert run(monkeypatch, "draw", json, "--video", video) == 0
    path = json.with_name("talk.annotated.mp4")
    assert capsys.readouterr().out == f"{path}\n"
    (_, before), (_, after) = (pictures(one)[5] for one in (video, path))
    ann = np.array(rgb(colour_of(0)))
    left, middle = round(0.22 * 191), round(0.6 * 127)
    assert near(before[middle, left], 90, 12)
    assert near(after[middle, left], ann)
    # again: its own file may be replaced
    assert run(monkeypatch, "draw", json, "--video", video) == 0


def test_the_command_finds_the_video_and_tells_problems(talk, monkeypatch, capsys):
    video, json = talk
    beside = video.rename(json.with_name("talk.mp4"))
    write_json(result([(0.0, 90.0, "Ann")]), json)
    new = json.with_name("new.mkv")
    assert run(monkeypatch, "draw", json, "-o", new) == 0
    first, problem = capsys.readouterr().out.splitlines()
    assert first == str(new)
    assert "turns end at 90.00 s" in problem
    assert str(beside) in problem


def test_the_command_never_replaces_the_file_of_somebody_else(talk, monkeypatch, capsys):
    video, json = talk
    path = json.with_name("talk.annotated.mp4")
    path.write_text("mine")
    assert run(monkeypatch, "draw", json, "--video", video) == 2
    assert f"{path} exists and was not drawn by pyannote-av" in capsys.readouterr().err
    assert path.read_text() == "mine"
    assert run(monkeypatch, "draw", json, "--video", video, "--overwrite") == 0
    assert is_drawn(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("out/talk.json",), "the video of out/talk.json is not next to it: name it with --video"),
        (("out/talk.json", "--video", "gone.mp4"), "gone.mp4: no such file"),
        (("out/gone.json",), "no such file: out/gone.json"),
        (("talk.mp4",), "talk.mp4"),
        (("out/talk.json", "--video", "sound.wav"), "sound.wav has no pictures"),
        (("out/talk.json", "--video", "talk.mp4", "-o", "new.gif"), "new.gif is not a supported"),
    ],
)
def test_errors_of_the_command(arguments, message, talk, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_media(tmp_path / "sound.wav", video=False, duration=0.4, audio_codec="pcm_s16le")
    before = sorted(tmp_path.rglob("*"))
    assert run(monkeypatch, "draw", *arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said
    assert sorted(tmp_path.rglob("*")) == before


def test_the_command_can_be_interrupted(talk, monkeypatch, capsys):
    video, json = talk

    def interrupted(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr("pyannote_av.vision.annotated_video.draw_video", interrupted)
    assert run(monkeypatch, "draw", json, "--video", video) == 130
    assert "nothing was written" in capsys.readouterr().err
