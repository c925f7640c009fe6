"""Small media files, whole and broken, made on the fly for the tests.

Pictures and sound are functions of time: every picture carries the time it was drawn at as a row of
black and white blocks (`draw_time`, `read_time`), the sound is a train of irregular tone bursts
(`bursts`), so that after decoding the position of either stream on the clock can be measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

from pyannote_av.core.pictures import Frame, Picture

BITS = 16
SIZE = (192, 128)  # width, height
FLASHES = (0.52, 1.24, 1.88, 2.96, 3.32, 4.60, 5.12)  # seconds; irregular, on the 25 Hz grid
FLASH = 0.2  # seconds


def draw_time(t: float, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Picture (H, W, 3) uint8 that carries `t` in milliseconds (16 bits) and is not symmetric

    The upper left quarter is red (which way is up); the lower half is white during FLASHES.
    """
    width, height = size
    image = np.zeros((height, width, 3), np.uint8)
    value = round(t * 1000)
    cell = width // BITS
    for bit in range(BITS):
        if value >> (BITS - 1 - bit) & 1:
            image[height // 4 : height // 2, bit * cell : (bit + 1) * cell] = 255
    image[: height // 4, : width // 2] = (255, 0, 0)
    if any(flash - 1e-6 <= t < flash + FLASH - 1e-6 for flash in FLASHES):
        image[height // 2 :] = 255
    return image


def read_time(image: np.ndarray) -> float:
    """Seconds written into a picture by `draw_time`"""
    height, width = image.shape[:2]
    cell = width // BITS
    row = image[height // 4 : height // 2].mean(axis=(0, 2))
    bits = [row[bit * cell + 2 : (bit + 1) * cell - 2].mean() > 127 for bit in range(BITS)]
    return int("".join("01"[int(bit)] for bit in bits), 2) / 1000


def is_flash(image: np.ndarray) -> bool:
    """Whether the lower half is white"""
    return bool(image[image.shape[0] // 2 :].mean() > 127)


def bursts(t: np.ndarray) -> np.ndarray:
    """Tone bursts of 100 ms at FLASHES: samples of the signal at times `t` (seconds)"""
    signal = np.zeros(len(t), np.float32)
    for flash in FLASHES:
        inside = (t >= flash) & (t < flash + 0.1)
        signal[inside] = 0.5 * np.sin(2 * np.pi * 700 * (t[inside] - flash))
    return signal


def sound_offset(waveform: np.ndarray, signal=bursts, sample_rate: int = 16000) -> float:
    """Seconds by which a decoded waveform is later than `signal` (best correlation in +-2 s)"""
    from scipy.signal import correlate, correlation_lags

    waveform = np.asarray(waveform, np.float64).reshape(-1)
    reference = signal(np.arange(len(waveform)) / sample_rate)
    correlation = correlate(waveform, reference, method="fft")
    lags = correlation_lags(len(waveform), len(reference))
    near = np.abs(lags) <= 2 * sample_rate
    return float(lags[near][np.argmax(correlation[near])] / sample_rate)


def shown(image: np.ndarray, index: int = 0) -> Frame:
    """A picture (H, W, 3) uint8 RGB on the 25 Hz grid"""
    return Frame(index, index / 25, index / 25, Picture.of(image, index / 25, 0.04), False)


def write_media(
    path: str | Path,
    *,
    duration: float = 4.0,
    fps: float | Fraction = 25,
    size: tuple[int, int] = SIZE,
    video: bool = True,
    audio: bool = True,
    video_start: float = 0.0,
    audio_start: float = 0.0,
    timestamps: Sequence[float] | None = None,
    rotation: int = 0,
    audio_tracks: int = 1,
    audio_rate: int = 48000,
    layout: str = "mono",
    audio_signal: Callable[[np.ndarray], np.ndarray] = bursts,
    draw: Callable[[float], np.ndarray] | None = None,
    clock_offset: float = 0.0,
    faststart: bool = False,
    live: bool = False,
    gop: int = 25,
    video_codec: str = "libx264",
    audio_codec: str = "aac",
    video_options: dict[str, str] | None = None,
) -> Path:
    """Write a media file; its container follows from the suffix

    Parameters
    ----------
    duration : float
        Streams end at this time (seconds), wherever they start.
    video_start, audio_start : float
        Time of the first picture and of the first sample.
    timestamps : sequence of float, optional
        Variable rate: one picture at each of these times instead of `fps`.
    rotation : {0, 90, 180, 270}
        Written to the container as display matrix: degrees counter-clockwise a player must turn.
    clock_offset : float
        Added to all timestamps by the container (seconds), as MPEG-TS does.
    faststart : bool
        Index at the beginning of the mp4, so that a cut file still opens.
    live : bool
        Matroska written as it is recorded: without index and without durations.
    audio_signal : callable
        Times (n,) in seconds to samples (n,), or (channels, n).
    draw : callable
        Time to picture (H, W, 3) uint8 (default: `draw_time`).

    Returns
    -------
    path : Path
    """
    import av

    path = Path(path)
    draw = draw or (lambda t: draw_time(t, size))
    options = {"movflags": "+faststart"} if faststart else {}
    options |= {"output_ts_offset": str(clock_offset)} if clock_offset else {}
    options |= {"live": "1"} if live else {}
    with av.open(str(path), "w", options=options) as container:
        streams = []
        if video:
            rate = Fraction(fps).limit_denominator(100000)
            stream = container.add_stream(video_codec, rate=rate)
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p"
            # AVI and MPEG-2 count pictures
            counted = path.suffix == ".avi" or video_codec.startswith("mpeg")
            base = 1 / rate if counted else Fraction(1, 90000)
            stream.codec_context.time_base = base
            stream.codec_context.gop_size = gop
            stream.codec_context.thread_count = 1
            stream.options = {"preset": "veryfast", "crf": "15"} if "264" in video_codec else {}
            stream.options |= video_options or {}
            if rotation:
                stream.set_display_rotation(rotation)
            if timestamps is None:
                count = max(0, round((duration - video_start) * float(rate)))
                timestamps = [video_start + float(k / rate) for k in range(count)]
            streams.append((stream, _pictures(timestamps, rate, draw, base)))
        for _ in range(audio_tracks if audio else 0):
            stream = container.add_stream(audio_codec, rate=audio_rate, layout=layout)
            sound = _sounds(audio_start, duration, audio_rate, layout, audio_signal)
            streams.append((stream, sound))
        _mux(container, streams)
    return path


def _pictures(timestamps, rate, draw, base):
    import av

    steps = [*np.diff(timestamps), 1 / float(rate)][: len(timestamps)]
    for t, step in zip(timestamps, steps, strict=True):
        frame = draw(t)
        if not isinstance(frame, av.VideoFrame):
            frame = av.VideoFrame.from_ndarray(frame, format="rgb24")
        frame.pts, frame.time_base = round(t / base), base
        frame.duration = round(step / base)
        yield t, frame


def _sounds(start, end, rate, layout, signal):
    import av

    first, last = round(start * rate), round(end * rate)
    for position in range(first, last, 1024):
        times = np.arange(position, min(position + 1024, last)) / rate
        samples = np.atleast_2d(signal(times)).astype(np.float32)
        channels = len(av.AudioLayout(layout).channels)
        if len(samples) != channels:
            samples = np.repeat(samples, channels, axis=0)
        interleaved = np.ascontiguousarray(samples.T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(interleaved, format="flt", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, position, Fraction(1, rate)
        yield position / rate, frame


def _mux(container, streams) -> None:
    """Encode and interleave by time"""
    pending = {}
    for stream, source in streams:
        pending[stream.index] = (stream, source, next(source, None))
    while pending:
        index = min(pending, key=lambda i: pending[i][2][0] if pending[i][2] else -1.0)
        stream, source, item = pending.pop(index)
        container.mux(stream.encode(item[1] if item else None))
        if item:
            pending[index] = (stream, source, next(source, None))


# --- several streams ----------------------------------------------------------------------------


@dataclass
class Pictures:
    """One video stream of `write_streams`

    `draw` gives (H, W, 3) uint8 of the time, or an `av.VideoFrame`. `matrix` is the display matrix
    (a, b, c, d) of integers: x' = a x + c y, y' = b x + d y. `aspect` is the width of a pixel
    divided by its height. `setup` is called with the stream of PyAV.
    """

    draw: Callable[[float], object] | None = None
    size: tuple[int, int] = SIZE
    duration: float = 1.0
    fps: float = 25
    start: float = 0.0
    codec: str = "libx264"
    pixels: str = "yuv420p"
    aspect: Fraction | None = None
    matrix: tuple[int, int, int, int] | None = None
    flags: int = 0
    metadata: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    gop: int = 25
    setup: Callable[[object], None] | None = None


@dataclass
class Sound:
    """One audio stream of `write_streams`"""

    signal: Callable[[np.ndarray], np.ndarray] = bursts
    duration: float = 1.0
    start: float = 0.0
    codec: str = "aac"
    rate: int = 48000
    layout: str = "mono"
    flags: int = 0
    metadata: dict[str, str] = field(default_factory=dict)


def tone(frequency: float, level: float = 0.3) -> Callable[[np.ndarray], np.ndarray]:
    """Signal of one frequency (Hz)"""
    return lambda t: (level * np.sin(2 * np.pi * frequency * t)).astype(np.float32)


def level_of(waveform: np.ndarray, frequency: float, sample_rate: int = 16000) -> float:
    """Amplitude of one frequency (Hz) in a waveform"""
    samples = np.asarray(waveform, np.float64).reshape(-1)
    times = np.arange(len(samples)) / sample_rate
    return float(2 * abs((samples * np.exp(-2j * np.pi * frequency * times)).mean()))


def write_streams(path: str | Path, *streams: Pictures | Sound, **options: str) -> Path:
    """Write a media file of any number of streams; its container follows from the suffix

    Parameters
    ----------
    *streams : Pictures or Sound
        In the order of the file.
    **options
        Options of the container.

    Returns
    -------
    path : Path
    """
    import av

    path = Path(path)
    with av.open(str(path), "w", options=options) as container:
        pending = [_open_stream(container, stream) for stream in streams]
        # a flag of the file, not of the order: set behind all streams
        for (opened, _), stream in zip(pending, streams, strict=True):
            opened.disposition = stream.flags
            opened.metadata.update(stream.metadata)
        _mux(container, pending)
    return path


def _open_stream(container, stream):
    if isinstance(stream, Sound):
        opened = container.add_stream(stream.codec, rate=stream.rate, layout=stream.layout)
        end = stream.start + stream.duration
        return opened, _sounds(stream.start, end, stream.rate, stream.layout, stream.signal)
    rate = Fraction(stream.fps).limit_denominator(100000)
    opened = container.add_stream(stream.codec, rate=rate)
    opened.width, opened.height = stream.size
    opened.pix_fmt = stream.pixels
    context = opened.codec_context
    context.gop_size, context.thread_count = stream.gop, 1
    base = 1 / rate
    context.time_base = base
    if stream.aspect is not None:
        context.sample_aspect_ratio = stream.aspect
    opened.options = {"preset": "veryfast", "crf": "12"} if "26" in stream.codec else {}
    opened.options |= stream.options
    if stream.matrix is not None:
        a, b, c, d = (65536 * value for value in stream.matrix)
        opened.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
    if stream.setup is not None:
        stream.setup(opened)
    draw = stream.draw or (lambda t: draw_time(t, stream.size))
    times = [stream.start + k / stream.fps for k in range(round(stream.duration * stream.fps))]
    return opened, _pictures(times, rate, draw, base)


def truncate(path: str | Path, fraction: float) -> Path:
    """Cut a file in place, keeping the first `fraction` of its bytes"""
    path = Path(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])
    return path


def damage(path: str | Path, first: float, last: float, seed: int = 0, count: int = 200) -> Path:
    """Overwrite `count` random bytes in place between two fractions of a file"""
    path = Path(path)
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    for position in rng.integers(int(len(data) * first), int(len(data) * last), count):
        data[position] = int(rng.integers(256))
    path.write_bytes(data)
    return path


def garbage(path: str | Path, size: int = 20000, seed: int = 0) -> Path:
    """A file of random bytes"""
    path = Path(path)
    path.write_bytes(np.random.default_rng(seed).bytes(size))
    return path


# --- sound with faults --------------------------------------------------------------------------


def chirps(t: np.ndarray) -> np.ndarray:
    """Sound that is never silent and never repeats itself: samples at times `t` (seconds)

    A tone whose frequency depends on the tenth of a second, so that any part of it shows when it
    was made.
    """
    steps = np.floor(t * 10 + 1e-9)
    frequency = 300 + 1500 * np.modf(np.abs(np.sin(steps * 12.9898) * 43758.5453))[0]
    return (0.3 * np.sin(2 * np.pi * frequency * (t - steps / 10))).astype(np.float32)


def offset_at(waveform, made: float, shown: float | None = None, signal=chirps) -> float:
    """Seconds by which the sound made at `made` comes after `shown` (best match in +-0.4 s)"""
    samples = np.asarray(waveform, np.float64).reshape(-1)
    first = round((made if shown is None else shown) * 16000) - 6400
    part = samples[max(first, 0) : first + 6400 + 8000 + 6400]
    reference = signal(made + np.arange(8000) / 16000)
    match = np.correlate(part, reference, mode="valid")
    return (int(np.argmax(match)) + max(first, 0) - first - 6400) / 16000


def write_stamped(
    path: str | Path,
    stamp: Callable[[float, int], float | None],
    *,
    duration: float = 6.0,
    rate: int = 48000,
    clock: float = 1.0,
    signal: Callable[[np.ndarray], np.ndarray] = chirps,
    options: dict[str, str] | None = None,
) -> Path:
    """Matroska, or another container of PCM, whose packets carry any time stamps

    Parameters
    ----------
    stamp : callable
        Time (s) and number of a packet of 1024 samples to its time stamp (s), None to lose it.
    clock : float
        Samples are made at `rate` times this.
    """
    import av

    path, last = Path(path), -math.inf
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream("pcm_s16le", rate=rate, layout="mono")
        for number, first in enumerate(range(0, round(duration * rate * clock), 1024)):
            times = np.arange(first, first + 1024) / (rate * clock)
            samples = np.round(32767 * signal(times)).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, first, Fraction(1, rate)
            time = stamp(float(times[0]), number)
            for packet in stream.encode(frame):
                if time is not None:
                    # no container can go back
                    packet.pts = packet.dts = last = max(round(time * 1000), last + 1)
                    packet.time_base, packet.duration = Fraction(1, 1000), 21
                    container.mux(packet)
    return path


def write_encoded(
    path: str | Path,
    codec: str,
    signal: Callable[[np.ndarray], np.ndarray],
    *,
    duration: float = 6.0,
    rate: int = 44100,
    layout: str = "mono",
    codec_options: dict[str, str] | None = None,
    **options: str,
) -> Path:
    """Sound alone, with options of the encoder and of the container"""
    import av

    path = Path(path)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        stream.options = codec_options or {}
        _mux(container, [(stream, _sounds(0.0, duration, rate, layout, signal))])
    return path


def join(path: str | Path, *parts: Path) -> Path:
    """Files behind each other, byte by byte"""
    path = Path(path)
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def write_floats(path: str | Path, samples: np.ndarray, rate: int = 16000) -> Path:
    """WAV of 32-bit floats, (n,) or (n, channels)"""
    from scipy.io import wavfile

    wavfile.write(path, rate, np.asarray(samples, np.float32))
    return Path(path)
