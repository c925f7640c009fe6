"""Single pass over the pictures of a file, which provides face tracks, crops and statistics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pyannote_av.core.threads import Background, ahead
from pyannote_av.core.tracks import FRAME_RATE, FaceTracks, PictureStats, TrackSegment
from pyannote_av.vision.crops import Rows, Segmenter, crop, grey, on_grid
from pyannote_av.vision.detection import Detections, FaceDetector
from pyannote_av.vision.identity import FaceSampler
from pyannote_av.vision.shots import ShotDetector, Thumbnail, thumbnail
from pyannote_av.vision.tracking import Tracker, TrackPart

if TYPE_CHECKING:
    from pyannote_av.core.io import Frame

#: maximum number of faces tracked at once; the largest ones are kept
MAX_FACES = 20
#: maximum number of frames of faces that wait for collectors (40 MB)
MAX_WAITING = 3000
#: number of pictures that are decoded in advance
AHEAD = 4


class Collector(Protocol):
    """Something that is computed from the crops of faces, in the same pass over the pictures."""

    def update(self, segment: TrackSegment) -> None:
        """Receive a part of a face track of at most 12 s, in time order per track."""
        ...

    def compute(self) -> Any:
        """Result for all parts so far."""
        ...


class _Pass:
    """Common part of both passes: statistics of the picture, cuts, and crops for collectors.

    It is a context manager, which ends the thread of the collectors.
    """

    def __init__(self, collectors: Sequence[Collector], sampler: FaceSampler | None):
        self._collectors = collectors
        self._background = Background(MAX_WAITING)
        self._sampler = sampler
        self._shots = ShotDetector()
        self._segmenter = Segmenter()
        self._size: tuple[int, int] | None = None
        self._thumbnail: Thumbnail | None = None
        self._frames = self._distinct = 0
        self._luma = 0.0
        self._cuts = 0

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self._background.close()

    def update(self, frame: Frame) -> None:
        """Process the next picture of the grid."""
        self._process(frame, self._examine(frame))

    def follow(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Process all pictures, and yield each one afterwards. Another thread decodes them."""
        for frame, cut in ahead(((frame, self._examine(frame)) for frame in frames), AHEAD):
            self._process(frame, cut)
            yield frame

    def _process(self, frame: Frame, cut: bool) -> None:
        """Find the faces of the next picture, with which a new shot may begin"""
        raise NotImplementedError

    def _examine(self, frame: Frame) -> bool:
        """Whether a new shot begins with this picture"""
        self._frames += 1
        size, cut = frame.size, False
        if not frame.repeated or self._thumbnail is None:
            self._distinct += 1
            self._thumbnail = thumbnail(frame)
            cut = self._shots.update(self._thumbnail)
            cut |= self._size is not None and size != self._size
        self._size = size
        self._cuts += cut
        self._luma += float(self._thumbnail.luma.mean())
        return cut

    def _publish(self, segments: Iterable[TrackSegment]) -> None:
        for segment in segments:
            if self._collectors:
                self._background.submit(len(segment), self._update_collectors, segment)

    def _update_collectors(self, segment: TrackSegment) -> None:
        for collector in self._collectors:
            collector.update(segment)

    def _complete(self, tracks: FaceTracks) -> FaceTracks:
        """Publish the remaining segments, and add frame size and statistics to the tracks"""
        self._publish(self._segmenter.close_all())
        self._background.finish()
        if not self._frames:
            return replace(tracks, stats=PictureStats())
        height = (tracks.box[:, 3] - tracks.box[:, 1]) * self._size[1]
        indices = np.round(tracks.time * FRAME_RATE)
        stats = PictureStats(
            frames=self._frames,
            face_share=min(1.0, len(np.unique(indices)) / self._frames),
            face_height=float(np.median(height)) if len(height) else float("nan"),
            frame_rate=FRAME_RATE * self._distinct / self._frames,
            brightness=self._luma / self._frames,
            shots=self._cuts + 1,
        )
        return replace(tracks, frame_size=self._size, stats=stats)


class DetectionPass(_Pass):
    """Detects, tracks and crops faces.

    The tracker returns the rows of a picture up to ``tracker.lag`` frames later. Therefore that
    many grey pictures are kept in memory.

    Parameters
    ----------
    detector : FaceDetector
    tracker : Tracker
    collectors : sequence of Collector
        Each is updated with every finished :class:`TrackSegment`, in another thread.
    sampler : FaceSampler, optional
    """

    def __init__(
        self,
        detector: FaceDetector,
        tracker: Tracker,
        collectors: Sequence[Collector] = (),
        sampler: FaceSampler | None = None,
    ):
        super().__init__(collectors, sampler)
        self._detector, self._tracker = detector, tracker
        self._detections: Detections | None = None
        self._detected: int | None = None
        self._pictures: dict[int, np.ndarray] = {}
        self._last = -1
        self._parts: list[TrackPart] = []

    def _process(self, frame: Frame, cut: bool) -> None:
        index = frame.index
        self._tracker.aspect = frame.size[0] / frame.size[1]
        if not frame.repeated:
            self._detections = None
        due = cut or self._detected is None or index - self._detected >= self._tracker.due
        if due:
            # a picture repeated on the grid goes through the detector only once
            if self._detections is None:
                self._detections = self._detect(frame)
            self._detected = index
        if self._collectors:
            known = frame.repeated and self._last in self._pictures
            self._pictures[index] = self._pictures[self._last] if known else grey(frame)
        self._last = index
        self._take(self._tracker.update(index, self._detections if due else None, cut))
        self._pictures.pop(index - self._tracker.lag, None)
        if due and self._sampler is not None:
            for track, row in self._tracker.current:
                self._sampler.update(frame, track, row)

    def _detect(self, frame: Frame) -> Detections:
        long_side = getattr(self._detector, "long_side", None)
        image = frame.within(long_side) if long_side else frame.image
        return self._detector(image).largest(MAX_FACES)

    def _take(self, parts: list[TrackPart]) -> None:
        for part in parts:
            self._parts.append(part)
            if self._collectors:
                for i in range(len(part.box)):
                    picture = self._pictures[part.start + i]
                    one = crop(picture, part.box[i], part.landmarks[i])
                    added = self._segmenter.add(part.track, part.start + i, one)
                    self._publish(added)
            if part.ended:
                self._publish(self._segmenter.close(part.track))

    def finish(self) -> FaceTracks:
        """Face tracks of all processed pictures."""
        self._take(self._tracker.finish(self._last + 1))
        if not self._parts:
            return self._complete(FaceTracks.empty())
        parts = self._parts
        index = np.concatenate([p.start + np.arange(len(p.box)) for p in parts])
        tracks = FaceTracks(
            time=index / FRAME_RATE,
            track=np.concatenate([np.full(len(p.box), p.track) for p in parts]),
            box=np.concatenate([p.box for p in parts]),
            landmarks=np.concatenate([p.landmarks for p in parts]),
            confidence=np.concatenate([p.confidence for p in parts]),
        )
        return self._complete(tracks)


class KnownPass(_Pass):
    """Crops faces whose tracks are already known.

    Parameters
    ----------
    tracks : FaceTracks
    collectors : sequence of Collector
    sampler : FaceSampler, optional
    """

    def __init__(
        self,
        tracks: FaceTracks,
        collectors: Sequence[Collector] = (),
        sampler: FaceSampler | None = None,
    ):
        super().__init__(collectors, sampler)
        self._tracks = on_grid(tracks)
        self._rows = Rows(self._tracks)
        # offer each face several times per interval, because not every crop is usable
        self._often = max(1, round(sampler.interval * FRAME_RATE / 4)) if sampler else 1

    def _process(self, frame: Frame, cut: bool) -> None:
        here, tracks = self._rows[frame.index], self._tracks
        picture = grey(frame) if self._collectors and len(here) else None
        for i in here:
            track, box, landmarks = int(tracks.track[i]), tracks.box[i], tracks.landmarks[i]
            if picture is not None:
                one = crop(picture, box, landmarks)
                self._publish(self._segmenter.add(track, frame.index, one))
            if self._sampler is not None and frame.index % self._often == 0:
                row = np.concatenate([box, landmarks.ravel(), tracks.confidence[[i]]])
                self._sampler.update(frame, track, row)

    def finish(self) -> FaceTracks:
        """The tracks, on the 25 Hz grid."""
        return self._complete(self._tracks)
