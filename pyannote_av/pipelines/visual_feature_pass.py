"""Features of faces, computed while the faces are tracked."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

import torch

from pyannote_av.fusion.targets import FaceStretch

if TYPE_CHECKING:
    from pyannote_av.core.tracks import TrackSegment


class VisualFeaturePass:
    """Keeps what a network sees of faces while they are being tracked.

    A consumer of ``FaceTracking``: pictures are not kept, their features are, as float16 (6 MB per
    face and quarter of an hour, at 128 features).

    Parameters
    ----------
    model : AVModel
        With a method ``visual_features``, such as ``HMSANet``.
    """

    def __init__(self, model: torch.nn.Module):
        self.model = model
        #: by track
        self.seen: dict[int, list[FaceStretch]] = {}
        #: time spent, which is also part of the tracking that this hangs on
        self.seconds = 0.0

    def __call__(self, segment: TrackSegment) -> None:
        """Take one stretch of a face."""
        begin = perf_counter()
        faces, present = (
            torch.from_numpy(x)[None, None].to(self.model.device)
            for x in (segment.crops, segment.present)
        )
        with torch.inference_mode():
            features = self.model.visual_features(faces, present)[0, 0].half().cpu().numpy()
        stretch = FaceStretch(segment.start, features, segment.present)
        self.seen.setdefault(segment.track, []).append(stretch)
        self.seconds += perf_counter() - begin
