"""Results in notebooks: HTML that is small and safe, and figures."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyannote_av.core.palette import UNKNOWN, colour_of
from pyannote_av.core.summary import seconds_of
from pyannote_av.core.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pyannote.audio.pipelines.speaker_diarization import DiarizeOutput

    from pyannote_av.core.tracks import FaceTracks

# what is shown at most; the rest is counted
_SPEAKERS, _TURNS, _TRACKS, _REPORT, _NAME = 20, 1000, 30, 4000, 60
_WIDTH = 1000  # units of the timeline
_PICTURE = 64  # pixels
_SPEAKING = 0.0  # log-odds


class Html(str):
    """HTML that notebooks show."""

    def _repr_html_(self) -> str:
        return str(self)


def _text(text: object, most: int = _NAME) -> str:
    """Escaped text, cut to a number of characters"""
    clean = printable(str(text))
    return escape(clean if len(clean) <= most else clean[: most - 1] + "…")


def output_html(output: DiarizeOutput) -> Html:
    """Timeline and report of a result.

    Parameters
    ----------
    output : DiarizeOutput

    Returns
    -------
    html : Html
        Less than 50 kB. What does not fit is left out, and its number is stated.
    """
    turns, report = output.speaker_diarization, getattr(output, "report", None)
    labels, seconds = turns.labels(), seconds_of(output)
    extent = turns.get_timeline().extent()
    end = max(getattr(report, "duration", 0.0), extent.end if turns else 0.0, 1e-3)
    rows, room = [], _TURNS
    for i, speaker in enumerate(labels[:_SPEAKERS]):
        segments = list(turns.label_timeline(speaker))[:room]
        room -= len(segments)
        path = "".join(
            f"M{_WIDTH * one.start / end:.1f} 0h{max(_WIDTH * one.duration / end, 1):.1f}v1h"
            f"-{max(_WIDTH * one.duration / end, 1):.1f}z"
            for one in segments
        )
        total, seen = seconds[speaker]
        where = "" if seen is None else f", {seen:.1f} s on screen"
        rows.append(
            f'<tr><th style="text-align:left">{_text(speaker)}</th><td style="width:70%">'
            f'<svg viewBox="0 0 {_WIDTH} 1" preserveAspectRatio="none" role="img" '
            f'aria-label="turns of {_text(speaker)}" style="width:100%;height:1.1em">'
            f'<rect width="{_WIDTH}" height="1" fill="#8882"/>'
            f'<path d="{path}" fill="{colour_of(i)}"/></svg></td>'
            f"<td>{total:.1f} s{where}</td></tr>"
        )
    number = sum(1 for _ in turns.itertracks())
    notes = []
    if len(labels) > _SPEAKERS:
        notes.append(f"{len(labels) - _SPEAKERS} more speakers are not shown")
    if room <= 0 and number > _TURNS:
        notes.append(f"only the first {_TURNS} turns of {number} are shown")
    if not labels:
        notes.append("nobody speaks")
    head = f"<b>{_text(turns.uri or 'recording')}</b>: {len(labels)} speakers, {number} turns"
    parts = [f"<p>{head}, {end:.1f} s</p>", f'<table style="width:100%">{"".join(rows)}</table>']
    parts += [f"<p>{'; '.join(notes)}</p>"] if notes else []
    if report is not None:
        shown = _text(report, _REPORT)
        parts.append(f"<details><summary>report</summary><pre>{shown}</pre></details>")
    return Html(f'<div class="pyannote-av">{"".join(parts)}</div>')


def tracks_html(
    tracks: FaceTracks, video: Any = None, speakers: Sequence[str] | None = None
) -> Html:
    """Table of face tracks.

    Parameters
    ----------
    tracks : FaceTracks
    video : str, Path or mapping, optional
        The video, from which a picture of each face is cut.
    speakers : sequence of str, optional
        All speakers of the result, ``output.speaker_diarization.labels()``. Names then have the
        colours that they have in timelines.

    Returns
    -------
    html : Html

    Raises
    ------
    MediaError
        If the video cannot be read.
    """
    colours = {speaker: colour_of(i) for i, speaker in enumerate(speakers or ())}
    head = ["face", "speaker", "from", "to", "visible", "speaking"]
    head = ["", *head] if video is not None else head
    rows = ["<tr>" + "".join(f"<th>{one}</th>" for one in head) + "</tr>"]
    step = 1 / tracks.frame_rate
    for track in tracks.tracks[:_TRACKS]:
        one = tracks.of(track)
        speaker = tracks.speaker.get(track)
        scored = np.isfinite(one.speaking).any()
        spoken = f"{(one.speaking > _SPEAKING).sum() * step:.1f} s" if scored else ""
        mark = f'<span style="color:{colours.get(speaker, UNKNOWN)}">■</span> ' if colours else ""
        cells = [
            track,
            f"{mark}{_text(speaker or 'unknown')}",
            f"{one.time[0]:.2f} s",
            f"{one.time[-1] + step:.2f} s",
            f"{len(one) * step:.1f} s",
            spoken,
        ]
        cells = [_picture(one, video), *cells] if video is not None else cells
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    more = len(tracks.tracks) - _TRACKS
    rest = f"<p>{more} more face tracks are not shown</p>" if more > 0 else ""
    title = f"<p><b>{_text(tracks.uri or 'faces')}</b>: {len(tracks.tracks)} face tracks</p>"
    return Html(f'<div class="pyannote-av">{title}<table>{"".join(rows)}</table>{rest}</div>')


def _picture(track: FaceTracks, video: Any) -> str:
    """Picture of a face where it is largest; empty if the video has none there"""
    import cv2
    from pyannote.core import Segment

    from pyannote_av.core.io import Video

    sides = track.box[:, 2:] - track.box[:, :2]
    best = int(sides.prod(axis=1).argmax())
    time = float(track.time[best])
    video = str(video) if isinstance(video, Path) else video
    frames, _ = Video().crop(video, Segment(time, time + 0.04))
    if not len(frames):
        return ""
    height, width = frames[0].shape[:2]
    x1, y1, x2, y2 = (track.box[best].clip(0, 1) * (width, height, width, height)).astype(int)
    face = frames[0][y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)]
    scale = _PICTURE / max(face.shape[:2])
    size = tuple(max(1, round(side * scale)) for side in face.shape[1::-1])
    face = cv2.resize(face, size, interpolation=cv2.INTER_AREA)
    done, data = cv2.imencode(".jpg", face[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    text = base64.b64encode(data.tobytes()).decode("ascii") if done else ""
    return f'<img alt="" src="data:image/jpeg;base64,{text}"/>'


def plot(output: DiarizeOutput, ax: Axes | None = None) -> Axes:
    """Draw the turns of a result, one line per speaker.

    Thick parts of a turn are on screen, thin ones off screen.

    Parameters
    ----------
    output : DiarizeOutput
    ax : Axes, optional
        Where to draw. By default, in a new figure.

    Returns
    -------
    ax : Axes
    """
    turns, tracks = output.speaker_diarization, getattr(output, "face_tracks", None)
    labels = turns.labels()
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(figsize=(10, 0.8 + 0.35 * max(len(labels), 1)))
    faces = None if tracks is None else tracks.to_annotation("speaker")
    for i, speaker in enumerate(labels):
        speech = turns.label_timeline(speaker).support()
        seen = speech
        if faces is not None:
            seen = speech.crop(faces.label_timeline(speaker).support())
        for timeline, height in ((speech, 0.3), (seen, 0.8)):
            bars = [(one.start, one.duration) for one in timeline]
            ax.broken_barh(bars, (i - height / 2, height), color=colour_of(i), linewidth=0)
    # names may contain what matplotlib takes for a formula
    names = [printable(one, one_line=True).replace("$", r"\$") for one in labels]
    ax.set_yticks(range(len(labels)), names)
    ax.set_ylim(len(labels) - 0.5, -0.5) if labels else None
    ax.set_xlabel("seconds")
    ax.set_title(printable(str(turns.uri or ""), one_line=True).replace("$", r"\$"))
    return ax
