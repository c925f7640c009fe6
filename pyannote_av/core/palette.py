"""Colours of speakers, the same wherever speakers are drawn."""

from __future__ import annotations

import colorsys

#: ten colours that colour-blind readers can tell apart: M. A. Petroff, "Accessible color sequences
#: for data visualization", https://arxiv.org/abs/2107.02270
PALETTE = (
    *("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"),
    *("#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"),
)

#: colour of faces and turns of nobody in particular
UNKNOWN = "#b0b0b0"

_GOLDEN = 137.508  # degrees; hues that are this far apart spread evenly


def colour_of(index: int) -> str:
    """Colour of a speaker, ``#rrggbb``.

    Parameters
    ----------
    index : int
        Position of the speaker in ``speaker_diarization.labels()``. From the eleventh speaker on,
        colours are spread over the hues, and are no longer safe for colour-blind readers.

    >>> colour_of(0), colour_of(10)
    ('#3f90da', '#c14dcb')
    """
    if index < len(PALETTE):
        return PALETTE[index]
    hue, light = index * _GOLDEN % 360 / 360, 0.45 + 0.1 * (index % 3)
    parts = colorsys.hls_to_rgb(hue, light, 0.55)
    return "#" + "".join(f"{round(255 * part):02x}" for part in parts)


def rgb(colour: str) -> tuple[int, int, int]:
    """Red, green and blue (0 to 255) of ``#rrggbb``.

    >>> rgb("#3f90da")
    (63, 144, 218)
    """
    return tuple(bytes.fromhex(colour.removeprefix("#")))
