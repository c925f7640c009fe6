"""What is seen and heard of a file, window by window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from pyannote_av.clustering.joint_clustering import face_clusters
from pyannote_av.clustering.windows import Entries, Windows
from pyannote_av.core.tracks import FRAME_RATE, FaceSamples, FaceTracks


class ScoredFaces(NamedTuple):
    """What was seen of a file.

    Attributes
    ----------
    tracks : FaceTracks
        With speaking scores.
    looks : FaceSamples
        At faces, embedded.
    """

    tracks: FaceTracks
    looks: FaceSamples

    def people(self, identity: float) -> list[list[int]]:
        """Tracks of each person, those that were never looked at alone.

        Parameters
        ----------
        identity : float
            Mean cosine similarity from which face tracks are of one person.
        """
        frames = {t: self.tracks.of(t).time[[0, -1]] * FRAME_RATE for t in self.tracks.tracks}
        spans = {t: [tuple(np.round(ends).astype(int))] for t, ends in frames.items()}
        means = {t: v for t, v in self.looks.means.items() if t in spans}
        return face_clusters(means, spans, identity)


class Scene(NamedTuple):
    """A file, cut into windows.

    Attributes
    ----------
    file : mapping
        As ``prepare_one`` returns it.
    windows : Windows
    entries : Entries
        Who is seen talking in them.
    seen : ScoredFaces
    voices : (num_windows, E) array
        What is heard in them, of unit length; 0 where nothing is.
    """

    file: Mapping
    windows: Windows
    entries: Entries
    seen: ScoredFaces
    voices: np.ndarray
