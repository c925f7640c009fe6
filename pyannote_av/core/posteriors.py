"""Posterior probabilities of speakers, and of the number of simultaneous speakers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pyannote.core import Annotation, SlidingWindow

from pyannote_av.core.grid import STEP_RATE

#: probabilities of binary decisions whose posteriors are unknown: of a speaker inside and outside
#: of the turns, and of the number of speakers that the turns imply
_INSIDE, _OUTSIDE, _COUNT = 0.95, 0.02, 0.9


@dataclass(frozen=True, eq=False)
class SpeakerPosteriors:
    """Posteriors by frame.

    Parameters
    ----------
    frames : SlidingWindow
        Position of the frames.
    labels : list of str
    speakers : (num_frames, num_labels) float array
        Probability that each speaker is active.
    counts : (num_frames, 3) float array
        Probability that nobody, one speaker, and two or more speakers are active.
    """

    frames: SlidingWindow
    labels: list[str]
    speakers: np.ndarray
    counts: np.ndarray

    @classmethod
    def of_turns(cls, turns: Annotation, duration: float) -> SpeakerPosteriors:
        """Posteriors of turns of which only the decision is known, at 100 Hz.

        Parameters
        ----------
        turns : Annotation
        duration : float
            Duration of the file in seconds.
        """
        labels = list(turns.labels())
        middle = (np.arange(round(duration * STEP_RATE)) + 0.5) / STEP_RATE
        active = _activity(turns, labels, middle)
        count = active.sum(axis=1).clip(max=2)
        counts = np.where(count[:, None] == np.arange(3), _COUNT, (1 - _COUNT) / 2)
        step = 1 / STEP_RATE
        speakers = np.where(active, _INSIDE, _OUTSIDE).astype(np.float16)
        return cls(SlidingWindow(step, step), labels, speakers, counts.astype(np.float16))

    def at_steps(
        self, num_steps: int, labels: Sequence[str] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Posteriors of the nearest frame of each step of 10 ms.

        Parameters
        ----------
        num_steps : int
        labels : sequence of str, optional
            Speakers to return. Defaults to all. Unknown speakers get a probability of 0.

        Returns
        -------
        speakers : (num_steps, num_labels) float32 array
        counts : (num_steps, 3) float32 array
        """
        labels = self.labels if labels is None else list(labels)
        speakers = np.zeros((num_steps, len(labels)), np.float32)
        counts = np.zeros((num_steps, 3), np.float32)
        counts[:, 0] = 1.0
        if len(self.counts):
            middle = (np.arange(num_steps) + 0.5) / STEP_RATE
            first = self.frames.start + 0.5 * self.frames.duration
            nearest = np.round((middle - first) / self.frames.step).astype(int)
            nearest = nearest.clip(0, len(self.counts) - 1)
            counts = self.counts[nearest].astype(np.float32)
            for i, label in enumerate(labels):
                if label in self.labels:
                    speakers[:, i] = self.speakers[nearest, self.labels.index(label)]
        return speakers, counts

    def named_as(self, binary: np.ndarray, turns: Annotation) -> SpeakerPosteriors:
        """Select and name the speakers as in turns that were made of them.

        Parameters
        ----------
        binary : (num_frames, num_labels) array
            Decisions for the speakers of these posteriors.
        turns : Annotation
            The same decisions as turns, under other names.
        """
        labels = list(turns.labels())
        first = self.frames.start + 0.5 * self.frames.duration
        middle = first + self.frames.step * np.arange(len(binary))
        shared = _activity(turns, labels, middle).T.astype(np.float32) @ binary
        columns = shared.argmax(axis=1) if labels else []
        return SpeakerPosteriors(self.frames, labels, self.speakers[:, columns], self.counts)

    def rename(self, names: Mapping[str, str]) -> SpeakerPosteriors:
        """Same posteriors with renamed speakers; those that get the same name are merged.

        Parameters
        ----------
        names : mapping of str to str
            New name by label. Labels that are missing keep their name.
        """
        renamed = [names.get(label, label) for label in self.labels]
        labels = list(dict.fromkeys(renamed))
        speakers = np.empty((len(self.speakers), len(labels)), self.speakers.dtype)
        for k, label in enumerate(labels):
            own = [one == label for one in renamed]
            speakers[:, k] = self.speakers[:, own].max(axis=1)
        return SpeakerPosteriors(self.frames, labels, speakers, self.counts)


def _activity(turns: Annotation, labels: Sequence[str], times: np.ndarray) -> np.ndarray:
    """Active speakers at increasing `times`: (num_times, num_labels) bool"""
    active = np.zeros((len(times), len(labels)), bool)
    column = {label: k for k, label in enumerate(labels)}
    for segment, _, label in turns.itertracks(yield_label=True):
        first, last = np.searchsorted(times, [segment.start - 1e-6, segment.end - 1e-6])
        active[first:last, column[label]] = True
    return active
