"""Faces and speaker embeddings of a file, window by window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from pyannote_av.clustering.joint_clustering import face_clusters
from pyannote_av.clustering.windows import Entries, Windows
from pyannote_av.core.tracks import FRAME_RATE, FaceSamples, FaceTracks


class ScoredFaces(NamedTuple):
    """Scored and embedded face tracks of a file.

    Attributes
    ----------
    tracks : FaceTracks
        Tracks with speaking scores.
    samples : FaceSamples
        Embedded face samples.
    """

    tracks: FaceTracks
    samples: FaceSamples

    def people(self, identity: float) -> list[list[int]]:
        """Group tracks by person. Each track without face samples forms its own group.

        Parameters
        ----------
        identity : float
            Minimum mean cosine similarity of face tracks of the same person.
        """
        frames = {t: self.tracks.of(t).time[[0, -1]] * FRAME_RATE for t in self.tracks.tracks}
        spans = {t: [tuple(np.round(ends).astype(int))] for t, ends in frames.items()}
        means = {t: v for t, v in self.samples.means.items() if t in spans}
        return face_clusters(means, spans, identity)


class WindowedFile(NamedTuple):
    """A file cut into windows.

    Attributes
    ----------
    file : mapping
        As returned by ``prepare_one``.
    windows : Windows
    entries : Entries
        Talking faces of each window.
    faces : ScoredFaces
    speaker_embeddings : (num_windows, E) array
        Speaker embeddings of windows, of unit length. 0 for silent windows.
    """

    file: Mapping
    windows: Windows
    entries: Entries
    faces: ScoredFaces
    speaker_embeddings: np.ndarray
