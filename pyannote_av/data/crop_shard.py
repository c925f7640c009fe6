"""The shard of one file in a store of face crops; see :mod:`pyannote_av.data.crop_store`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from pyannote_av.core.checksums import sha256_of
from pyannote_av.core.grid import FRAME_RATE, SAMPLES_PER_FRAME
from pyannote_av.core.reading import (
    INDEX_LIMIT,
    LONGEST,
    ReadError,
    check_name,
    inside,
    read_json,
    read_npy,
    whole,
)
from pyannote_av.core.tracks import FaceSamples

if TYPE_CHECKING:
    from pyannote_av.core.tracks import FaceTracks

FORMAT = 1
SIDE = 112
ARRAYS = ("crops.npy", "present.npy", "waveform.npy", "tracks.npz")
#: whole faces in colour: width and height in pixels, and seconds between two images
FACE_SIDE, FACE_INTERVAL = 112, 1.0


def shard_folder(store: Path, uri: str) -> Path:
    """Folder of a file's shard."""
    # a leading dot marks unfinished shards
    name = quote(uri, safe=" ")
    return store / "shards" / (f"%2E{name[1:]}" if name.startswith(".") else name)


def _check(index: dict[str, Any]) -> None:
    """Raise ValueError for an index with impossible content"""
    latest = int(LONGEST * FRAME_RATE)
    for what, kind in (("uri", str), ("problems", list), ("sha256", dict)):
        if not isinstance(index[what], kind):
            raise ValueError(f"{what} is {index[what]!r}")
    texts = [*index["problems"], *index["sha256"].values()]
    if wrong := [one for one in texts if not isinstance(one, str)]:
        raise ValueError(f"{wrong[0]!r} where text is expected")
    for name in index["sha256"]:
        check_name(name)
    whole(index["samples"], 0, latest * SAMPLES_PER_FRAME, "samples")
    for track, start, length, row in index["pieces"]:
        whole(track, -(2**62), 2**62, "a track")
        whole(start, -latest, latest, "the start of a piece")
        whole(length, 1, latest, "the length of a piece")
        whole(row, 0, 2**40, "a row of crops")
    for track, frame in index.get("looks", []):
        whole(track, -(2**62), 2**62, "a track")
        whole(frame, -latest, latest, "the frame of a face sample")


class Shard:
    """The stored data of one file. Arrays are opened on first access.

    Parameters
    ----------
    folder : Path

    Attributes
    ----------
    uri : str
    index : dict
        Content of ``index.json``.
    pieces : (P, 4) int array
        Rows of ``crops``: track, grid index of the first crop, number of crops, first row. Sorted
        by (track, grid index).

    Raises
    ------
    ReadError
        If the index is damaged or of another version.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        path = folder / "index.json"
        try:
            self.index = read_json(path, INDEX_LIMIT)
            known = self.index["format"] == FORMAT
            if known:
                _check(self.index)
                self.uri = self.index["uri"]
                self.pieces = np.array(self.index["pieces"], np.int64).reshape(-1, 4)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ReadError(f"{path} is damaged ({error}): build the store again") from error
        if not known:
            raise ReadError(
                f"{path} has format {self.index['format']}, not {FORMAT}: build the store again"
            )

    def _open(
        self, name: str, shape: tuple[int, ...], dtype: type, mmap_mode: str | None = "r"
    ) -> np.ndarray:
        try:
            array = read_npy(inside(self.folder, name), mmap_mode)
        except ReadError as error:
            raise ReadError(f"{error}: build the store again") from error
        if array.shape != shape or array.dtype != dtype:
            raise ReadError(
                f"{self.folder / name} is damaged: {array.dtype} {array.shape} where the index "
                f"says {np.dtype(dtype)} {shape}: build the store again"
            )
        return array

    @cached_property
    def _count(self) -> int:
        """Number of crops"""
        return int((self.pieces[:, 3] + self.pieces[:, 2]).max(initial=0))

    @cached_property
    def _crops(self) -> np.ndarray:
        return self._open("crops.npy", (self._count, SIDE, SIDE), np.uint8)

    @cached_property
    def present(self) -> np.ndarray:
        """(N,) bool: which crops show a face."""
        return self._open("present.npy", (self._count,), bool, None)

    @cached_property
    def _waveform(self) -> np.ndarray:
        return self._open("waveform.npy", (self.index["samples"],), np.int16)

    @property
    def tracks(self) -> dict[int, tuple[int, int]]:
        """First grid index, and one past the last, of each track."""
        found: dict[int, tuple[int, int]] = {}
        for track, start, length, _ in self.pieces.tolist():
            found[track] = (found.get(track, (start,))[0], start + length)
        return found

    @property
    def face_tracks(self) -> FaceTracks:
        """Bounding boxes of the tracks, on the 25 Hz grid, without labels."""
        from pyannote_av.core.tracks import FaceTracks

        return FaceTracks.read(self.folder / "tracks.npz")

    @cached_property
    def face_samples(self) -> FaceSamples:
        """Images of whole faces in colour, at intervals: (n, 112, 112, 3) uint8, memory-mapped.

        Empty if there are no faces, or if an older version without such images wrote the shard.
        """
        where = np.array(self.index.get("looks", []), np.int64).reshape(-1, 2)
        if not len(where):
            return FaceSamples.none(np.zeros((0, FACE_SIDE, FACE_SIDE, 3), np.uint8))
        shape = (len(where), FACE_SIDE, FACE_SIDE, 3)
        return FaceSamples(where[:, 0], where[:, 1], self._open("looks.npy", shape, np.uint8))

    @property
    def problems(self) -> list[str]:
        """Problems found in the file, as sentences."""
        return list(self.index["problems"])

    def crops(self, track: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Crops of one track; see :meth:`CropStore.crops`."""
        crops = np.zeros((stop - start, SIDE, SIDE), np.uint8)
        present = np.zeros(stop - start, bool)
        for where, rows in self._rows(track, start, stop):
            crops[where] = self._crops[rows]
            present[where] = self.present[rows]
        return crops, present

    def presence(self, track: int, start: int, stop: int) -> np.ndarray:
        """Presence of one track; see :meth:`CropStore.presence`."""
        present = np.zeros(stop - start, bool)
        for where, rows in self._rows(track, start, stop):
            present[where] = self.present[rows]
        return present

    def _rows(self, track: int, start: int, stop: int) -> Iterator[tuple[slice, slice]]:
        """Slices of the frames since `start`, and of the array rows that hold them"""
        mine = self.pieces[self.pieces[:, 0] == track]
        if not len(mine):
            raise KeyError(f"no track {track} in the store of {self.uri!r}")
        for _, first, length, row in mine.tolist():
            low, high = max(start, first), min(stop, first + length)
            if low < high:
                rows = slice(row + low - first, row + high - first)
                yield slice(low - start, high - start), rows

    def waveform(self, start: int, stop: int) -> np.ndarray:
        """Sound of grid frames; see :meth:`CropStore.waveform`."""
        first, last = start * SAMPLES_PER_FRAME, stop * SAMPLES_PER_FRAME
        sound = np.zeros(last - first, np.float32)
        low, high = max(first, 0), min(last, len(self._waveform))
        if low < high:
            sound[low - first : high - first] = self._waveform[low:high] / np.float32(32768)
        return sound

    def verify(self) -> str | None:
        """Describe the first damage to the shard's files; None if all checksums match."""
        for name in {*ARRAYS, *self.index["sha256"]}:
            path = inside(self.folder, name)
            if not path.is_file():
                return f"{path} is missing"
            if sha256_of(path) != self.index["sha256"].get(name):
                return f"{path} is not what was written (checksum)"
        return None
