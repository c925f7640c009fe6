"""Mix of the audio tracks of a file"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pyannote_av.core.files import MediaError
from pyannote_av.core.media import AudioStream, MediaInfo
from pyannote_av.core.mixing import SILENT, peak_of, scale
from pyannote_av.core.sound import decode_sound


def decode_tracks(
    info: MediaInfo,
    streams: Sequence[AudioStream],
    sample_rate: int,
    channel: int | None = None,
    half: bool = False,
) -> tuple[np.ndarray, list[str]]:
    """Decode audio streams, each by itself, and average them

    Silent tracks are left out of the average. Otherwise, two microphones would be faint in the mix
    of a camera that writes eight tracks.

    Parameters
    ----------
    info : MediaInfo
    streams : sequence of AudioStream
    sample_rate : int
        Sample rate of the output (Hz).
    channel : int, optional
        The only channel of each stream that is used. Defaults to the average of all.
    half : bool, optional
        Keep the sound at half precision.

    Returns
    -------
    waveform : (num_samples,) float32 or float16
        As long as the longest track. See :func:`pyannote_av.core.sound.decode_sound`.
    problems : list of str
        Includes tracks that cannot be decoded, if others can.

    Raises
    ------
    MediaError
        If no track can be decoded.
    """
    if len(streams) == 1:
        return decode_sound(info, streams[0], sample_rate, channel, half=half)
    total, problems, errors, count = np.zeros(0, np.float32), [], [], 0
    for stream in streams:
        try:
            samples, sentences = decode_sound(
                info, stream, sample_rate, channel, scaled=False, half=half
            )
        except MediaError as error:
            errors.append(error)
            continue
        problems += sentences
        # each track keeps its level, so that the noise of an unused microphone stays faint
        count += peak_of(samples) >= SILENT
        if len(samples) > len(total):
            total, samples = samples, total
        total[: len(samples)] += samples
    if len(errors) == len(streams):
        raise errors[0]
    problems += [f"{error}; the other tracks are mixed" for error in errors]
    total /= np.float32(max(count, 1))
    found = scale(total, sample_rate)
    return total, problems + [f"mix of the audio tracks of {info.path} {one}" for one in found]
