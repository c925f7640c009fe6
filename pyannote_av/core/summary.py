"""A result in a few lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyannote.audio.pipelines.speaker_diarization import DiarizeOutput


def seconds_of(output: DiarizeOutput) -> dict[str, tuple[float, float | None]]:
    """Seconds of speech of each speaker, and how many of them are on screen.

    Parameters
    ----------
    output : DiarizeOutput
        Without ``face_tracks``, the seconds on screen are None.
    """
    turns = output.speaker_diarization
    tracks = getattr(output, "face_tracks", None)
    faces = None if tracks is None else tracks.to_annotation("speaker")
    found = {}
    for speaker in turns.labels():
        speech = turns.label_timeline(speaker).support()
        seen = None
        if faces is not None:
            seen = speech.crop(faces.label_timeline(speaker).support()).duration()
        found[speaker] = (speech.duration(), seen)
    return found


def summarize(output: DiarizeOutput, most: int = 5) -> list[str]:
    """Who speaks how long, on and off screen, and what the picture changed.

    Parameters
    ----------
    output : DiarizeOutput
    most : int, optional
        Maximum number of lines. Those who speak most are listed first.

    Returns
    -------
    lines : list of str
    """
    speakers = sorted(seconds_of(output).items(), key=lambda one: -one[1][0])
    lines = []
    for speaker, (total, seen) in speakers:
        where = (
            "" if seen is None else f" ({seen:.1f} s on screen, {total - seen:.1f} s off screen)"
        )
        lines.append(f"{speaker}: {total:.1f} s{where}")
    changes = list(getattr(getattr(output, "report", None), "changes", ()))
    room = most - bool(changes)
    if len(lines) > room:
        lines[room - 1 :] = [f"{len(lines) - room + 1} more speakers"]
    if changes:
        more = f", and {len(changes) - 1} more changes" if len(changes) > 1 else ""
        lines.append(f"changed by the picture: {changes[0]}{more}")
    return lines


def in_one_line(output: DiarizeOutput) -> str:
    """Seconds of speech, and those off screen if there are face tracks.

    Parameters
    ----------
    output : DiarizeOutput
    """
    seconds = seconds_of(output).values()
    total = sum(one for one, _ in seconds)
    hidden = sum(one - (seen or 0.0) for one, seen in seconds)
    known = bool(seconds) and all(seen is not None for _, seen in seconds)
    return f"{total:.1f} s of speech" + (f", {hidden:.1f} s of it off screen" if known else "")
