"""Face detection, tracking and cropping in one streaming pass over a video."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pyannote.audio import Pipeline
from pyannote.audio.core.pipeline import ProtocolFile
from pyannote.pipeline.parameter import Integer, Uniform

from pyannote_av.core.io import Video
from pyannote_av.core.media import probe
from pyannote_av.core.memory import release_freed
from pyannote_av.core.tracks import FRAME_RATE, FaceTracks, PictureStats
from pyannote_av.vision.detection import FaceDetector, get_detector
from pyannote_av.vision.identity import GROWTH, FaceEmbedder, FaceSampler, get_embedder
from pyannote_av.vision.streaming import Collector, DetectionPass, KnownPass
from pyannote_av.vision.tracking import Tracker

# seconds of video after which freed memory is given back
_RELEASE = 20.0


class FaceTracking(Pipeline):
    """Face tracking pipeline.

    Frames are decoded once, and kept for about one second only. Shot detection, face detection,
    tracking and cropping share this pass, so memory does not grow with the duration of the video.

    Parameters
    ----------
    detector : {"auto", "mtcnn", "yunet"} or FaceDetector
        See :func:`~pyannote_av.vision.detection.get_detector`. "auto" is YuNet after an ordinary
        installation.
    embedder : {"auto", "sface", "facenet-vggface2", "dlib-resnet"}, FaceEmbedder or None
        See :func:`~pyannote_av.vision.identity.get_embedder`. "auto" is SFace after an ordinary
        installation.
    token, cache_dir : optional
        Accepted as in other pipelines, but not used.

    Hyper-parameters
    ----------------
    stride : int
        Frames of the 25 Hz grid between two detections.
    max_gap : float
        Maximum time without detection within a track, in seconds.
    min_duration : float
        Minimum duration of a track, in seconds.

    Examples
    --------
    >>> tracks = FaceTracking()("interview.mp4")
    >>> tracks.write("interview.json")
    """

    def __init__(
        self,
        detector: str | FaceDetector = "auto",
        embedder: str | FaceEmbedder | None = "auto",
        token: str | bool | None = None,
        cache_dir: Path | str | None = None,
    ):
        super().__init__()
        self._detector = get_detector(detector)
        self._embedder = get_embedder(embedder)
        self._video = Video()

        self.stride = Integer(1, 12)
        self.max_gap = Uniform(0.2, 2.0)
        self.min_duration = Uniform(0.04, 2.0)

    def default_parameters(self) -> dict[str, Any]:
        """Parameters used when none are given."""
        return {"stride": 5, "max_gap": 0.6, "min_duration": 0.4}

    @property
    def detector_name(self) -> str:
        """Name of the detector in use."""
        return getattr(self._detector, "name", type(self._detector).__name__)

    @property
    def embedder_name(self) -> str:
        """Name of the embedder in use, or "none"."""
        if self._embedder is None:
            return "none"
        return getattr(self._embedder, "name", type(self._embedder).__name__)

    def to(self, device: torch.device) -> FaceTracking:
        """Move detector and embedder to a device, if they support it."""
        super().to(device)
        for part in (self._detector, self._embedder):
            if hasattr(part, "to"):
                part.to(device)
        return self

    def prepare_one(self, file: Any, preload: bool = False) -> Mapping:
        """Check a file and complete its mapping, without decoding the video."""
        valid = self._video.validate_file(file)
        file = {**file, **valid} if isinstance(file, Mapping) else valid
        if hasattr(self, "preprocessors"):
            file = ProtocolFile(file, lazy=self.preprocessors)
        return file

    def apply(
        self,
        file: Mapping,
        tracks: FaceTracks | str | Path | None = None,
        collectors: Sequence[Collector] = (),
        hook: Callable | None = None,
        problems: list[str] | None = None,
        sampler: FaceSampler | None = None,
    ) -> FaceTracks:
        """Track the faces of one file.

        Parameters
        ----------
        file : str, Path or mapping
            A video. A mapping may have ``face_tracks``, with the same meaning as `tracks`.
        tracks : FaceTracks, str or Path, optional
            Known tracks, or the path of a file with tracks. They replace detection and tracking:
            they are resampled to the 25 Hz grid, and faces are cropped.
        collectors : sequence of Collector, optional
            Each is updated with every :class:`TrackSegment` (at most 12 s long) as soon as the
            segment is complete, in time order per track. Updates take place in a thread of their
            own, one at a time.
        hook : callable, optional
            ``hook("face_tracking", None, file=..., total=..., completed=...)``, in seconds.
        problems : list of str, optional
            Messages about damage in the file are appended to it. Without it, they are issued as
            warnings.
        sampler : FaceSampler, optional
            Collects face samples instead of the embedder of this pipeline. The returned tracks
            then have no ``embeddings``.

        Returns
        -------
        tracks : FaceTracks
            Tracks on the 25 Hz grid, with ``stats``, and with ``embeddings`` if there is an
            embedder. Empty for files without video.
        """
        if not self.instantiated:
            self.instantiate(self.default_parameters())
        hook = self.setup_hook(file, hook)
        media = self._video.validate_file(file)
        known = _known_tracks(file, tracks, media["uri"])
        if not _has_pictures(media):
            return FaceTracks.empty(uri=media["uri"], stats=PictureStats())

        identities = None
        if sampler is None and self._embedder is not None and not (known and known.embeddings):
            sampler = identities = FaceSampler(self._embedder, growth=GROWTH)
        if known is not None:
            faces = KnownPass(known, collectors, sampler)
        else:
            faces = DetectionPass(self._detector, self._tracker(), collectors, sampler)
        tracks = replace(self._decode(media, faces, hook, problems), uri=media["uri"])
        if identities is not None:
            tracks = replace(tracks, embeddings=identities.compute().means)
        # the collected rows and pictures are not needed any more
        del faces
        release_freed()
        return tracks

    def _tracker(self) -> Tracker:
        return Tracker(
            min_confidence=getattr(self._detector, "min_confidence", 0.7),
            max_gap=self.max_gap,
            min_duration=self.min_duration,
            stride=self.stride,
        )

    def _decode(
        self,
        file: Mapping,
        faces: KnownPass | DetectionPass,
        hook: Callable,
        problems: list[str] | None,
    ) -> FaceTracks:
        """Tracks found in the pictures of a video; collectors and sampler are updated"""
        total = max(1, round(self._video.get_duration(file)))
        with faces:
            for frame in faces.follow(self._video.frames(file, problems=problems)):
                if frame.index % round(FRAME_RATE) == 0:
                    done = min(total, round(frame.time))
                    hook("face_tracking", None, total=total, completed=done)
                if frame.index % round(_RELEASE * FRAME_RATE) == 0:
                    release_freed()
            tracks = faces.finish()
        hook("face_tracking", None, total=total, completed=total)
        return tracks

    def dependencies(self, file: Mapping) -> tuple:
        """Everything that the tracks of a file depend on, besides its media, to cache them.

        Parameters
        ----------
        file : mapping
        """
        tracks = file.get("face_tracks")
        if tracks is not None:
            return Path(tracks) if isinstance(tracks, str) else tracks, self._embedder
        return self._detector, self._embedder, self.parameters(instantiated=True)


def _known_tracks(
    file: Mapping | str | Path, tracks: FaceTracks | str | Path | None, uri: str
) -> FaceTracks | None:
    """Tracks that are given, or that come with the file"""
    if tracks is None and isinstance(file, Mapping):
        tracks = file.get("face_tracks")
    if isinstance(tracks, (str, Path)):
        return FaceTracks.read(tracks)
    if tracks is not None and not isinstance(tracks, FaceTracks):
        raise TypeError(
            f"file {uri!r}: face_tracks must be FaceTracks or a path, not {type(tracks).__name__}"
        )
    return tracks


def _has_pictures(file: Mapping) -> bool:
    return "frames" in file or ("video" in file and probe(file["video"]).video is not None)
