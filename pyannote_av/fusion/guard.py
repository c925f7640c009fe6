"""Checks that decide whether the video is reliable enough for fusion.

Users report that fusion with a bad video degrades diarization (3D-Speaker issue 91: DER 35 to 40
on MISP2021). The audio-only turns are therefore kept unless the video has faces, which must be
large enough, at a sufficient frame rate and in sync, and give some evidence for changes. The report
lists what was refused, and why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from pyannote.core import Segment, Timeline

#: minimum frame rate to follow lip movements: speech has 4 to 5 syllables per second
MIN_FRAME_RATE = 10.0
#: minimum mean luma of the video, in [0, 255]
MIN_BRIGHTNESS = 16.0
#: minimum evidence of the picture to change the turns of the sound: mean over the speech with a
#: visible face, in log-odds. Chosen on development conversations, so that few files become worse
#: than sound alone
MIN_GAIN = 0.15


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
    """Reason to ignore the video of a whole file, or None.

    Parameters
    ----------
    has_sound : bool
        Whether the file has an audio stream.
    num_voices : int
        Number of voices found by the audio branch.
    frame_rate : float
        Distinct video frames per second.
    brightness : float
        Mean luma, 0 to 255.
    num_tracks : int
        Number of face tracks.
    offset : float
        Estimated audio-visual offset in seconds, 0 if there is no reliable estimate.
    max_offset : float
        Largest offset that is corrected, in seconds.
    """
    if not has_sound:
        return "the file has no sound: faces were tracked, but there are no speakers"
    if num_tracks == 0:
        return "no face was found in the picture"
    if np.isfinite(frame_rate) and frame_rate < MIN_FRAME_RATE:
        return f"only {frame_rate:.1f} different pictures per second: mouths cannot be followed"
    if np.isfinite(brightness) and brightness < MIN_BRIGHTNESS:
        return f"the picture is too dark (mean luma {brightness:.0f} of 255)"
    if abs(offset) > max_offset:
        return f"sound and picture are {abs(offset):.2f} s apart, too far to be corrected"
    if num_voices == 0:
        return "no speech was detected: there is nothing to attribute to faces"
    return None


def refuse_changes(gain: float) -> str | None:
    """Reason to keep the turns of the sound although the picture would change them, or None.

    Parameters
    ----------
    gain : float
        See :func:`~pyannote_av.fusion.decoding.gain_of`.
    """
    if gain >= MIN_GAIN:
        return None
    return (
        f"the picture gives too little evidence to change the turns of the sound ({gain:.2f}, "
        f"and {MIN_GAIN:g} is needed)"
    )


def refuse_tracks(
    heights: Mapping[int, float], durations: Mapping[int, float], min_height: float
) -> dict[int, str]:
    """Face tracks that are not used, and the reasons.

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
    """Parts of speech regions in which no trusted face is visible.

    Parameters
    ----------
    speech : Timeline
    presence : iterable of Segment
        Segments in which trusted faces are visible.
    any_face : iterable of Segment
        Segments in which any face is visible, trusted or not.
    shortest : float, optional
        Minimum duration of a listed region, in seconds.

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
            covered = visible.crop(gap).duration() > 0.5 * gap.duration
            regions.append(
                {
                    "start": round(gap.start, 3),
                    "end": round(gap.end, 3),
                    "reason": "no trusted face on screen" if covered else "no face on screen",
                }
            )
    return regions
