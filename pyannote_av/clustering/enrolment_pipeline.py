"""Enrolment of talking faces, and assignment of all speech to them: "Who said that?"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from pyannote.pipeline.parameter import Integer, Uniform

from pyannote_av.clustering.enrolment import assign, enrol_visible
from pyannote_av.clustering.window_diarization import WindowDiarization
from pyannote_av.clustering.windowed_file import WindowedFile
from pyannote_av.clustering.windows import talking_scores


class EnrolmentDiarization(WindowDiarization):
    """Speaker diarization among people who are visible while they talk at least once.

    This is a baseline. By design, it does not handle off-screen speakers. See
    :mod:`pyannote_av.clustering.enrolment`.

    Parameters
    ----------
    others
        See :class:`~pyannote_av.clustering.window_diarization.WindowDiarization`.

    Hyper-parameters
    ----------------
    certain : float
        Minimum log-odds of a talking face to enrol its voice.
    most : int
        Maximum number of enrolment windows per person.
    weight : float
        Weight of visual confidence relative to voice similarity.
    identity : float
        Minimum mean cosine similarity of face tracks of the same person.

    Notes
    -----
    Given numbers of speakers are ignored: the speakers are the enrolled people.
    """

    def __init__(self, **others: Any):
        super().__init__(**others)
        self.certain = Uniform(0.0, 4.0)
        self.most = Integer(1, 50)
        self.weight = Uniform(0.0, 2.0)
        self.identity = Uniform(0.0, 1.0)

    def default_parameters(self) -> dict[str, Any]:
        """Parameters used when none are given."""
        chosen = {"certain": 2.0, "most": 10, "weight": 0.5, "identity": 0.5}
        return {**super().default_parameters(), **chosen}

    def cluster(
        self,
        windowed: WindowedFile,
        bounds: tuple[int | None, int | None, int | None],
        hook: Callable,
    ) -> np.ndarray:
        """See :class:`~pyannote_av.clustering.window_diarization.WindowDiarization`."""
        entries, tracks = windowed.entries, windowed.faces.tracks
        scores = talking_scores(windowed.windows, tracks)
        column = {track: k for k, track in enumerate(tracks.tracks)}
        if self.missing_rate:
            # talking faces that were removed from the entries are removed here too
            kept = np.zeros(scores.shape, bool)
            visible = entries.visible
            columns = [column[track] for track in entries.track[visible].tolist()]
            kept[entries.window[visible], columns] = True
            scores[(scores > self.talking) & ~kept] = np.nan
        people = windowed.faces.people(self.identity)
        talking = np.full((len(windowed.windows), len(people)), np.nan)
        for k, group in enumerate(people):
            talking[:, k] = np.fmax.reduce(scores[:, [column[t] for t in group]], axis=1)
        voices = windowed.speaker_embeddings
        prototypes = enrol_visible(voices, talking, self.certain, self.most)
        return assign(voices, prototypes, talking, self.weight)[entries.window]
