"""Faults of pictures, tracks and whole files: what is made, what is expected, and the message.

`FAULTS` is data. `tests/test_faults.py` checks each row, and `docs/faults.md` shows them.
"""

from __future__ import annotations

import wave
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import media
import numpy as np
from media import Pictures, Sound, tone, write_streams

DEFAULT, COMMENT, ATTACHED = 1, 8, 1024


@dataclass(frozen=True)
class Fault:
    """One fault

    `outcome` and `message` are for readers; `message` is also what one sentence or error has to
    contain, or None if there is no message because nothing is lost. `make` writes the file into a
    folder. `pictures` and `sound` are the seconds that can be read, None if that is refused. `size`
    is that of the pictures, and `tones` are the frequencies (Hz) that can be heard.
    """

    id: str
    fault: str
    outcome: str
    message: str | None
    make: Callable[[Path], Path]
    pictures: float | None = 1.0
    sound: float | None = 1.0
    size: tuple[int, int] | None = None
    tones: tuple[int, ...] | None = None


# --- makers -------------------------------------------------------------------------------------


def _film(folder: Path, name: str, sound: bool = True, **how) -> Path:
    tracks = [Sound()] if sound else []
    return write_streams(folder / name, Pictures(**how), *tracks)


def _plain(colour, size=(64, 48), **how) -> Pictures:
    image = np.zeros((size[1], size[0], 3), np.uint8) + np.uint8(colour)
    return Pictures(draw=lambda t: image, size=size, **how)


def _joined(folder: Path, *parts: Pictures) -> Path:
    """Transport stream of parts of 13 pictures, one behind the other on the clock"""
    content = b""
    for number, part in enumerate(parts):
        part.codec, part.duration, part.start = "mpeg2video", 0.52, 0.52 * number
        sound = Sound(codec="mp2", duration=0.52, start=0.52 * number)
        piece = write_streams(folder / f"{number}.ts", part, sound, output_ts_offset="1")
        content += piece.read_bytes()
    path = folder / "joined.ts"
    path.write_bytes(content)
    return path


def _woven(t: float) -> np.ndarray:
    image = media.draw_time(t)
    left = int(20 + 100 * t)
    image[70:120, left : left + 20] = 220
    image[71:120:2, left + 2 : left + 22] = 220
    return image


def _cover(folder: Path) -> Path:
    cover = _plain((200, 30, 30), codec="mjpeg", pixels="yuvj420p", duration=0.04, flags=ATTACHED)
    return write_streams(folder / "song.mp3", Sound(codec="libmp3lame"), cover)


def _thumbnail(folder: Path) -> Path:
    small = _plain((200, 30, 30), codec="mjpeg", pixels="yuvj420p", duration=0.04, flags=DEFAULT)
    return write_streams(folder / "a.mp4", small, Pictures(flags=DEFAULT), Sound())


def _two_films(folder: Path) -> Path:
    other = _plain((200, 30, 30), (320, 240))
    return write_streams(folder / "a.mkv", other, Pictures(flags=DEFAULT), Sound())


def _tracks(folder: Path, *flags_and_languages: tuple[int, str]) -> Path:
    sounds = [
        Sound(tone(440 * (k + 1)), flags=flags, metadata={"language": language} if language else {})
        for k, (flags, language) in enumerate(flags_and_languages)
    ]
    return write_streams(folder / "a.mkv", Pictures(), *sounds)


def _microphones(folder: Path, silent: int = 0) -> Path:
    quiet = Sound(lambda t: np.zeros(len(t), np.float32), codec="pcm_s16le")
    sounds = [Sound(tone(440 * (k + 1)), codec="pcm_s16le") for k in range(2)]
    pictures = Pictures(codec="mpeg2video")
    return write_streams(folder / "a.mxf", pictures, *sounds, *[quiet] * silent)


def _sides(folder: Path) -> Path:
    def signal(t):
        return np.stack([tone(440)(t), tone(880)(t)])

    return write_streams(folder / "a.mkv", Pictures(), Sound(signal, layout="stereo"))


def _between_key_pictures(folder: Path) -> Path:
    """The beginning of a transport stream is missing, up to the middle of a group of pictures"""
    path = write_streams(
        folder / "a.ts", Pictures(duration=2.0, gop=25), Sound(duration=2.0, codec="mp2")
    )
    data = path.read_bytes()
    # tables of the streams, then packets from a quarter of the file on
    cut = len(data) // 4 // 188 * 188
    path.write_bytes(data[: 3 * 188] + data[cut:])
    return path


def _damaged(folder: Path, name: str) -> Path:
    return media.damage(media.write_media(folder / name, duration=6), 0.3, 0.6)


def _cut(folder: Path, name: str, fraction: float, **options: str) -> Path:
    path = write_streams(folder / name, Pictures(duration=2.0), Sound(duration=2.0), **options)
    return media.truncate(path, fraction)


def _renamed(folder: Path, name: str, wrong: str) -> Path:
    return _film(folder, name).rename(folder / wrong)


def _bytes(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def _archive(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "a.mp4", "w") as file:
        file.writestr("talk.mp4", "film" * 1000)
    return folder / "a.mp4"


def _encrypted(folder: Path, pictures: bool = True) -> Path:
    streams = [Pictures(), Sound()] if pictures else [Sound()]
    return write_streams(
        folder / "a.mp4",
        *streams,
        encryption_scheme="cenc-aes-ctr",
        encryption_key="76a6c65c5ea762046bd749a2e632ccbb",
        encryption_kid="a7e61c373e219033c21091fa607bf3b8",
    )


def _no_decoder(folder: Path, *kinds: bytes) -> Path:
    path = _film(folder, "a.mkv")
    data = path.read_bytes()
    for kind in kinds:
        data = data.replace(kind, kind[:-1] + b"Z")
    path.write_bytes(data)
    return path


def _noise(folder: Path) -> Path:
    path = _film(folder, "a.mp4")
    data = bytearray(path.read_bytes())
    first, last = data.index(b"mdat") + 4, data.index(b"moov") - 4
    data[first:last] = np.random.default_rng(0).bytes(last - first)
    path.write_bytes(data)
    return path


def _no_packets(folder: Path) -> Path:
    path = _film(folder, "a.mkv")
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"\x1f\x43\xb6\x75")])
    return path


def _no_samples(folder: Path) -> Path:
    with wave.open(str(folder / "a.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
    return folder / "a.wav"


def _broken_track(folder: Path) -> Path:
    """Two microphones, of which the first has no packet that can be decoded"""
    import av

    path = write_streams(
        folder / "a.mkv", Pictures(), Sound(tone(440)), Sound(tone(880), codec="flac")
    )
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(audio=0) if packet.size > 40]
    data = bytearray(path.read_bytes())
    for packet in packets:
        place = data.find(packet)
        data[place : place + len(packet)] = b"\xff" * len(packet)
    path.write_bytes(data)
    return path


def _times(folder: Path) -> Path:
    times = [0, 0.04, 0.08, 0.4, 0.44, 0.9, 0.96]
    return media.write_media(folder / "a.mkv", timestamps=times, duration=1.0)


X265 = {"codec": "libx265", "options": {"x265-params": "log-level=none"}}


def _pq(folder: Path) -> Path:
    def setup(stream):
        stream.codec_context.color_trc = 16

    return _film(folder, "a.mp4", pixels="yuv420p10le", setup=setup, **X265)


# --- rows ---------------------------------------------------------------------------------------

SHOWN = [
    Fault(
        "mirrored",
        "the display matrix mirrors the picture (front cameras)",
        "shown mirrored, as players do",
        None,
        partial(_film, name="a.mp4", matrix=(-1, 0, 0, 1)),
        size=(192, 128),
    ),
    Fault(
        "mirrored-and-turned",
        "the display matrix mirrors and turns the picture",
        "shown mirrored and turned; boxes are those of the shown picture",
        None,
        partial(_film, name="a.mp4", matrix=(0, 1, 1, 0)),
        size=(128, 192),
    ),
    Fault(
        "anamorphic",
        "pixels that are not square (DV, DVD, broadcast)",
        "made square by changing the width, so that faces have their shape",
        None,
        partial(_film, name="a.mkv", aspect=Fraction(4, 3)),
        size=(256, 128),
    ),
    Fault(
        "anamorphic-and-turned",
        "pixels that are not square, of a turned camera",
        "made square, then turned",
        None,
        partial(_film, name="a.mp4", aspect=Fraction(2), matrix=(0, 1, -1, 0)),
        size=(128, 384),
    ),
    Fault(
        "absurd-pixels",
        "pixels a thousand times as wide as high",
        "taken for square ones: the header is damaged",
        None,
        partial(_film, name="a.mkv", aspect=Fraction(1000)),
        size=(192, 128),
    ),
    Fault(
        "size-grows",
        "larger pictures of the same shape in the middle (calls)",
        "scaled to the first size",
        "changes the size of its pictures from 192x128 to 384x256",
        lambda folder: _joined(folder, Pictures(), Pictures(size=(384, 256))),
        size=(192, 128),
    ),
    Fault(
        "shape-changes",
        "pictures of another shape in the middle (a phone is turned in a call)",
        "shown whole, between black borders, in the size of the first picture",
        "changes the size of its pictures from 192x128 to 128x192",
        lambda folder: _joined(folder, Pictures(), Pictures(size=(128, 192))),
        size=(192, 128),
    ),
    Fault(
        "pixels-change",
        "4:3 and 16:9 follow each other (television)",
        "each is shown in its shape, within the first picture",
        "changes the size of its pictures",
        lambda folder: _joined(
            folder, Pictures(aspect=Fraction(8, 9)), Pictures(aspect=Fraction(32, 27))
        ),
        size=(171, 128),
    ),
    Fault(
        "interlaced",
        "two fields in a picture (DV, broadcast, old cameras)",
        "lines that show another moment are made from the lines around them",
        None,
        partial(
            _film,
            name="a.ts",
            sound=True,
            draw=_woven,
            codec="mpeg2video",
            options={"flags": "+ildct+ilme"},
        ),
        size=(192, 128),
    ),
    Fault(
        "high-dynamic-range",
        "HDR10 pictures, which look grey on an ordinary screen",
        "mapped to an ordinary screen",
        None,
        _pq,
    ),
    Fault(
        "ten-bits",
        "10 bits per colour",
        "read as 8 bits",
        None,
        partial(_film, name="a.mkv", pixels="yuv420p10le"),
    ),
    Fault(
        "odd-size",
        "odd width and height",
        "read as they are",
        None,
        partial(_film, name="a.mkv", size=(181, 77), pixels="yuv444p"),
        size=(181, 77),
    ),
    Fault(
        "transparent",
        "an alpha channel (screen and avatar recordings)",
        "transparency is ignored",
        None,
        partial(_film, name="a.mkv", codec="ffv1", pixels="yuva420p"),
    ),
    Fault(
        "grey",
        "pictures without colour",
        "three equal colours",
        None,
        partial(_film, name="a.mkv", codec="ffv1", pixels="gray"),
    ),
    Fault(
        "palette",
        "colours from a palette (GIF)",
        "read in true colours; there is no sound",
        "has no audio stream",
        partial(_film, name="a.gif", codec="gif", pixels="rgb8", sound=False),
        sound=None,
    ),
    Fault(
        "variable-rate",
        "pictures at irregular times, in a header of a constant rate (screen recordings)",
        "each picture is held until the next one",
        None,
        _times,
    ),
]

TRACKS = [
    Fault(
        "cover-art",
        "a picture of the cover in a sound file",
        "no video: the sound alone is used",
        "has no video stream",
        _cover,
        pictures=None,
    ),
    Fault(
        "thumbnail",
        "a thumbnail before the film, both marked as default",
        "the film is used",
        None,
        _thumbnail,
        size=(192, 128),
    ),
    Fault(
        "two-films",
        "two video streams, the smaller one is the default one",
        "the default one is used",
        None,
        _two_films,
        size=(192, 128),
    ),
    Fault(
        "commentary-first",
        "the commentary comes before the conversation",
        "the commentary is left out",
        "2 audio tracks: the default one (stream 2) is used",
        lambda folder: _tracks(folder, (COMMENT, ""), (DEFAULT | 4, "")),
        tones=(880,),
    ),
    Fault(
        "languages",
        "one track per language",
        "the default one is used; `audio_track` takes another one",
        "2 audio tracks: the default one (stream 2) is used",
        lambda folder: _tracks(folder, (0, "eng"), (DEFAULT, "deu")),
        tones=(880,),
    ),
    Fault(
        "microphones",
        "one track of one channel per microphone (MXF, field recorders)",
        "the tracks are mixed; `audio_track` takes one of them",
        "each is treated as one microphone",
        _microphones,
        tones=(440, 880),
    ),
    Fault(
        "silent-tracks",
        "tracks of microphones, some without any sound",
        "the others are mixed, at their full level",
        "8 audio tracks: each is treated as one microphone",
        partial(_microphones, silent=6),
        tones=(440, 880),
    ),
    Fault(
        "broken-track",
        "two microphones, of which one cannot be decoded",
        "the other one is used",
        "nothing of it could be decoded",
        _broken_track,
        tones=(880,),
    ),
    Fault(
        "a-side-each",
        "one speaker on each channel of a stereo track",
        "the average of both is used",
        None,
        _sides,
        tones=(440, 880),
    ),
    Fault(
        "no-decoder",
        "pictures of an unknown codec beside sound",
        "the sound alone is used",
        "video stream 0 of",
        lambda folder: _no_decoder(folder, b"ISO/AVC"),
        pictures=None,
    ),
    Fault(
        "no-decoder-at-all",
        "unknown codecs only",
        "refused",
        "has neither a video nor an audio stream that can be decoded",
        lambda folder: _no_decoder(folder, b"ISO/AVC", b"A_AAC"),
        pictures=None,
        sound=None,
    ),
]

FILES = [
    Fault(
        "film-cut-short",
        "the end of the file is missing",
        "what is there is used",
        "the file is cut short or damaged",
        partial(_cut, name="a.mp4", fraction=0.6, movflags="+faststart"),
        pictures=1.0,
        sound=0.9,
    ),
    Fault(
        "film-without-index",
        "an mp4 whose recording was interrupted",
        "refused",
        "its header is damaged or missing (an mp4 whose recording was interrupted)",
        partial(_cut, name="a.mp4", fraction=0.6),
        pictures=None,
        sound=None,
    ),
    Fault(
        "no-key-picture",
        "the file begins between key pictures",
        "pictures begin with the next key picture, in their places",
        None,
        _between_key_pictures,
        pictures=1.0,
        sound=1.5,
    ),
    Fault(
        "damaged-middle",
        "bytes in the middle are wrong",
        "what can be decoded is used, in its place",
        "is damaged",
        partial(_damaged, name="a.mkv"),
        pictures=6.0,
        sound=6.0,
    ),
    Fault(
        "noise-in-a-good-header",
        "a header that is whole, and noise behind it",
        "refused",
        "the file is damaged",
        _noise,
        pictures=None,
        sound=None,
    ),
    Fault(
        "no-seconds",
        "streams without any packets",
        "refused",
        "its header is damaged or missing",
        _no_packets,
        pictures=None,
        sound=None,
    ),
    Fault(
        "no-samples",
        "a sound file that lasts no time",
        "refused",
        "nothing of it could be decoded",
        _no_samples,
        pictures=None,
        sound=None,
    ),
    Fault(
        "no-pictures",
        "a video track without any picture, beside sound",
        "the sound alone is used",
        "no picture of it could be decoded",
        partial(_film, name="a.mkv", duration=0.0),
        pictures=None,
    ),
    Fault(
        "no-sound",
        "a film without sound",
        "pictures alone; a pipeline finds no speech",
        "has no audio stream",
        partial(_film, name="a.mp4", sound=False),
        sound=None,
    ),
    Fault(
        "one-picture",
        "a photograph",
        "one picture, no sound",
        "has no audio stream",
        lambda folder: write_streams(
            folder / "a.mov", _plain((9, 9, 9), codec="png", pixels="rgb24", duration=0.04)
        ),
        pictures=0.04,
        sound=None,
    ),
    Fault(
        "wrong-suffix",
        "Matroska called .avi",
        "the content counts, not the name",
        None,
        partial(_renamed, name="a.mkv", wrong="b.avi"),
    ),
    Fault(
        "no-suffix",
        "a name without a suffix",
        "the content counts, not the name",
        None,
        partial(_renamed, name="a.mp4", wrong="b"),
    ),
    Fault(
        "encrypted",
        "a film under DRM",
        "refused",
        "is encrypted",
        _encrypted,
        pictures=None,
        sound=None,
    ),
    Fault(
        "encrypted-sound",
        "sound under DRM",
        "refused",
        "is encrypted",
        partial(_encrypted, pictures=False),
        pictures=None,
        sound=None,
    ),
    Fault(
        "empty",
        "no bytes",
        "refused",
        "is empty (0 bytes)",
        partial(_bytes, name="a.mp4", content=b""),
        pictures=None,
        sound=None,
    ),
    Fault(
        "text",
        "a text called .mp4",
        "refused",
        "it is not a media file",
        partial(_bytes, name="a.mp4", content=b"They talked for an hour.\n" * 100),
        pictures=None,
        sound=None,
    ),
    Fault(
        "web-page",
        "an error page saved by a download",
        "refused",
        "it is not a media file",
        partial(_bytes, name="a.mp4", content=b"<!DOCTYPE html><html>404</html>\n" * 50),
        pictures=None,
        sound=None,
    ),
    Fault(
        "archive",
        "a zip called .mp4",
        "refused",
        "it is not a media file",
        _archive,
        pictures=None,
        sound=None,
    ),
    Fault(
        "noise",
        "random bytes called .mp4",
        "refused",
        "it is not a media file",
        lambda folder: media.garbage(folder / "a.mp4"),
        pictures=None,
        sound=None,
    ),
]

FAULTS = SHOWN + TRACKS + FILES
