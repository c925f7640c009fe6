"""When the picture can be trusted.

Users report that fusing a bad picture makes diarization worse (3D-Speaker issue 91: DER 35 to 40
on MISP2021). The audio-only turns therefore stand unless faces are there, large enough, shown at
a sufficient rate and in sync; what was refused, and why, goes into the report.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from pyannote.core import Segment, Timeline

#: below this rate mouths cannot be followed: syllables come at 4 to 5 per second
MIN_FRAME_RATE = 10.0
#: mean luma of the pictures, of 255, below which faces cannot be judged
MIN_BRIGHTNESS = 16.0


def refuse_file(
    *,
    has_sound: bool,
    num_voices: int,
    frame_rate: float,
    brightness: float,
    num_tracks: int,
    offset: float,
    max_offset: float,
) -> str | None:
    """Reason not to fuse the picture of a whole file with its sound, or None.

    Parameters
    ----------
    has_sound : bool
        Whether there is an audio stream.
    num_voices : int
        Voices heard in it.
    frame_rate : float
        Different pictures per second.
    brightness : float
        Mean luma, 0 to 255.
    num_tracks : int
        Face tracks found.
    offset : float
        Consistently estimated audio-visual offset in seconds, 0 when none was.
    max_offset : float
        Largest offset that is corrected, in seconds.
    """
    if not has_sound:
        return "the file has no sound: faces were followed, nobody is heard"
    if num_tracks == 0:
        return "no face was found in the picture"
    if np.isfinite(frame_rate) and frame_rate < MIN_FRAME_RATE:
        return f"only {frame_rate:.1f} different pictures per second: mouths cannot be followed"
    if np.isfinite(brightness) and brightness < MIN_BRIGHTNESS:
        return f"the picture is too dark (mean luma {brightness:.0f} of 255)"
    if abs(offset) > max_offset:
        return f"sound and picture are {abs(offset):.2f} s apart, too far to be corrected"
    if num_voices == 0:
        return "no speech was heard: there is nothing to attribute"
    return None


def refuse_tracks(
    heights: Mapping[int, float], durations: Mapping[int, float], min_height: float
) -> dict[int, str]:
    """Face tracks that are not used, with the reason.

    Parameters
    ----------
    heights : dict of track to median face height in pixels
    durations : dict of track to seconds
    min_height : float
        Smallest usable face, in pixels.
    """
    refused = {}
    for track, height in heights.items():
        if height < min_height:
            refused[track] = f"face of {height:.0f} pixels is smaller than {min_height:.0f}"
        elif durations[track] < 0.4:
            refused[track] = "face is shown for less than 0.4 s"
    return refused


def without_faces(
    speech: Timeline,
    presence: Iterable[Segment],
    any_face: Iterable[Segment],
    shortest: float = 1.0,
) -> list[dict]:
    """Stretches of speech during which no trusted face is on screen.

    Parameters
    ----------
    speech : Timeline
    presence : iterable of Segment
        When trusted faces are visible.
    any_face : iterable of Segment
        When any face is visible, trusted or not.
    shortest : float, optional
        Shorter stretches are not listed, in seconds.

    Returns
    -------
    regions : list of dict
        ``start``, ``end`` and ``reason``.
    """
    trusted = Timeline(presence).support()
    visible = Timeline(any_face).support()
    regions = []
    for segment in speech.support():
        for gap in trusted.gaps(support=segment):
            if gap.duration < shortest:
                continue
            shown = visible.crop(gap).duration() > 0.5 * gap.duration
            regions.append(
                {
                    "start": round(gap.start, 3),
                    "end": round(gap.end, 3),
                    "reason": "no trusted face on screen" if shown else "no face on screen",
                }
            )
    return regions
