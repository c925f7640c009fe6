"""Output of a first pass over the sound for the speakers of a protocol."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pyannote_av.core.grid import STEPS
from pyannote_av.data.array_store import ArrayStore
from pyannote_av.tasks.recordings import UNKNOWN, LabelledFile
from pyannote_av.tasks.target_chunks import Excerpt

#: index of a person who is unknown to the first pass
NOBODY = -1


@dataclass
class FirstPass:
    """First pass of recordings, whose clusters are given to the speakers of the labels.

    Each cluster belongs to the speaker with whom it shares most time, one to one. Speakers without
    a cluster are unknown to the first pass.

    Parameters
    ----------
    posteriors : ArrayStore
        See :func:`~pyannote_av.data.first_pass.build_first_pass`.
    """

    posteriors: ArrayStore
    _columns: dict[str, np.ndarray] = field(default_factory=dict)

    def speaker(self, chunk: Excerpt, person: int) -> np.ndarray:
        """Probability of speech of a person, or `NOBODY`: (4 T,) float32; -1 where unknown."""
        column = -1
        if 0 <= person < chunk.recording.num_speakers:
            column = int(self._column(chunk.recording)[person])
        if column < 0:
            return np.full(STEPS * chunk.num_frames, UNKNOWN, np.float32)
        return self._read(chunk, slice(column, column + 1), UNKNOWN)[:, 0]

    def number(self, chunk: Excerpt) -> np.ndarray:
        """Probabilities of 0, 1, and more speakers: (4 T, 3) float32; 0 where unknown."""
        return self._read(chunk, slice(-3, None), 0)

    def _column(self, recording: LabelledFile) -> np.ndarray:
        """Column of the posteriors of each speaker; -1 for those without"""
        if recording.uri not in self._columns:
            from scipy.optimize import linear_sum_assignment

            posteriors = self.posteriors[recording.uri][:, :-3].astype(np.float32)
            activity = recording.activity(0, len(posteriors) // STEPS)
            shared = activity.T.astype(np.float32) @ posteriors[: len(activity)]
            columns = np.full(recording.num_speakers, -1)
            for speaker, column in zip(*linear_sum_assignment(-shared), strict=True):
                if shared[speaker, column] > 0:
                    columns[speaker] = column
            self._columns[recording.uri] = columns
        return self._columns[recording.uri]

    def _read(self, chunk: Excerpt, columns: slice, outside: int) -> np.ndarray:
        """Columns of the posteriors of a chunk, with `outside` beyond the ends of the recording"""
        found = self.posteriors[chunk.recording.uri]
        first, last = STEPS * chunk.start, STEPS * chunk.stop
        low, high = max(first, 0), min(last, len(found))
        part = np.full((last - first, found[:1, columns].shape[1]), outside, np.float32)
        if low < high:
            part[low - first : high - first] = found[low:high, columns]
        return part
