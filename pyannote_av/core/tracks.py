"""Face tracks: where each face is in the picture, as a struct of arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pyannote.core import Annotation, Segment, Timeline

from pyannote_av.core import track_files, track_tables
from pyannote_av.core.grid import FRAME_RATE
from pyannote_av.core.track_columns import COLUMNS, Label, check_rows

if TYPE_CHECKING:
    import pandas as pd
    from supervision import Detections

    from pyannote_av.core.notebook import Html

__all__ = ["FRAME_RATE", "FaceSamples", "FaceTracks", "Label", "PictureStats", "TrackSegment"]


def runs(
    time: np.ndarray, track: np.ndarray, step: float, max_gap: float
) -> Iterator[tuple[int, Segment]]:
    """Yield (track, segment) for each run of consecutive rows of a track.

    Parameters
    ----------
    time, track : (N,) arrays
        Sorted by track, then time.
    step : float
        Duration of one row in seconds.
    max_gap : float
        Longest absence, in seconds, that does not end a run.
    """
    # rounded times of odd frame rates (AVA) vary by a few milliseconds
    broken = (np.diff(track) != 0) | (np.diff(time) > 1.5 * step + max_gap)
    for run in np.split(np.arange(len(time)), np.flatnonzero(broken) + 1) if len(time) else []:
        first, last = time[run[0]], time[run[-1]]
        # rounded, so that adjoining segments share their boundary exactly
        yield int(track[run[0]]), Segment(round(float(first), 6), round(float(last + step), 6))


@dataclass(frozen=True, eq=False)
class TrackSegment:
    """A contiguous part of one face track, with the crops of the face.

    Attributes
    ----------
    track : int
    start : int
        Index of the first crop on the 25 Hz grid. Crop `i` is at time ``(start + i) / 25`` s.
    crops : (T, size, size) uint8
        Grey pictures. Their content is undefined where `present` is False.
    present : (T,) bool
        Whether the face is visible.
    """

    track: int
    start: int
    crops: np.ndarray
    present: np.ndarray

    def __post_init__(self):
        if self.crops.ndim != 3 or self.crops.dtype != np.uint8:
            raise ValueError(f"crops must be (T, H, W) uint8, not {self.crops.shape}")
        if self.present.shape != (len(self.crops),):
            raise ValueError(f"present must be ({len(self.crops)},), not {self.present.shape}")

    def __len__(self) -> int:
        return len(self.crops)

    @property
    def end(self) -> int:
        """Grid index one past the last crop."""
        return self.start + len(self.crops)

    @property
    def times(self) -> np.ndarray:
        """(T,) times of the crops, in seconds on the container clock."""
        return np.arange(self.start, self.end) / FRAME_RATE


@dataclass(frozen=True)
class PictureStats:
    """Statistics of the picture, measured during face tracking.

    They help to decide whether the video can be trusted.

    Attributes
    ----------
    frames : int
        Number of pictures processed on the 25 Hz grid, repeated ones included.
    face_share : float
        Share of these pictures with at least one tracked face.
    face_height : float
        Median height of the tracked faces in pixels of the displayed frame; NaN without faces.
    frame_rate : float
        Distinct pictures per second.
    brightness : float
        Mean luma, 0 (black) to 255 (white); NaN without frames.
    shots : int
        Number of shots, that is, of segments between cuts.
    """

    frames: int = 0
    face_share: float = 0.0
    face_height: float = float("nan")
    frame_rate: float = 0.0
    brightness: float = float("nan")
    shots: int = 0


class FaceSamples(NamedTuple):
    """Samples of the appearance of tracked faces.

    Attributes
    ----------
    track : (n,) int array
    frame : (n,) int array
        Index on the 25 Hz grid.
    vector : (n, ...) array
        Embedding or picture of the face.
    """

    track: np.ndarray
    frame: np.ndarray
    vector: np.ndarray

    @classmethod
    def none(cls, vectors: np.ndarray | None = None) -> FaceSamples:
        """No samples. `vectors` is an array (0, ...) that sets the shape of the vectors."""
        nobody = np.zeros(0, np.int64)
        return cls(nobody, nobody, np.zeros((0, 1), np.float32) if vectors is None else vectors)

    @property
    def means(self) -> dict[int, np.ndarray]:
        """Mean of the vectors (n, E) of each track, scaled to unit length."""
        sums = {int(t): self.vector[self.track == t].sum(axis=0) for t in np.unique(self.track)}
        return {t: (v / np.linalg.norm(v)).astype(np.float32) for t, v in sums.items()}


@dataclass(eq=False, repr=False)
class FaceTracks:
    """Tracks of faces.

    Row `i` means that face `track[i]` is in `box[i]` at `time[i]`. Rows are always sorted by
    (track, time), so that a track is a contiguous slice. They can be given in any order.

    Parameters
    ----------
    time : (N,) float
        Seconds on the container clock. Tracks found by this package lie on the 25 Hz grid.
    track : (N,) int
    box : (N, 4) float
        x1, y1, x2, y2 normalised to the displayed frame (after rotation).
    landmarks : (N, 5, 2) float, optional
        Normalised x, y of left eye, right eye, nose, left and right mouth corner. Left and right
        are those of the picture. NaN where unknown.
    confidence : (N,) float, optional
        Confidence of the detector, NaN where unknown.
    speaking : (N,) float, optional
        Calibrated log-odds that the face is speaking audibly (0 is the decision threshold), NaN
        where not scored.
    label : (N,) int, optional
        Manual annotation, see :class:`~pyannote_av.core.tracks.Label`: 1 speaking and audible,
        0 not speaking, 2 speaking but not audible, -1 not annotated.
    speaker : dict of int to str, optional
        Speaker label by track, for tracks whose speaker is known.
    uri : str, optional
    frame_size : (int, int), optional
        Width and height of the displayed frame in pixels.
    embeddings : dict of int to (E,) array, optional
        Unit-length face embeddings by track. They are biometric data and are **not** written to
        files.
    stats : PictureStats, optional
        Not written to files either.

    Raises
    ------
    ValueError
        When arrays differ in length, boxes are empty or not normalised, labels are unknown, a
        track has two rows at one time, or `speaker` names unknown tracks.
    """

    time: np.ndarray
    track: np.ndarray
    box: np.ndarray
    landmarks: np.ndarray | None = None
    confidence: np.ndarray | None = None
    speaking: np.ndarray | None = None
    label: np.ndarray | None = None
    speaker: dict[int, str] = field(default_factory=dict)
    uri: str | None = None
    frame_size: tuple[int, int] | None = None
    embeddings: dict[int, np.ndarray] = field(default_factory=dict)
    stats: PictureStats | None = None

    def __post_init__(self):
        count = len(self.time)
        for name, column in COLUMNS.items():
            setattr(self, name, column.array(name, getattr(self, name), count))
        check_rows(self.time, self.track, self.box, self.label)
        order = np.lexsort((self.time, self.track))
        if (order != np.arange(count)).any():
            for name in COLUMNS:
                setattr(self, name, getattr(self, name)[order])
        same = (np.diff(self.track) == 0) & (np.diff(self.time) <= 0)
        if same.any():
            i = int(same.argmax())
            raise ValueError(f"track {self.track[i]} is listed twice at {self.time[i]:.3f} s")
        self.speaker = {int(track): str(label) for track, label in self.speaker.items()}
        if unknown := sorted(set(self.speaker) - set(self.tracks)):
            raise ValueError(f"speaker names tracks that do not exist: {unknown}")
        if self.frame_size is not None:
            width, height = self.frame_size
            self.frame_size = (int(width), int(height))

    @classmethod
    def empty(cls, **kwargs: Any) -> FaceTracks:
        """Face tracks without rows. Keyword arguments are those of the constructor."""
        return cls(time=np.empty(0), track=np.empty(0), box=np.empty((0, 4)), **kwargs)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.time)

    def __bool__(self) -> bool:
        """Whether there is any face."""
        return len(self) > 0

    def __repr__(self) -> str:
        span = f", {self.time.min():.2f}-{self.time.max():.2f} s" if self else ""
        speakers = f", {len(set(self.speaker.values()))} speakers" if self.speaker else ""
        return (
            f"<FaceTracks {self.uri or ''}: {len(self.tracks)} tracks, "
            f"{len(self)} boxes{span}{speakers}>"
        )

    def _repr_html_(self) -> str:
        """Table of the tracks for notebooks."""
        return self.show()

    def show(self, video: Any = None, speakers: Sequence[str] | None = None) -> Html:
        """Table of the tracks, with a picture of each face if the video is given.

        Parameters
        ----------
        video : str, Path or mapping, optional
        speakers : sequence of str, optional
            All speakers of the result, ``output.speaker_diarization.labels()``, some of whom may
            have no face. The table then has the colours of the timeline.

        Returns
        -------
        html : Html
            Notebooks show it as a table.

        Raises
        ------
        MediaError
            If the video cannot be read.
        """
        from pyannote_av.core.notebook import tracks_html

        return tracks_html(self, video, speakers)

    def __eq__(self, other: object) -> bool:
        """Whether rows, speakers, uri and frame size are equal; embeddings and stats may differ."""
        if not isinstance(other, FaceTracks):
            return NotImplemented
        rest = ("speaker", "uri", "frame_size")
        return all(getattr(self, name) == getattr(other, name) for name in rest) and all(
            np.array_equal(getattr(self, name), getattr(other, name), equal_nan=True)
            for name in COLUMNS
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def tracks(self) -> list[int]:
        """Identifiers of the tracks, sorted."""
        return np.unique(self.track).tolist()

    @property
    def frame_rate(self) -> float:
        """Rows per second of a track, ignoring gaps; 25 if no track has two rows."""
        step = np.diff(self.time)[np.diff(self.track) == 0]
        # the mean, because times rounded to two digits alternate between steps of 0.03 and 0.04 s
        return float(1 / step[step < 1.5 * np.median(step)].mean()) if len(step) else FRAME_RATE

    def track_slice(self, track: int) -> slice:
        """Rows of one track."""
        first, last = np.searchsorted(self.track, [track, track + 1])
        if first == last:
            raise KeyError(f"no track {track} in {self!r}")
        return slice(int(first), int(last))

    def take(self, rows: slice | np.ndarray) -> FaceTracks:
        """Rows selected by a slice, a mask or indices. Slices share memory."""
        columns = {name: getattr(self, name)[rows] for name in COLUMNS}
        kept = set(columns["track"].tolist())
        named = {
            name: {track: value for track, value in getattr(self, name).items() if track in kept}
            for name in ("speaker", "embeddings")
        }
        return replace(self, **columns, **named, stats=None)

    def of(self, track: int) -> FaceTracks:
        """One track. Memory is shared: changing its `speaking` in place changes this object."""
        return self.take(self.track_slice(track))

    def crop(self, support: Segment | Timeline) -> FaceTracks:
        """Rows whose time lies inside `support` (start included, end excluded)."""
        inside = np.zeros(len(self), bool)
        for segment in [support] if isinstance(support, Segment) else support:
            inside |= (self.time >= segment.start - 1e-6) & (self.time < segment.end - 1e-6)
        return self.take(inside)

    def with_speakers(self, speaker: Mapping[int, str]) -> FaceTracks:
        """Same tracks with new speaker labels. Tracks missing from `speaker` lose their label."""
        return replace(self, speaker=dict(speaker))

    def relabel(self, mapping: Mapping[str, str]) -> FaceTracks:
        """Same tracks with renamed speakers. Labels that are not in `mapping` are kept."""
        return self.with_speakers({t: mapping.get(s, s) for t, s in self.speaker.items()})

    def _annotation(self, rows: np.ndarray, by: str, max_gap: float) -> Annotation:
        if by not in ("track", "speaker"):
            raise ValueError(f'by must be "track" or "speaker", not {by!r}')
        annotation, step = Annotation(uri=self.uri, modality="face"), 1 / self.frame_rate
        for track, segment in runs(self.time[rows], self.track[rows], step, max_gap):
            if by == "track":
                annotation[segment, track] = track
            elif track in self.speaker:
                annotation[segment, track] = self.speaker[track]
        return annotation

    def to_annotation(self, by: str = "track", max_gap: float = 0.1) -> Annotation:
        """When each face is visible.

        Parameters
        ----------
        by : {"track", "speaker"}
            Labels of the annotation. With "speaker", tracks of unknown speakers are left out.
        max_gap : float
            Longest absence, in seconds, that does not end a segment.
        """
        return self._annotation(np.ones(len(self), bool), by, max_gap)

    def speaking_annotation(
        self, threshold: float = 0.0, by: str = "track", max_gap: float = 0.0
    ) -> Annotation:
        """When each face is speaking: where its score `speaking` exceeds `threshold`."""
        return self._annotation(self.speaking > threshold, by, max_gap)

    def coverage(self, support: Segment | Timeline) -> float:
        """Share of `support` during which at least one face is visible."""
        support = Timeline([support]) if isinstance(support, Segment) else support.support()
        visible = self.to_annotation().get_timeline().support()
        return visible.crop(support).duration() / support.duration() if support else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain, rounded containers that JSON can hold; see ``write``."""
        return track_files.to_dict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], where: str = "face tracks") -> FaceTracks:
        """Face tracks from what ``to_dict`` returned.

        Parameters
        ----------
        content : mapping
        where : str, optional
            Name of the source, for error messages.

        Raises
        ------
        ValueError
            When a key is missing, or values are no face tracks.
        """
        return track_files.from_dict(content, where, cls)

    def to_pandas(self) -> pd.DataFrame:
        """Table with one row per face and time.

        Columns are ``uri``, ``time``, ``track``, ``x1``, ``y1``, ``x2``, ``y2``, ``confidence``,
        ``speaking``, ``label`` and ``speaker``, with values as in this class (None for an unknown
        speaker). If there are landmarks, ten more columns hold them: ``left_eye_x``,
        ``left_eye_y``, ``right_eye_x``, ... ``frame_size`` is in ``attrs``.
        """
        return track_tables.to_pandas(self)

    @classmethod
    def from_pandas(
        cls, table: pd.DataFrame, uri: str | None = None, frame_size: tuple[int, int] | None = None
    ) -> FaceTracks:
        """Face tracks from a table as :meth:`to_pandas` returns it.

        Parameters
        ----------
        table : DataFrame
            ``time``, ``track``, ``x1``, ``y1``, ``x2`` and ``y2`` are needed. Boxes are fractions
            of the frame, or pixels if they exceed it and `frame_size` is known.
        uri : str, optional
            Video to take from a table that holds several. By default, there must be only one.
        frame_size : (int, int), optional
            Width and height of the displayed frame in pixels. Defaults to that in ``attrs``.

        Raises
        ------
        ValueError
            When a column is missing, there are several videos, a track has two speakers, or values
            are no face tracks.
        """
        return track_tables.from_pandas(table, uri, frame_size, cls)

    def to_supervision(
        self, frame_size: tuple[int, int] | None = None
    ) -> Iterator[tuple[float, Detections]]:
        """Yield time and ``supervision.Detections`` for each picture with faces.

        Boxes are in pixels, tracks in ``tracker_id``, and ``data`` holds ``speaker`` ("" where
        unknown) and ``speaking``.

        Parameters
        ----------
        frame_size : (int, int), optional
            Width and height in pixels of the pictures to draw on. Defaults to that of the tracks.

        Raises
        ------
        ModuleNotFoundError
            Without supervision.
        ValueError
            When the size of the frame is not known.
        """
        return track_tables.to_supervision(self, frame_size)

    @classmethod
    def from_supervision(
        cls,
        detections: Iterable[tuple[float, Detections]],
        frame_size: tuple[int, int],
        uri: str | None = None,
    ) -> FaceTracks:
        """Face tracks from ``supervision.Detections`` of a tracker.

        Parameters
        ----------
        detections : iterable of (float, Detections)
            Time in seconds, and the faces at that time. ``tracker_id`` is needed. ``speaker`` and
            ``speaking`` in ``data`` are optional.
        frame_size : (int, int)
            Width and height in pixels of the pictures.
        uri : str, optional

        Raises
        ------
        ValueError
            When detections have no ``tracker_id``.
        """
        return track_tables.from_supervision(detections, frame_size, uri, cls)

    @classmethod
    def read(cls, path: str | Path, uri: str | None = None) -> FaceTracks:
        """Read ``.npz``, ``.json[.gz]`` or (AVA-ActiveSpeaker) ``.csv[.gz]``.

        Parameters
        ----------
        path : str or Path
        uri : str, optional
            Video to read from a CSV file that holds several.

        Raises
        ------
        ValueError
            With the name of the file, and the line if it is a text file.
        """
        return track_files.read(path, uri, cls)

    def write(self, path: str | Path) -> None:
        """Write ``.npz`` (exact), ``.json[.gz]`` or (AVA-ActiveSpeaker) ``.csv[.gz]``.

        The file is written atomically. Embeddings are not written.
        """
        track_files.write(self, path)
