"""Small media files that ask for far more than they hold, made on the fly for the tests.

Each function of `CASES` writes one file into a folder and returns its path. What no muxer writes
is made by changing bytes of an honest file.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path

import media
import numpy as np

HOUR = 3600
DAY = 24 * HOUR


# --- parts ------------------------------------------------------------------------------------


def _sound(path: Path, **how) -> Path:
    """A second of sound"""
    codec = how.pop("audio_codec", "pcm_s16le")
    return media.write_media(path, duration=1.0, video=False, audio_codec=codec, **how)


def _patch(path: Path, old: bytes, new: bytes, offset: int = 0) -> Path:
    """Overwrite bytes `offset` behind the first occurrence of `old`"""
    data = bytearray(path.read_bytes())
    place = data.index(old) + offset
    data[place : place + len(new)] = new
    path.write_bytes(data)
    return path


def _patch_all(path: Path, old: bytes, new: bytes, offset: int = 0) -> Path:
    """Overwrite bytes `offset` behind each occurrence of `old`"""
    data = bytearray(path.read_bytes())
    place = data.find(old)
    while place >= 0:
        data[place + offset : place + offset + len(new)] = new
        place = data.find(old, place + len(old))
    path.write_bytes(data)
    return path


def write_packets(
    path: Path,
    video: list[float] = (),
    audio: list[float] = (),
    size: tuple[int, int] = (64, 64),
    rate: int = 16000,
    **options: str,
) -> Path:
    """Pictures, and 20 ms of sound, at these times (s); the suffix tells the container"""
    import av

    with av.open(str(path), "w", options=options) as container:
        packets = []
        for kind, times in (("video", video), ("audio", audio)):
            if not len(times):
                continue
            if kind == "video":
                stream = container.add_stream("mpeg4", rate=25)
                stream.width, stream.height = size
                frame = av.VideoFrame(*size, "yuv420p")
                base = Fraction(1, 25)
            else:
                stream = container.add_stream("pcm_s16le", rate=rate, layout="mono")
                samples = np.resize(np.int16([8000, 8000, -8000, -8000]), (1, rate // 50))
                frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
                frame.sample_rate = rate
                base = Fraction(1, rate)
            for number, time in enumerate(times):
                frame.pts, frame.time_base = number * (1 if kind == "video" else rate // 50), base
                if kind == "video":
                    frame.pict_type = av.video.frame.PictureType.I
                for packet in stream.encode(frame):
                    packets.append((time, packet))
        for time, packet in sorted(packets, key=lambda pair: pair[0]):
            packet.pts = packet.dts = round(time / packet.time_base)
            container.mux(packet)
    return path


def write_flat(
    path: Path, codec: str, pixels: str, size: tuple[int, int], count: int = 1, **options: str
) -> Path:
    """Pictures of one colour, which compress a thousand times"""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height = size
        stream.pix_fmt = pixels
        stream.codec_context.thread_count = 1
        stream.options = options
        frame = av.VideoFrame(*size, pixels)
        for plane in frame.planes:
            plane.update(bytes([128]) * plane.buffer_size)
        for number in range(count):
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


_H264 = {"preset": "ultrafast", "qp": "40"}


# --- times ------------------------------------------------------------------------------------


def sound_days_apart(folder: Path, days: int = 3) -> Path:
    """Two packets of sound with days of nothing between them"""
    return write_packets(folder / "sound-days-apart.mkv", audio=[0.0, 0.02, days * DAY])


def pictures_days_apart(folder: Path, suffix: str = ".mkv") -> Path:
    """Two pictures with days between them, the first of which a grid shows again and again"""
    return write_packets(folder / f"pictures-days-apart{suffix}", video=[0.0, 0.04, 1.0 * DAY])


def undeclared_days(folder: Path) -> Path:
    """Sound and pictures days apart in a live recording, whose header holds no duration"""
    times = [0.0, 0.04, 3.0 * DAY]
    return write_packets(folder / "undeclared-days.mkv", times, times, live="1")


def many_gaps(folder: Path) -> Path:
    """A hundred packets of sound, each an hour after the one before"""
    return write_packets(folder / "many-gaps.mkv", audio=[k * 3500.0 for k in range(100)])


def creeping_gaps(folder: Path) -> Path:
    """Many packets, each a believable nine seconds after the one before it"""
    return write_packets(folder / "creeping.mkv", audio=[k * 9.0 for k in range(4000)])


def declared_short(folder: Path) -> Path:
    """Sound and pictures days apart in a header that declares one second"""
    times = [0.0, 0.04, 3.0 * DAY]
    path = write_packets(folder / "declared-short.mkv", times, times)
    # the duration is a double (in ms) behind its EBML identifier
    _patch(path, b"\x44\x89\x88", struct.pack(">d", 1000.0), 3)
    # the tag "DURATION" of each stream: 72:00:00
    return _patch_all(path, b"72:00:00", b"00:00:01")


def sample_durations(folder: Path, kind: str) -> Path:
    """mp4 whose table of times says that each sample lasts a day"""
    times = [k / 25 for k in range(5)]
    codec = {"video": False} if kind == "audio" else {"audio": False}
    path = folder / f"stts-{kind}.mp4"
    if kind == "video":
        write_packets(path, video=times)
    else:
        media.write_media(path, duration=0.2, **codec)
    data = path.read_bytes()
    scale = struct.unpack(">I", data[data.index(b"mdhd") + 16 :][:4])[0]
    ticks = min(scale * DAY, 2**31 - 1)
    place = data.index(b"stts") + 8
    entries = struct.unpack(">I", data[place : place + 4])[0]
    for entry in range(entries):
        _patch(path, b"stts", struct.pack(">I", ticks), 12 + 8 * entry + 4)
    return path


def last_picture_for_days(folder: Path) -> Path:
    """mp4 whose last picture is shown for days, in a header that declares a second"""
    path = write_packets(folder / "last-picture.mp4", video=[0.0, 0.04, 0.08, 0.2])
    data = path.read_bytes()
    scale = struct.unpack(">I", data[data.index(b"mdhd") + 16 :][:4])[0]
    place = data.index(b"stts") + 8
    entries = struct.unpack(">I", data[place : place + 4])[0]
    return _patch(path, b"stts", struct.pack(">I", scale * DAY), 8 + 8 * entries)


def same_time(folder: Path) -> Path:
    """Thousands of tiny packets at one time"""
    return write_packets(folder / "same-time.mkv", [0.0] * 3000, [0.0] * 5000)


def rate_of_pictures(folder: Path, rate: Fraction) -> Path:
    """Pictures at an absurd rate"""
    import av

    path = folder / f"rate-{float(rate):g}.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=rate)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuvj420p"
        for number in range(300):
            frame = av.VideoFrame(64, 64, "yuvj420p")
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


# --- headers ----------------------------------------------------------------------------------


def wav_rate(folder: Path, rate: int) -> Path:
    """WAV whose header gives an absurd sample rate"""
    path = _sound(folder / f"rate-{rate}.wav")
    return _patch(path, b"fmt ", struct.pack("<I", rate % 2**32), 12)


def wav_channels(folder: Path, channels: int) -> Path:
    """WAV whose header gives an absurd number of channels"""
    path = _sound(folder / f"channels-{channels}.wav")
    _patch(path, b"fmt ", struct.pack("<H", channels), 10)
    return _patch(path, b"fmt ", struct.pack("<H", 2 * channels % 65536), 20)


def wav_length(folder: Path) -> Path:
    """WAV whose header declares 4 GB of samples, as one written to a pipe does"""
    return _patch(_sound(folder / "long.wav"), b"data", b"\xfe\xff\xff\xff", 4)


def w64_length(folder: Path) -> Path:
    """W64 whose header declares 2^62 bytes of samples"""
    path = _sound(folder / "long.w64")
    return _patch(path, b"data\xf3\xac\xd3\x11", struct.pack("<q", 2**62), 16)


def au_length(folder: Path) -> Path:
    """AU whose header declares 2 GB of samples"""
    return _patch(
        _sound(folder / "long.au", audio_codec="pcm_s16be"), b".snd", b"\x7f\xff\xff\xf0", 8
    )


def caf_length(folder: Path) -> Path:
    """CAF whose header declares 2^62 bytes of samples"""
    path = _sound(folder / "long.caf")
    return _patch(path, b"data\0\0", struct.pack(">q", 2**62), 4)


def flac_length(folder: Path) -> Path:
    """FLAC whose header declares 2^36 - 1 samples: 16 days"""
    path = _sound(folder / "long.flac", audio_codec="flac")
    data = path.read_bytes()
    # magic (4), block header (4), block and frame sizes (10), rate and channels (4 bits short of 4)
    return _patch(path, b"fLaC", bytes([data[21] | 0x0F]) + b"\xff" * 4, 21)


def flac_hours(folder: Path) -> Path:
    """FLAC whose header declares 3 hours: enough to ask for memory, too little to look absurd"""
    path = _sound(folder / "hours.flac", audio_codec="flac")
    data = path.read_bytes()
    total = struct.pack(">I", 3 * HOUR * 48000)
    return _patch(path, b"fLaC", bytes([data[21] & 0xF0]) + total, 21)


def mp3_length(folder: Path) -> Path:
    """MP3 whose Xing header declares 2^31 frames: 600 days"""
    path = _sound(folder / "long.mp3", audio_codec="libmp3lame")
    name = b"Xing" if b"Xing" in path.read_bytes() else b"Info"
    return _patch(path, name, b"\x7f\xff\xff\xff", 8)


def float_wav(folder: Path) -> Path:
    """WAV of floats among which are infinite ones and such that are no numbers"""
    path = _sound(folder / "no-numbers.wav", audio_codec="pcm_f32le")
    data = path.read_bytes()
    first = data.index(b"data") + 8
    samples = np.frombuffer(data[first:], np.float32).copy()
    samples[[100, 5000, 9000]] = np.nan, np.inf, -np.inf
    path.write_bytes(data[:first] + samples.tobytes())
    return path


def sample_count(folder: Path, count: int) -> Path:
    """mp4 whose tables declare millions of pictures of one byte, all in its only chunk"""
    path = write_packets(folder / f"count-{count}.mp4", video=[k / 25 for k in range(5)])
    _patch(path, b"stsz", struct.pack(">II", 1, count), 8)
    _patch(path, b"stsc", struct.pack(">IIII", 1, 1, count, 1), 8)
    return _patch(path, b"stts", struct.pack(">III", 1, count, 1), 8)


def fragment_count(folder: Path, count: int) -> Path:
    """Fragmented mp4 whose fragment declares millions of pictures"""
    path = folder / f"fragment-{count}.mp4"
    flags = "empty_moov+default_base_moof"
    write_packets(path, video=[k / 25 for k in range(5)], movflags=flags)
    # no table of sizes and durations follows: all are the default ones
    return _patch(path, b"trun", struct.pack(">II", 1, count), 4)


def edit_list(folder: Path) -> Path:
    """mov with an edit list that shows its thousands of pictures thousands of times"""
    path = write_packets(folder / "edits.mov", video=[k / 25 for k in range(3000)])
    data = path.read_bytes()
    place = data.index(b"edts") - 4
    old = struct.unpack(">I", data[place : place + 4])[0]
    count = 5000
    one = struct.pack(">IiI", 3000, 0, 0x10000)
    elst = struct.pack(">I4sII", 16 + 12 * count, b"elst", 0, count) + one * count
    edts = struct.pack(">I4s", 8 + len(elst), b"edts") + elst
    grown = len(edts) - old
    data = data[:place] + edts + data[place + old :]
    # the boxes around it grow, too; the media come before them
    data = bytearray(data)
    for name in (b"moov", b"trak"):
        at = data.rindex(name, 0, place) - 4
        data[at : at + 4] = struct.pack(">I", struct.unpack(">I", data[at : at + 4])[0] + grown)
    path.write_bytes(data)
    return path


def many_streams(folder: Path, count: int = 400) -> Path:
    """mov with hundreds of tracks"""
    import av

    path = folder / "streams.mov"
    with av.open(str(path), "w") as container:
        streams = [
            container.add_stream("pcm_s16le", rate=16000, layout="mono") for _ in range(count)
        ]
        for stream in streams:
            samples = np.zeros((1, 16), np.int16)
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate = 16000
            container.mux(stream.encode(frame))
    return path


def _length(size: int) -> bytes:
    """EBML size of eight bytes"""
    return (1 << 56 | size).to_bytes(8, "big")


def attachment(folder: Path) -> Path:
    """Matroska whose attachment declares to be 250 MB long"""
    path = write_packets(folder / "attachment.mkv", [0.0, 0.04], [0.0, 0.02])
    content = b"\x46\x6e\x81a" + b"\x46\x60\x8aapp/x-font" + b"\x46\x5c" + _length(250_000_000)
    entry = b"\x61\xa7" + _length(len(content) + 250_000_000) + content
    head = b"\x19\x41\xa4\x69" + _length(len(entry) + 250_000_000) + entry
    data = path.read_bytes()
    cluster = data.index(b"\x1f\x43\xb6\x75")
    segment = data.index(b"\x18\x53\x80\x67")
    data = data[: segment + 4] + b"\x01" + b"\xff" * 7 + data[segment + 12 : cluster] + head
    path.write_bytes(data + path.read_bytes()[cluster:])
    return path


def metadata(folder: Path) -> Path:
    """A title of ten megabytes, with escape sequences, in a small recording"""
    import av

    path = folder / "metadata.mkv"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "\x1b[2J" * 2_000_000
        stream = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        samples = np.zeros((1, 16000), np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


# --- pictures -----------------------------------------------------------------------------------


def flat(folder: Path, name: str, codec: str, pixels: str, **options: str) -> Path:
    """A tiny file with pictures of 67 million pixels"""
    return write_flat(folder / f"flat-{name}", codec, pixels, (8192, 8192), **options)


def growing(folder: Path, suffix: str) -> Path:
    """H.264 whose pictures grow from 64x64 to 8192x8192 in midstream"""
    parts = [
        write_flat(folder / f"{side}{suffix}", "libx264", "yuv420p", (side, side), 8, **_H264)
        for side in (64, 8192)
    ]
    path = folder / f"growing{suffix}"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    for part in parts:
        part.unlink()
    return path


def larger_than_declared(folder: Path) -> Path:
    """Matroska that declares pictures of 64x64 and holds such of 8192x8192"""
    path = write_flat(folder / "larger.mkv", "libx264", "yuv420p", (8192, 8192), 2, **_H264)
    small = struct.pack(">H", 64)
    for element in (b"\xb0\x82", b"\xba\x82"):  # width and height
        _patch(path, element + struct.pack(">H", 8192), small, 2)
    return path


# --- sound that changes -------------------------------------------------------------------------


def changing(folder: Path, times: int = 1000) -> Path:
    """MP3 whose rate and channels change with every few frames"""
    parts = []
    for rate, layout in ((44100, "mono"), (48000, "stereo"), (32000, "mono")):
        part = media.write_media(
            folder / f"{rate}.mp3",
            duration=0.15,
            video=False,
            audio_codec="libmp3lame",
            audio_rate=rate,
            layout=layout,
        )
        parts.append(_mp3_frames(part.read_bytes()))
        part.unlink()
    path = folder / "changing.mp3"
    path.write_bytes(b"".join(parts) * (times // 3))
    return path


def _mp3_frames(data: bytes) -> bytes:
    """Frames of an MP3 without its tags"""
    return data[data.index(b"\xff\xfb") :]


# --- disguises ----------------------------------------------------------------------------------


def disguised(folder: Path, name: str, content: str) -> Path:
    """A list of other files under the name of a film"""
    _sound(folder / "secret.wav")
    path = folder / name
    path.write_text(content.format(secret=folder / "secret.wav", folder=folder))
    return path


def reference(folder: Path, url: str = "http://127.0.0.1:9/a.mov") -> Path:
    """mov whose samples are said to lie in another file or at an address"""
    path = media.write_media(folder / "reference.mov", duration=0.4, audio=False)
    data = bytearray(path.read_bytes())
    place = data.index(b"dref") + 12  # of the first entry
    old = struct.unpack(">I", data[place : place + 4])[0]
    entry = struct.pack(">I4sI", 13 + len(url), b"url ", 0) + url.encode() + b"\0"
    data[place : place + old] = entry
    for name in (b"dref", b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        at = data.rindex(name, 0, place) - 4
        size = struct.unpack(">I", data[at : at + 4])[0]
        data[at : at + 4] = struct.pack(">I", size + len(entry) - old)
    path.write_bytes(data)
    return path


LISTS = {
    "concat.mp4": "ffconcat version 1.0\nfile {secret}\n",
    "hls.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{secret}\n#EXT-X-ENDLIST\n",
    "dash.mkv": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
    "<Period><AdaptationSet><Representation><BaseURL>{secret}</BaseURL></Representation>"
    "</AdaptationSet></Period></MPD>",
    "sdp.mp4": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=a\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
    "picture-%d.mp4": "no pictures",
    "filter.mp4": "amovie={secret}",
}

CASES: dict[str, Callable[[Path], Path]] = {
    "sound days apart": sound_days_apart,
    "pictures days apart, mkv": pictures_days_apart,
    "pictures days apart, mp4": partial(pictures_days_apart, suffix=".mp4"),
    "days without a declared duration": undeclared_days,
    "days in a header of a second": declared_short,
    "a hundred gaps of an hour": many_gaps,
    "gaps that creep": creeping_gaps,
    "samples of a day, sound": partial(sample_durations, kind="audio"),
    "samples of a day, pictures": partial(sample_durations, kind="video"),
    "a last picture of a day": last_picture_for_days,
    "thousands of packets at one time": same_time,
    "a million pictures a second": partial(rate_of_pictures, rate=Fraction(1000000)),
    "a picture in a thousand seconds": partial(rate_of_pictures, rate=Fraction(1, 1000)),
    **{f"sample rate {rate}": partial(wav_rate, rate=rate) for rate in (0, 1, 3, 2**31 - 1, -1)},
    **{f"{n} channels": partial(wav_channels, channels=n) for n in (0, 64, 255, 65535)},
    "4 GB of wav": wav_length,
    "2^62 bytes of w64": w64_length,
    "2 GB of au": au_length,
    "2^62 bytes of caf": caf_length,
    "2^36 samples of flac": flac_length,
    "3 hours of flac": flac_hours,
    "2^31 frames of mp3": mp3_length,
    "samples that are no numbers": float_wav,
    **{f"{n} samples of mp4": partial(sample_count, count=n) for n in (20_000_000, 80_000_000)},
    **{f"{n} in a fragment": partial(fragment_count, count=n) for n in (20_000_000, 80_000_000)},
    "an edit list that multiplies": edit_list,
    "hundreds of streams": many_streams,
    "a huge attachment": attachment,
    "huge metadata": metadata,
    "67 Mpx, H.264": partial(flat, name="h264.mp4", codec="libx264", pixels="yuv420p", **_H264),
    "67 Mpx, H.264 in TS": partial(
        flat, name="h264.ts", codec="libx264", pixels="yuv420p", **_H264
    ),
    "67 Mpx, PNG": partial(flat, name="png.mov", codec="png", pixels="gray"),
    "67 Mpx, GIF": partial(flat, name="gif.gif", codec="gif", pixels="rgb8"),
    "67 Mpx, MJPEG": partial(flat, name="mjpeg.avi", codec="mjpeg", pixels="yuvj420p"),
    "pictures that grow, H.264": partial(growing, suffix=".h264"),
    "pictures that grow, TS": partial(growing, suffix=".ts"),
    "pictures larger than declared": larger_than_declared,
    "sound that changes a thousand times": changing,
    **{
        f"disguised: {name}": partial(disguised, name=name, content=content)
        for name, content in LISTS.items()
    },
    "samples at an address": reference,
}
