"""Encoding of video and sound to a media file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pyannote_av.core.grid import FRAME_RATE, SAMPLE_RATE

#: bit rate of the sound in bits per second
_AUDIO_RATE = 64_000


def encode(
    path: str | Path,
    pictures: Iterable[tuple[int, np.ndarray]],
    waveform: np.ndarray,
    size: tuple[int, int],
    compression: int = 23,
) -> None:
    """Write H.264 video and AAC sound. The bytes are reproducible on the same machine.

    Parameters
    ----------
    path : str or Path
        The suffix determines the container.
    pictures : iterable of (int, (H, W, 3) uint8)
        Frame index, at 25 per second, and RGB image. Frames may be omitted.
    waveform : (N,) float
        Sound at 16 kHz.
    size : (int, int)
        Width and height.
    compression : int
        Constant rate factor of H.264.
    """
    import av

    rate, per_frame = int(FRAME_RATE), int(SAMPLE_RATE / FRAME_RATE)
    pcm = (np.clip(waveform, -1, 1) * 32767).round().astype(np.int16)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        video = container.add_stream("libx264", rate=rate)
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        video.options = {"preset": "veryfast", "crf": str(compression), "g": "50"}
        # the output of x264 depends on the number of threads
        video.thread_count = 1
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        audio.bit_rate = _AUDIO_RATE
        done = 0

        def hear(until: int) -> None:
            nonlocal done
            for first in range(done, until, per_frame):
                samples = pcm[None, first : min(first + per_frame, until)]
                frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
                frame.sample_rate, frame.pts = SAMPLE_RATE, first
                container.mux(audio.encode(frame))
            done = max(done, until)

        for index, picture in pictures:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = index
            container.mux(video.encode(frame))
            hear(min((index + 1) * per_frame, len(pcm)))
        hear(len(pcm))
        for stream in (video, audio):
            container.mux(stream.encode(None))
