"""Real people in simulated conversations: their clips speak, voice and face together."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pyannote_av.core.tracks import FaceTracks
from pyannote_av.simulation.clip_files import Clip, prepare_clip
from pyannote_av.simulation.speech import Take, take

logger = logging.getLogger(__name__)

#: endings of videos
SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".mpg", ".mpeg")


class Talkers:
    """Clips of single people talking.

    Parameters
    ----------
    clips : mapping of str to sequence of Clip
        By person.
    """

    def __init__(self, clips: Mapping[str, Sequence[Clip]]):
        if not clips:
            raise ValueError("no talker: there is no clip")
        self.clips = {name: list(clips[name]) for name in sorted(clips)}

    @property
    def speakers(self) -> list[str]:
        """Names, sorted."""
        return list(self.clips)

    def only(self, speakers: Sequence[str]) -> Talkers:
        """Some of them, as for one subset of a corpus."""
        if unknown := sorted(set(speakers) - set(self.clips)):
            raise ValueError(f"no clip of {', '.join(unknown)}")
        return Talkers({name: self.clips[name] for name in speakers})

    def take(self, speaker: str, duration: float, rng: np.random.Generator) -> Take:
        """Speech of one of them; see :func:`~pyannote_av.simulation.speech.take`."""
        clips = self.clips[speaker]
        return take(lambda i: clips[i].speech, len(clips), duration, rng)


def find_talkers(
    folder: str | Path,
    cache: str | Path | None = None,
    tracks: Mapping[str, FaceTracks] | None = None,
) -> Talkers:
    """Talkers of a folder of clips, tracked once.

    Each clip shows one person who talks. A folder per person, with clips anywhere in it, or clips
    of a person each. Clips that cannot be used are left out, with a warning.

    Parameters
    ----------
    folder : str or Path
    cache : str or Path, optional
        Folder for what is prepared of the clips (about 200 kB a frame); a part of the package's
        own cache unless given.
    tracks : mapping of str to FaceTracks, optional
        Known tracks by path relative to `folder`; faces are looked for in other clips.

    Raises
    ------
    FileNotFoundError
        Without such a folder.
    ValueError
        When the folder has no clip, or none that can be used.
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
