"""Reading media: everything on one clock, whatever the file, and nothing missing unsaid."""

import pickle
import resource
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from threading import Barrier
from time import sleep

import media
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyannote.core import Segment

from pyannote_av.core.io import MediaError, Video
from pyannote_av.core.pictures import Picture, grid_index, on_grid
from pyannote_av.core.sources import DecordSource, open_source

BACKENDS = ["pyav", "decord"]
STEP = 1 / 25
LATE = {"video": {"video_start": 1.5}, "audio": {"audio_start": 1.5}}
MP3 = {"audio_codec": "libmp3lame"}  # AVI and AAC do not go together

# Where the container moves all timestamps (room for the encoder's delay), both streams move
# alike. AVI cannot say that an MP3 begins with 23 ms of encoder delay.
WHOLE = {
    "25.mp4": {},
    "30.mp4": {"fps": 30},
    "29.97.mp4": {"fps": 30000 / 1001},
    "50.mp4": {"fps": 50},
    "60.mkv": {"fps": 60},
    "12.mp4": {"fps": 12},
    "1.mp4": {"fps": 1},
    "44k-stereo.mp4": {"audio_rate": 44100, "layout": "stereo"},
    "late-video.mp4": LATE["video"],
    "late-audio.mp4": LATE["audio"],
    "late-video.mkv": LATE["video"],
    "late-audio.mkv": LATE["audio"],
    "both-late.mp4": {"video_start": 1.0, "audio_start": 0.5},
    "start-1.4.ts": {"clock_offset": 1.4},
    "late-video.ts": {"clock_offset": 1.4, **LATE["video"]},
    "vp8.webm": {"video_codec": "libvpx", "audio_codec": "libopus"},
    "h264.avi": MP3,
    "late-video.avi": {"video_start": 1.52, **MP3},
    "mpeg4.avi": {"video_codec": "mpeg4", **MP3},
    "flash.flv": {"audio_rate": 44100},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("whole")
    return {name: media.write_media(folder / name, **how) for name, how in WHOLE.items()}


def _copy(source: Path, target: Path, edit) -> None:
    """Copy packets; `edit(kind, milliseconds)` gives their new time, None to leave one out"""
    import av

    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        streams = [new.add_stream_from_template(stream) for stream in old.streams]
        for packet in old.demux():
            if packet.dts is None:
                continue
            pts = edit(packet.stream.type, packet.pts)
            if pts is not None:
                packet.dts += pts - packet.pts
                packet.pts = pts
                packet.stream = streams[packet.stream.index]
                new.mux(packet)


def _picture_lags(frames) -> np.ndarray:
    """Seconds by which pictures are shown later than drawn, at the steps where they appear"""
    return np.array([f.time - media.read_time(f.image) for f in frames if not f.repeated])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", WHOLE)
def test_pictures_and_sound_are_aligned(whole, name, backend):
    video, problems = Video(backend=backend), []
    frames = list(video.frames(whole[name], problems=problems))
    waveform = video.waveform(whole[name], problems=problems)
    assert problems == []

    lags = _picture_lags(frames)
    sound = media.sound_offset(waveform)
    assert np.abs(lags - sound).max() < 0.040
    # where the container keeps the timestamps it was given, the clock is exact
    if name.endswith((".mp4", ".mkv", ".webm")):
        origin = 0.5 - 1024 / 48000 if name == "both-late.mp4" else 0.0  # AAC priming
        assert abs(sound + origin) < 0.001
        assert np.abs(lags + origin).max() <= 0.020 + 1e-3


@pytest.mark.parametrize("name", WHOLE)
def test_grid_is_regular_and_complete(whole, name):
    video = Video()
    frames = list(video.frames(whole[name]))
    info = video.probe(whole[name])
    assert [f.index for f in frames] == list(range(frames[0].index, frames[-1].index + 1))
    assert all(f.time == f.index / 25 for f in frames)
    assert abs(frames[0].time - info.video.start) <= 0.020 + 1e-6
    assert all(f.pts <= f.time + 0.020 for f in frames)
    assert abs(frames[-1].time + STEP - info.duration) < 0.15 or info.format == "avi"
    assert frames[0].repeated is False
    for a, b in pairwise(frames):
        assert b.repeated == (a.pts == b.pts)


@pytest.mark.parametrize("name", ["25.mp4", "29.97.mp4", "50.mp4", "1.mp4", "late-video.mp4"])
def test_backends_agree(whole, name):
    pyav = Video(backend="pyav")
    assert isinstance(open_source(pyav.probe(whole[name]), "decord"), DecordSource)
    ours = list(pyav.frames(whole[name]))
    theirs = list(Video(backend="decord").frames(whole[name]))
    for a, b in zip(ours, theirs, strict=True):
        assert (a.index, a.time, a.repeated) == (b.index, b.time, b.repeated)
        assert a.pts == pytest.approx(b.pts, abs=1e-4)
        assert np.array_equal(a.image, b.image)


@pytest.mark.parametrize("backend", BACKENDS)
def test_variable_rate_holds_pictures(tmp_path, backend):
    times = [0, 0.1, 0.13, 0.5, 0.52, 0.9, 1.0, 1.7, 2.2, 2.23, 2.26, 3.5, 3.8]
    path = media.write_media(tmp_path / "vfr.mp4", timestamps=times)
    frames = list(Video(backend=backend).frames(path))
    for frame in frames:
        shown = max(t for t in times if t < frame.time + 0.019)
        assert media.read_time(frame.image) == pytest.approx(shown, abs=1e-3)
        assert frame.pts == pytest.approx(shown, abs=1e-3)
    assert frames[-1].time == pytest.approx(3.8)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_rotation_is_applied(tmp_path, rotation, backend):
    path = media.write_media(tmp_path / "turned.mp4", rotation=rotation, duration=0.4)
    video = Video(backend=backend)
    stream = video.probe(path).video
    image = next(video.frames(path)).image
    assert stream.rotation == rotation
    assert image.shape == (stream.height, stream.width, 3)
    # a player turns the picture counter-clockwise by the angle written
    upright = media.draw_time(0.0)
    assert np.abs(image - np.rot90(upright, rotation // 90).astype(float)).mean() < 12


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("key-frames.mp4", {}),
        ("one-key-frame.mp4", {"gop": 1000}),
        ("late.mp4", {"video_start": 1.5}),
        ("30.mkv", {"fps": 30}),
        ("stream.ts", {"clock_offset": 1.4}),
        ("open-gop.mp4", {"video_options": {"x264-params": "open-gop=1"}}),
        ("open-gop.ts", {"video_codec": "mpeg2video"}),
        ("index.avi", MP3),
        ("slow.mp4", {"fps": 1}),
    ],
)
def test_part_equals_slice_of_whole(tmp_path, name, how, backend):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 64, (300, media.SIZE[1], media.SIZE[0], 3), np.uint8)
    path = media.write_media(
        tmp_path / name, duration=8, draw=lambda t: media.draw_time(t) // 2 + noise[int(t)], **how
    )
    video = Video(backend=backend)
    whole = list(video.frames(path))
    for start, end in [(0, 1), (0.5, 0.9), (1.04, 2.0), (3.33, 3.77), (6.9, None), (9, None)]:
        part = list(video.frames(path, start, end))
        expected = [f for f in whole if start - 1e-9 <= f.time < (end or 99) - 1e-9]
        assert len(part) == len(expected)
        for a, b in zip(part, expected, strict=True):
            assert (a.index, a.pts, a.repeated) == (b.index, b.pts, b.repeated)
            assert np.array_equal(a.image, b.image)


def test_crop(whole):
    video = Video()
    images, times = video.crop(whole["30.mp4"], Segment(1.0, 2.0))
    assert images.shape == (25, media.SIZE[1], media.SIZE[0], 3)
    assert images.dtype == np.uint8
    assert np.allclose(times, 1 + np.arange(25) / 25)
    images, times = video.crop(whole["30.mp4"], Segment(100.0, 101.0))
    assert len(images) == len(times) == 0


# --- sound ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codec"), [("a.wav", "pcm_s16le"), ("a.mp3", "libmp3lame"), ("a.m4a", "aac")]
)
def test_sound_files(tmp_path, name, codec):
    path = media.write_media(tmp_path / name, video=False, audio_codec=codec)
    waveform = Video().waveform(path)
    assert waveform.dtype == torch.float32
    assert waveform.shape[1] / 16000 == pytest.approx(4.0, abs=0.03)
    assert abs(media.sound_offset(waveform)) < 0.001
    assert waveform.abs().max() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1", "hexadecagonal"])
def test_downmix_is_the_average(tmp_path, layout):
    path = media.write_media(
        tmp_path / "channels.wav", video=False, audio_codec="pcm_s16le", layout=layout
    )
    waveform = Video().waveform(path)
    expected = media.bursts(np.arange(waveform.shape[1]) / 16000)
    inside = np.abs(expected).max() * 0.02
    assert np.abs(waveform.numpy()[0] - expected).mean() < inside


@pytest.mark.parametrize("peak", [0.5, 3e5])
def test_sound_at_half_precision(tmp_path, peak):
    rng = np.random.default_rng(0)
    path = tmp_path / "sound.wav"
    soundfile.write(path, peak * rng.uniform(-1, 1, (32000, 2)), 16000, subtype="FLOAT")
    problems, again = [], []
    usual = Video().waveform(path, problems)
    found = Video().waveform(path, again, half=True)
    assert usual.dtype == torch.float32
    assert found.dtype == (torch.float16 if peak < 1 else torch.float32)
    torch.testing.assert_close(found.float(), usual, atol=1e-4, rtol=1e-3)
    assert problems == again


def test_sound_beside_the_video(whole, tmp_path):
    sound = media.write_media(
        tmp_path / "sound.wav",
        video=False,
        audio_codec="pcm_s16le",
        audio_signal=lambda t: media.bursts(t - 0.25),
    )
    video = Video()
    file = {"video": whole["late-video.mp4"], "audio": sound}
    assert media.sound_offset(video.waveform(file)) == pytest.approx(0.25, abs=0.001)
    assert next(video.frames(file)).time == pytest.approx(1.52)
    same = {"video": whole["late-audio.mp4"], "audio": whole["late-audio.mp4"]}
    assert torch.equal(video.waveform(same), video.waveform(whole["late-audio.mp4"]))


def test_late_sound_is_preceded_by_silence(whole):
    waveform = Video().waveform(whole["late-audio.mkv"])
    assert not waveform[0, : int(1.45 * 16000)].any()
    assert waveform[0, int(1.5 * 16000) :].any()


def test_gap_in_sound_is_filled_and_told(tmp_path):
    path = media.write_media(tmp_path / "gap.mkv", duration=6)
    cut = tmp_path / "cut.mkv"
    _copy(path, cut, lambda kind, pts: None if kind == "audio" and 2000 <= pts < 2700 else pts)
    problems = []
    waveform = Video().waveform(cut, problems)
    assert abs(media.sound_offset(waveform)) < 0.001
    assert not waveform[0, int(2.1 * 16000) : int(2.65 * 16000)].any()
    assert len(problems) == 1
    assert "gaps of 0.7" in problems[0]
    assert "from about 2.0" in problems[0]


def test_two_audio_tracks(tmp_path):
    path = media.write_media(tmp_path / "two.mp4", audio_tracks=2)
    video, problems = Video(), []
    assert abs(media.sound_offset(video.waveform(path, problems))) < 0.001
    assert len(video.probe(path).audio) == 2
    assert len(problems) == 1
    assert "2 audio tracks" in problems[0]


# --- what is missing or broken ------------------------------------------------------------------


def test_without_audio(tmp_path):
    path = media.write_media(tmp_path / "silent.mp4", audio=False)
    with pytest.raises(MediaError, match=r"silent\.mp4 has no audio stream"):
        Video().waveform(path)
    assert len(list(Video().frames(path))) == 100
    assert Video().get_duration(path) == pytest.approx(4.0)


def test_without_video(tmp_path):
    path = media.write_media(tmp_path / "dark.mp4", video=False)
    with pytest.raises(MediaError, match=r"dark\.mp4 has no video stream"):
        Video().frames(path)
    with pytest.raises(MediaError, match="has no video stream"):
        Video().frames({"audio": path})
    assert Video().waveform({"audio": path}).shape[1] / 16000 == pytest.approx(4.0, abs=0.03)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("name", "how"), [("cut.mp4", {"faststart": True}), ("cut.mkv", {}), ("cut.avi", MP3)]
)
def test_truncated_file_keeps_what_is_there(tmp_path, name, how, backend):
    path = media.write_media(tmp_path / name, duration=6, **how)
    media.truncate(path, 0.6)
    video, problems = Video(backend=backend), []
    frames = list(video.frames(path, problems=problems))
    assert 50 < len(frames) < 110
    assert np.abs(_picture_lags(frames)).max() < 0.045
    (sentence,) = problems
    assert f"video stream of {path} stops at {frames[-1].time + STEP:.2f} s" in sentence
    assert "s of 6.00 s" in sentence

    problems = []
    waveform = video.waveform(path, problems)
    assert 2.0 < waveform.shape[1] / 16000 < 4.5
    if name != "cut.avi":  # ffmpeg corrects the duration of its sound
        assert "s of 6.0" in problems[0]
    with pytest.warns(UserWarning, match="stops at"):
        list(video.frames(path))


def test_truncated_file_without_index(tmp_path):
    path = media.truncate(media.write_media(tmp_path / "cut.mp4"), 0.6)
    with pytest.raises(MediaError, match=r"cut\.mp4 cannot be opened .* interrupted"):
        Video().waveform(path)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["damaged.mp4", "damaged.mkv", "damaged.ts"])
def test_damage_in_the_middle_is_told_and_survived(tmp_path, name, backend):
    path = media.write_media(tmp_path / name, duration=6)
    media.damage(path, 0.3, 0.6)
    video, problems = Video(backend=backend), []
    frames = list(video.frames(path, problems=problems))
    assert frames[-1].time > 5.8
    assert any("video stream" in sentence and "damaged" in sentence for sentence in problems)
    # after the damage time is right again
    assert np.abs(_picture_lags(frames)[-20:]).max() < 0.045
    problems = []
    waveform = video.waveform(path, problems).numpy()[0]
    assert len(waveform) / 16000 > 5.8
    assert any("audio stream" in sentence for sentence in problems)
    last = waveform.copy()
    last[: int(4.5 * 16000)] = 0
    assert abs(media.sound_offset(last)) < 0.040


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_any_damage_is_a_media_error_or_a_result(tmp_path_factory, seed):
    path = tmp_path_factory.mktemp("fuzz") / "fuzz.mp4"
    media.write_media(path, duration=0.6, faststart=True)
    media.damage(path, 0.0, 1.0, seed=seed, count=30)
    video = Video()
    for read in (video.waveform, lambda f, problems: list(video.frames(f, problems=problems))):
        with suppress(MediaError):
            assert len(read(path, problems=[])) < 200000


def test_nothing_decodes(tmp_path):
    path = media.write_media(tmp_path / "noise.mp4", faststart=True)
    data = bytearray(path.read_bytes())
    first = data.index(b"mdat") + 4
    data[first:] = np.random.default_rng(0).bytes(len(data) - first)
    path.write_bytes(data)
    with pytest.raises(MediaError, match=r"video stream of .*noise\.mp4: no picture"):
        list(Video().frames(path))
    with pytest.raises(MediaError, match=r"audio stream of .*noise\.mp4: nothing"):
        Video().waveform(path)


def test_no_seconds(tmp_path):
    path = media.write_media(tmp_path / "zero.mp4", duration=0)
    with pytest.raises(MediaError, match=r"zero\.mp4"):
        list(Video().frames(path))
    with pytest.raises(MediaError, match=r"zero\.mp4"):
        Video().waveform(path)


def test_live_recording_without_duration(tmp_path):
    """As browsers write them: a header that says nothing about length"""
    path = tmp_path / "live.webm"
    media.write_media(path, live=True, video_codec="libvpx", audio_codec="libopus")
    problems = []
    assert Video().get_duration(path) == pytest.approx(4.0, abs=0.05)
    assert len(list(Video().frames(path, problems=problems))) == 100
    assert problems == []


def test_absurd_picture_size(tmp_path, monkeypatch):
    path = media.write_media(tmp_path / "huge.mp4", duration=0.2)
    monkeypatch.setattr("pyannote_av.core.media.MAX_SIDE", 100)
    with pytest.raises(MediaError, match=r"huge\.mp4 declares pictures of 192x128"):
        Video().probe(path)


def test_opening_takes_a_limited_time(tmp_path, monkeypatch):
    path = media.write_media(tmp_path / "slow.mp4", duration=0.2)
    monkeypatch.setattr("pyannote_av.core.media.OPENING", 1e-9)
    with pytest.raises(MediaError, match=r"slow\.mp4 cannot be opened within 1e-09 s"):
        Video().probe(path)


def test_absurd_duration(tmp_path, monkeypatch):
    path = media.write_media(tmp_path / "long.mp4", duration=0.2)
    monkeypatch.setattr("pyannote_av.core.media.MAX_DURATION", 0.1)
    with pytest.raises(MediaError, match="declares to last"):
        Video().probe(path)


@pytest.mark.parametrize("offsets", [(0, 3600, 3), (0, 0)], ids=["leap", "restart"])
def test_inconsistent_timestamps_are_told(tmp_path, offsets):
    """Recordings joined as they are: each follows the one before, and nothing is shown twice"""
    path = tmp_path / "joined.ts"
    rng = np.random.default_rng(0)
    parts = [
        media.write_media(
            tmp_path / f"{k}.ts",
            duration=0.4 if offset == 3600 else 3,
            clock_offset=offset,
            # big, since the end is looked for in the last 250 kB of a stream
            draw=lambda t: rng.integers(0, 256, (*media.SIZE[::-1], 3), np.uint8),
        )
        for k, offset in enumerate(offsets)
    ]
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    video, problems = Video(), []
    total = sum(0.4 if offset == 3600 else 3 for offset in offsets)
    frames = list(video.frames(path, problems=problems))
    assert [f.index for f in frames] == sorted({f.index for f in frames})
    assert frames[-1].time == pytest.approx(total, abs=0.15)
    assert any("inconsistent timestamps" in sentence for sentence in problems)
    problems = []
    waveform = video.waveform(path, problems)
    assert waveform.shape[1] / 16000 == pytest.approx(total, abs=0.15)
    assert video.get_duration(path) == pytest.approx(total, abs=0.15)
    assert any("inconsistent timestamps" in sentence for sentence in problems)


# --- what is refused ----------------------------------------------------------------------------


def test_not_a_file(tmp_path):
    (tmp_path / "empty.mp4").touch()
    media.garbage(tmp_path / "garbage.mp4")
    for path, reason in [
        ("missing.mp4", "no such file"),
        ("", "directory"),
        ("empty.mp4", "empty"),
        ("garbage.mp4", "not a media file"),
    ]:
        with pytest.raises(MediaError, match=reason):
            Video().probe(tmp_path / path)
    with pytest.raises(MediaError, match="none of 'video'"):
        Video.validate_file({"uri": "nothing"})
    with pytest.raises(MediaError, match='"video": path'):
        Video.validate_file(42)


@pytest.mark.parametrize(
    "address", ["https://example.org/a.mp4", "rtsp://example.org/a", "file:///tmp/a.mp4"]
)
def test_addresses_are_refused(address):
    with pytest.raises(MediaError, match="is an address"):
        Video.validate_file(address)


@pytest.mark.parametrize("name", ["list.m3u8", "list.mp4", "list.txt", "concat:list.mp4"])
def test_playlists_are_refused(whole, tmp_path, name):
    """Whatever it is called, a list of other files is not followed"""
    target = whole["25.mp4"]
    for content in (
        f"ffconcat version 1.0\nfile {target}\n",
        f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{target}\n#EXT-X-ENDLIST\n",
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(MediaError, match=r"playlist|not a media file"):
            Video().probe(tmp_path / name)


@pytest.mark.parametrize("uri", ["", " ", "..", "a/../b", "/etc/a", "a\\b", "a\0b"])
def test_bad_uri_is_refused(whole, uri):
    with pytest.raises(MediaError, match="uri"):
        Video.validate_file({"video": whole["25.mp4"], "uri": uri})


def test_default_uri(whole, tmp_path):
    assert Video.validate_file(whole["25.mp4"])["uri"] == "25"
    assert Video.validate_file(str(whole["25.mp4"]))["video"] == str(whole["25.mp4"])
    dots = media.write_media(tmp_path / "a..b.mp4", duration=0.2)
    validated = Video.validate_file({"audio": dots})
    assert validated == {"audio": str(dots), "uri": "a_b"}
    assert Video.validate_file(validated) == validated


def test_bad_settings():
    with pytest.raises(ValueError, match="backend"):
        Video(backend="ffmpeg")
    with pytest.raises(ValueError, match="positive"):
        Video(frame_rate=0)


# --- in memory ----------------------------------------------------------------------------------


def test_pictures_in_memory():
    times = 0.52 + np.arange(30) / 30
    frames = np.stack([media.draw_time(t) for t in times])
    file = {"frames": frames, "timestamps": times, "uri": "memory"}
    video = Video()
    shown = list(video.frames(file))
    assert [f.index for f in shown] == list(range(13, 38))
    assert np.abs(_picture_lags(shown)).max() <= 0.021
    assert video.get_duration(file) == pytest.approx(1.52)
    images, _ = video.crop(file, Segment(0.6, 1.0))
    assert len(images) == 10
    with pytest.raises(MediaError, match="timestamps"):
        video.frames({"frames": frames})
    with pytest.raises(MediaError, match="increase"):
        video.frames({"frames": frames, "timestamps": times[::-1]})
    with pytest.raises(MediaError, match="uint8"):
        video.frames({"frames": frames / 255.0, "timestamps": times})
    with pytest.raises(MediaError, match="no audio stream"):
        video.waveform(file)
    with pytest.raises(MediaError, match="in memory"):
        video.probe(file)


def test_sound_in_memory(whole):
    video = Video()
    t = np.arange(2 * 44100) / 44100
    stereo = torch.from_numpy(np.stack([media.bursts(t), np.zeros(len(t), np.float32)]))
    file = {"waveform": stereo, "sample_rate": 44100, "video": whole["25.mp4"]}
    waveform = video.waveform(file)
    assert waveform.shape == (1, 32000)
    assert media.sound_offset(waveform) == 0
    # the channel without sound does not make it fainter
    assert waveform.abs().max() == pytest.approx(0.5, abs=0.04)
    assert video.get_duration(file) == pytest.approx(4.0, abs=0.03)
    with pytest.raises(MediaError, match="sample_rate"):
        video.waveform({"waveform": stereo})
    with pytest.raises(MediaError, match="channel, time"):
        video.waveform({"waveform": stereo.T, "sample_rate": 44100})


# --- the grid -----------------------------------------------------------------------------------


def _pictures(times, convert=None):
    """Pictures of one pixel; `convert(k, pixels, size)` converts the k-th one"""
    steps = [*np.diff(times), 0.04]
    return [
        Picture(t, step, (1, 1), partial(convert, k) if convert else None)
        for k, (t, step) in enumerate(zip(times, steps, strict=True))
    ]


increasing = st.lists(
    st.integers(1, 3000), min_size=1, max_size=60
).map(lambda steps: (np.cumsum(steps) / 1000 - 0.5).tolist())  # fmt: skip


@given(times=increasing, rate=st.sampled_from([10.0, 25.0, 30.0]))
@settings(deadline=None)
def test_grid_shows_the_last_picture_before_half_a_step(times, rate):
    frames = list(on_grid(_pictures(times), rate))
    assert [f.index for f in frames] == sorted({f.index for f in frames})
    for frame in frames:
        middle = frame.time + 0.5 / rate
        assert frame.pts < middle
        shown = [t for t in times if t < middle - 2e-3]
        assert not shown or frame.pts >= shown[-1]
        assert 0 <= frame.time < times[-1] + 0.04 + 0.5 / rate


@given(times=increasing, first=st.integers(0, 100), count=st.integers(0, 100))
@settings(deadline=None)
def test_part_of_grid_is_slice_of_grid(times, first, count):
    whole = [(f.index, f.pts, f.repeated) for f in on_grid(_pictures(times), 25.0)]
    part = [
        (f.index, f.pts, f.repeated) for f in on_grid(_pictures(times), 25.0, first, first + count)
    ]
    assert part == [f for f in whole if first <= f[0] < first + count]


@given(index=st.integers(0, 10**6), rate=st.sampled_from([5.0, 25.0, 100.0]))
def test_picture_on_the_grid_stays_there(index, rate):
    assert grid_index(index / rate, rate) == index


def test_pictures_are_converted_when_they_are_asked_for():
    converted = []

    def convert(k, pixels, size, filtering):
        converted.append((k, pixels))
        return np.zeros((1, 1, 3)[: 3 if pixels == "rgb24" else 2], np.uint8)

    # each picture is shown for two steps
    pictures = _pictures((np.arange(30) * 0.08).tolist(), convert)
    frames = list(on_grid(pictures, 25.0, first=4, last=10))
    assert [frame.index for frame in frames] == [4, 5, 6, 7, 8, 9]
    assert not converted
    assert frames[1].image.shape == (1, 1, 3)
    assert frames[2].grey.shape == (1, 1)
    assert converted == [(2, "rgb24"), (3, "gray")]
    # once for all steps that show the picture
    assert frames[0].image is frames[1].image
    assert frames[3].grey is frames[2].grey
    assert frames[3].image is frames[2].image
    assert converted == [(2, "rgb24"), (3, "gray"), (3, "rgb24")]


def test_a_picture_is_converted_once_for_all_threads():
    converted, together = [], Barrier(4)

    def convert(k, pixels, size, filtering):
        converted.append(k)
        sleep(0.02)
        return np.zeros((1, 1, 3), np.uint8)

    (frame,) = on_grid(_pictures([0.0], convert), 25.0)

    def ask(_):
        together.wait()
        return frame.image

    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(ask, range(4)))
    assert converted == [0]
    assert all(image is images[0] for image in images)


@pytest.mark.parametrize("backend", BACKENDS)
def test_frames_that_are_kept_show_what_they_showed(tmp_path, backend):
    """Also after the file is closed, from another thread, and after pickling"""
    path = media.write_media(tmp_path / "short.mp4", duration=1, fps=12, audio=False)
    video = Video(backend=backend)
    expected = [(frame.image.copy(), frame.grey.copy()) for frame in video.frames(path)]
    frames = list(video.frames(path))
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(lambda frame: frame.image, frames))
    for frame, image, (colour, grey) in zip(frames, images, expected, strict=True):
        assert np.array_equal(image, colour)
        assert np.array_equal(frame.grey, grey)
    copy, frame = pickle.loads(pickle.dumps(frames[3])), frames[3]
    assert (copy.index, copy.time, copy.pts, copy.size) == (3, frame.time, frame.pts, frame.size)
    assert np.array_equal(copy.image, frame.image)
    assert np.array_equal(copy.grey, frame.grey)


@pytest.mark.parametrize("backend", BACKENDS)
def test_memory_does_not_grow(tmp_path, backend):
    size = (640, 360)
    path = media.write_media(tmp_path / "long.mp4", duration=12, audio=False, size=size)
    video = Video(backend=backend)
    next(video.frames(path))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    count = sum(frame.image.ndim == 3 for frame in video.frames(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    one = size[0] * size[1] * 3
    assert count == 300
    assert peak < 10 * one
    assert (after - before) * 1024 < 150 * one  # decoders keep some, too
