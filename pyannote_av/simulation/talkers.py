"""Talkers: real people in simulated conversations, with voice and face from their clips."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pyannote_av.core.tracks import FaceTracks
from pyannote_av.simulation.clip_files import Clip, prepare_clip
from pyannote_av.simulation.speech import Take, take

logger = logging.getLogger(__name__)

#: suffixes of videos
SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".mpg", ".mpeg")


class Talkers:
    """Clips of single talkers.

    Parameters
    ----------
    clips : mapping of str to sequence of Clip
        Clips by person.
    """

    def __init__(self, clips: Mapping[str, Sequence[Clip]]):
        if not clips:
            raise ValueError("there are no clips of talkers")
        self.clips = {name: list(clips[name]) for name in sorted(clips)}

    @property
    def speakers(self) -> list[str]:
        """Names, sorted."""
        return list(self.clips)

    def only(self, speakers: Sequence[str]) -> Talkers:
        """A subset of the talkers, for example for one subset of a corpus."""
        if unknown := sorted(set(speakers) - set(self.clips)):
            raise ValueError(f"no clip of {', '.join(unknown)}")
        return Talkers({name: self.clips[name] for name in speakers})

    def take(self, speaker: str, duration: float, rng: np.random.Generator) -> Take:
        """Speech of a talker; see :func:`~pyannote_av.simulation.speech.take`."""
        clips = self.clips[speaker]
        return take(lambda i: clips[i].speech, len(clips), duration, rng)


def find_talkers(
    folder: str | Path,
    cache: str | Path | None = None,
    tracks: Mapping[str, FaceTracks] | None = None,
) -> Talkers:
    """Read the talkers of a folder of clips. Their faces are tracked once.

    Each clip shows one person who talks. The folder contains either a folder per person, with clips
    at any depth, or one clip per person. Clips that cannot be used are skipped, with a warning.

    Parameters
    ----------
    folder : str or Path
    cache : str or Path, optional
        Folder for prepared clips (about 200 kB per frame). Defaults to a folder in the package's
        cache.
    tracks : mapping of str to FaceTracks, optional
        Known tracks by path relative to `folder`. In other clips, faces are detected and tracked.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If the folder has no clip, or none that can be used.
    """
    from pyannote_av.core.weights import cache_folder
    from pyannote_av.data.build import fingerprint

    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of clips")
    store = Path(cache) if cache is not None else cache_folder() / "talkers"
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES]
    if not paths:
        raise ValueError(f"{folder}: no clip ({', '.join(SUFFIXES)})")
    clips: dict[str, list[Clip]] = {}
    for path in paths:
        inside = path.relative_to(folder)
        try:
            place = store / f"{path.stem}-{fingerprint(path)[:12]}"
            clip = prepare_clip(path, place, (tracks or {}).get(inside.as_posix()))
        except (ValueError, OSError) as error:
            last = error
            logger.warning("%s", error)
            continue
        name = inside.parts[0] if len(inside.parts) > 1 else path.stem
        clips.setdefault(name, []).append(clip)
    if not clips:
        raise ValueError(f"{folder}: none of {len(paths)} clips can be used: {last}")
    return Talkers(clips)
