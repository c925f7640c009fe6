"""Visual features of faces, computed during face tracking."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

import torch

from pyannote_av.fusion.targets import FaceStretch

if TYPE_CHECKING:
    from pyannote_av.core.tracks import TrackSegment


class VisualFeaturePass:
    """Consumer of ``FaceTracking`` that computes the visual features of a network.

    Crops are not kept. Features are kept as float16: 6 MB per face and quarter of an hour, at 128
    features.

    Parameters
    ----------
    model : AVModel
        Model with a method ``visual_features``, such as ``HMSANet``.
    """

    def __init__(self, model: torch.nn.Module):
        self.model = model
        #: features by track
        self.seen: dict[int, list[FaceStretch]] = {}
        #: seconds spent on features; they are included in the time of the face tracking pass
        self.seconds = 0.0

    def __call__(self, segment: TrackSegment) -> None:
        """Compute the features of one track segment."""
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
