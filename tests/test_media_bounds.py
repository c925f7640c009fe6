"""A small file never asks for gigabytes, days or a crash: it is refused, or cut and said so."""

import json
import re
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import hostile_media
import media
import numpy as np
import pytest
import torch
from pyannote.core import Segment

from pyannote_av.core import io
from pyannote_av.core.decoding import MAX_MISSING, MISSING_RATIO, Damage
from pyannote_av.core.files import MAX_DURATION, longest
from pyannote_av.core.io import MediaError, Video
from pyannote_av.core.media import is_too_large
from pyannote_av.core.sound import resample

MEMORY = 1.5 * 2**30  # bytes, imports included
STEPS = 3 * 3600 * 25  # of the grid of pictures

# All that can be read of a file, in a process of its own. An error of another type than MediaError
# ends it.
READ = """
import json, sys
from pyannote_av.core.io import MediaError, Video
from pyannote_av.core.sound import decode_sound

said, counts = [], {"samples": 0, "pictures": 0}
video = Video()

def sound():
    info = video.probe(path)
    if info.audio:
        samples, sentences = decode_sound(info, info.audio[0], 16000)
        counts["samples"] = len(samples)
        said.extend(sentences)

def pictures():
    if video.probe(path).video is not None:
        for frame in video.frames(path, problems=said):
            counts["pictures"] += frame.image.shape[:2] == frame.grey.shape

for read in (sound, pictures):
    try:
        read()
    except MediaError as error:
        said.append(str(error))
assert "torch" not in sys.modules
# of this program: what getrusage tells begins with the size of the process that started it
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
peak = int(status["VmHWM"].split()[0]) * 1024
print(json.dumps({"said": said, "peak": peak, **counts}))
"""

TOO_LONG = "declares to last .* too long for its .* bytes"
TOO_LARGE = "video stream of .* pixels"
LEFT_OUT = "inconsistent timestamps"
NOT_READ = "not a media file|is not read"
WHOLE = None  # read as it is: nothing in it is missing, and nothing too much is asked for

OUTCOMES = {
    "sound days apart": TOO_LONG,
    "pictures days apart, mkv": TOO_LONG,
    "pictures days apart, mp4": TOO_LONG,
    "days without a declared duration": LEFT_OUT,
    "days in a header of a second": LEFT_OUT,
    "a hundred gaps of an hour": TOO_LONG,
    "gaps that creep": LEFT_OUT,
    "samples of a day, sound": "audio stream of .* nothing of it could be decoded",
    "samples of a day, pictures": LEFT_OUT,
    "a last picture of a day": LEFT_OUT,
    "thousands of packets at one time": LEFT_OUT,
    "a million pictures a second": LEFT_OUT,
    "a picture in a thousand seconds": TOO_LONG,
    "sample rate 0": NOT_READ,
    "sample rate 1": TOO_LONG,
    "sample rate 3": TOO_LONG,
    f"sample rate {2**31 - 1}": "declares a sample rate of 2147483647 Hz",
    "sample rate -1": NOT_READ,
    "0 channels": "nothing of it could be decoded",
    "64 channels": WHOLE,
    "255 channels": "declares 255 channels",
    # versions of FFmpeg differ in what they notice first
    "65535 channels": "nothing of it could be decoded|declares 65535 channels",
    "4 GB of wav": WHOLE,
    "2^62 bytes of w64": WHOLE,
    "2 GB of au": "stops at 1.00 s",
    "2^62 bytes of caf": WHOLE,
    "2^36 samples of flac": "stops at 1.00 s",
    "3 hours of flac": "stops at 1.00 s",
    "2^31 frames of mp3": "stops at 1.01 s",
    "samples that are no numbers": "samples are NaN",
    "20000000 samples of mp4": TOO_LARGE,
    "80000000 samples of mp4": TOO_LARGE,
    "20000000 in a fragment": "stops at 0.1",
    "80000000 in a fragment": "needs too much memory|cannot be opened",
    "an edit list that multiplies": LEFT_OUT,
    "hundreds of streams": "more than 256 streams",
    "a huge attachment": "cannot be opened",
    "huge metadata": WHOLE,
    "67 Mpx, H.264": TOO_LARGE,
    "67 Mpx, H.264 in TS": TOO_LARGE,
    "67 Mpx, PNG": TOO_LARGE,
    "67 Mpx, GIF": TOO_LARGE,
    "67 Mpx, MJPEG": TOO_LARGE,
    "pictures that grow, H.264": "decoding errors from about 0.32 s on",
    "pictures that grow, TS": "decoding errors from about 0.32 s on",
    "pictures larger than declared": TOO_LARGE,
    "sound that changes a thousand times": "stops at",
    **{f"disguised: {name}": NOT_READ for name in hostile_media.LISTS},
    "samples at an address": WHOLE,
}


# forks a process for each path, after the import of what is needed
SERVER = """
import json, os, signal, sys
import pyannote_av.core.io, pyannote_av.core.sound

for line in sys.stdin:
    child = os.fork()
    if not child:
        signal.alarm(300)
        exec(sys.argv[1], {"path": json.loads(line)})
        sys.stdout.flush()
        os._exit(0)
    print("ended", os.waitpid(child, 0)[1], flush=True)
"""


@pytest.fixture(scope="module")
def server():
    command = [sys.executable, "-c", SERVER, READ]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        yield process
        process.kill()


def read_in_a_process(server: subprocess.Popen, path: Path) -> dict:
    """What READ finds"""
    server.stdin.write(json.dumps(str(path)) + "\n")
    server.stdin.flush()
    lines = [server.stdout.readline()]
    while lines[-1] and not lines[-1].startswith("ended"):
        lines.append(server.stdout.readline())
    if lines[-1] != "ended 0\n":
        server.kill()
        pytest.fail(server.stderr.read())
    return json.loads(lines[-2])


# twenty seconds and more
SLOW = ("an edit list that multiplies",)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [])
        for name in hostile_media.CASES
    ],
)
def test_hostile_file(tmp_path, name, server):
    path = hostile_media.CASES[name](tmp_path)
    found = read_in_a_process(server, path)
    assert found["peak"] < MEMORY
    assert found["pictures"] < STEPS
    if OUTCOMES[name] is WHOLE:
        assert all("is silent from beginning to end" in sentence for sentence in found["said"])
        assert found["samples"] or found["pictures"]
    else:
        assert any(re.search(OUTCOMES[name], sentence) for sentence in found["said"]), found
        assert all(str(path) in sentence for sentence in found["said"])


def test_no_address_is_contacted(tmp_path):
    """References in a mov, and lists under the name of a film, are not followed"""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/a.mov"
        playlist = tmp_path / "list.mp4"
        playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{address}\n")
        for path in (hostile_media.reference(tmp_path, address), playlist):
            with suppress(MediaError):
                list(Video().frames(path, problems=[]))
        server.settimeout(0.2)
        with pytest.raises(TimeoutError):
            server.accept()


# --- what is honest -----------------------------------------------------------------------------


def test_pause_of_an_hour(tmp_path):
    times = [0.0, 0.04, 3600.0, 3600.04]
    path = hostile_media.write_packets(tmp_path / "pause.mkv", times, times)
    problems = []
    waveform = Video().waveform(path, problems)
    assert waveform.shape[1] == 3600.06 * 16000
    assert waveform[0, -320:].all()
    assert "gaps of 3599.98 s" in problems[0]
    part = list(Video().frames(path, start=3599.0, problems=problems))
    assert [frame.pts for frame in part if not frame.repeated] == pytest.approx([3600.0, 3600.04])
    assert part[0].time == 3599.0


def test_day_of_sound_is_believed():
    day = 24 * 3600
    assert longest(day * 16000 * 2) >= day
    assert longest(day * 60) >= day  # silence as FLAC
    assert longest(0) == 2 * 3600
    assert longest(2**60) == MAX_DURATION


def test_recording_that_pauses_while_all_is_quiet():
    """Eight hours with half a minute of sound in ten minutes"""
    damage = Damage()
    for time in range(0, 8 * 3600, 600):
        assert damage.accepts(time, 8 * 3600.0)
        damage.advance(time, time + 30, 0.1)
    assert damage.misplaced == 0
    end = damage.end
    allowed = MAX_MISSING + MISSING_RATIO * (end - damage.missing) - damage.missing
    assert not damage.accepts(end + allowed + 1, MAX_DURATION)
    assert damage.accepts(end + allowed - 1, MAX_DURATION)
    assert damage.misplaced == 1


def test_sizes_of_pictures():
    assert not any(is_too_large(*size) for size in ((7680, 4320), (8192, 4320), (1, 16384)))
    assert all(is_too_large(*size) for size in ((8192, 8192), (1, 16385), (16384, 16384)))


def test_8k_decodes(tmp_path):
    path = hostile_media.write_flat(tmp_path / "8k.mp4", "libx264", "yuv420p", (7680, 4320), 1)
    (frame,) = Video().frames(path)
    assert frame.image.shape == (4320, 7680, 3)


def test_eight_channels_at_96_khz(tmp_path):
    path = media.write_media(
        tmp_path / "a.wav", video=False, audio_codec="pcm_s16le", layout="7.1", audio_rate=96000
    )
    waveform = Video().waveform(path)
    assert abs(media.sound_offset(waveform)) < 0.001


# --- in memory ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [44101, 47999, 767999, 2003])
def test_rates_without_a_common_divisor(rate):
    """The filter of torchaudio would take gigabytes"""
    times = np.arange(round(1.5 * rate)) / rate
    file = {"waveform": torch.from_numpy(media.bursts(times))[None], "sample_rate": rate}
    waveform = Video().waveform(file)
    assert waveform.shape[1] == pytest.approx(24000, abs=16)
    assert abs(media.sound_offset(waveform)) < 0.001
    assert waveform.abs().max() == pytest.approx(0.5, abs=0.05)


def test_resampling_agrees_with_that_of_common_rates():
    signal = media.bursts(np.arange(3 * 44100) / 44100)
    file = {"waveform": torch.from_numpy(signal)[None], "sample_rate": 44100}
    ours = resample(signal, 44100, 16000)
    theirs = Video().waveform(file).numpy()[0]
    assert len(ours) == len(theirs) == 48000
    assert np.abs(ours - theirs).mean() < 0.002


@pytest.mark.parametrize(
    "rate",
    [
        None,
        0,
        -16000,
        1,
        3,
        2**31 - 1,
        10**12,
        1e300,
        float("nan"),
        float("inf"),
        44100.5,
        "16 kHz",
    ],
)
def test_absurd_sample_rate_in_memory(rate):
    with pytest.raises(MediaError, match="sample_rate"):
        Video().waveform({"waveform": torch.zeros(1, 100), "sample_rate": rate})


@pytest.mark.parametrize("rate", [0, 1, 16000.5, float("nan"), 2**40])
def test_absurd_target_sample_rate(rate):
    with pytest.raises(ValueError, match="sample_rate"):
        Video(sample_rate=rate)


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), 1e9, -1])
def test_absurd_grid(rate):
    with pytest.raises(ValueError, match="frame_rate"):
        Video(frame_rate=rate)


@pytest.mark.parametrize(
    "waveform",
    [
        torch.zeros(0, 5),
        torch.zeros(0, 0),
        torch.zeros(0),
        [[1.0], [1.0, 2.0]],
        "waveform",
        object(),
    ],
)
def test_no_waveform(waveform):
    with pytest.raises(MediaError, match="'waveform'"):
        Video().waveform({"waveform": waveform, "sample_rate": 16000})


@pytest.mark.parametrize(
    ("times", "reason"),
    [
        ([0.0, 3 * 86400.0], "span 259200 s"),
        ([0.0, 1e300], "other units"),
        ([1.7e9, 1.7e9 + 1], "dates"),
        ([-1e300, 0.0], "other units"),
        ([0.0, 1e12], "other units"),
        ([0.0, float("nan")], "finite"),
        (["a", "b"], "numbers of seconds"),
        ([0.0, 10**400], "numbers of seconds"),
    ],
)
def test_absurd_times_in_memory(times, reason):
    file = {"frames": np.zeros((2, 4, 4, 3), np.uint8), "timestamps": times}
    with pytest.raises(MediaError, match=reason):
        Video().frames(file)


def test_excerpt_keeps_its_times():
    """Pictures from the fifth day of a recording"""
    file = {"frames": np.zeros((2, 4, 4, 3), np.uint8), "timestamps": [4e5, 4e5 + 0.04]}
    assert [frame.time for frame in Video().frames(file)] == [4e5, 4e5 + 0.04]


# --- parts --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    return media.write_media(tmp_path_factory.mktemp("film") / "film.mp4", duration=1.0)


@pytest.fixture(params=["file", "memory"])
def file(request, film):
    if request.param == "file":
        return film
    return {"frames": np.zeros((25, 4, 4, 3), np.uint8), "timestamps": np.arange(25) / 25}


def test_bounds_of_parts(file):
    video, inf = Video(), float("inf")
    assert len(list(video.frames(file, -inf, inf))) == 25
    assert len(list(video.frames(file, -1e300, 1e300))) == 25
    assert not list(video.frames(file, inf))
    assert not list(video.frames(file, 1e300))
    for start, end in ((float("nan"), None), (0.0, float("nan"))):
        with pytest.raises(MediaError, match="NaN"):
            video.frames(file, start, end)
    assert len(video.crop(file, Segment(0.0, inf))[0]) == 25


def test_crop_too_large(file, monkeypatch):
    """Neither what the header tells nor what turns up is put into memory beyond the limit"""
    video = Video()
    size = next(video.frames(file)).image.nbytes
    monkeypatch.setattr(io, "MAX_CROP", 10 * size)
    images, _ = video.crop(file, Segment(0.0, 0.4))
    assert len(images) == 10
    for check in (True, False):
        if not check:
            monkeypatch.setattr(Video, "_check_crop", lambda *_: None)
        with pytest.raises(MediaError, match=r"one by one with `Video\.frames`"):
            video.crop(file, Segment(0.0, 3600.0))
    # only what there is counts
    monkeypatch.undo()
    assert len(video.crop(file, Segment(0.0, 1e9))[0]) == 25


# --- names --------------------------------------------------------------------------------------


def test_control_characters_of_names_are_escaped(tmp_path):
    path = tmp_path / "a\x1b[2J.mp4"
    with pytest.raises(MediaError, match=r"a\\x1b\[2J\.mp4: no such file"):
        Video().probe(path)
    media.truncate(media.write_media(path, faststart=True), 0.6)
    problems = []
    list(Video().frames(path, problems=problems))
    assert problems
    assert all(r"a\x1b[2J.mp4" in sentence and "\x1b" not in sentence for sentence in problems)
    with pytest.warns(UserWarning, match=r"a\\x1b\[2J\.mp4"):
        list(Video().frames(path))


@pytest.mark.parametrize("path", ["a" * 5000, "a/" * 3000 + "b.mp4", 3, b"a.mp4", "a\0.mp4"])
def test_no_name_of_a_file(path):
    with pytest.raises(MediaError):
        Video().probe({"video": path})
