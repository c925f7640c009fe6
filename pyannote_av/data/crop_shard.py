"""One file in a store of face crops; see :mod:`pyannote_av.data.crop_store`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np

from pyannote_av.core.checksums import sha256_of
from pyannote_av.core.grid import SAMPLES_PER_FRAME
from pyannote_av.core.tracks import Looks

if TYPE_CHECKING:
    from pyannote_av.core.tracks import FaceTracks

FORMAT = 1
SIDE = 112
ARRAYS = ("crops.npy", "present.npy", "waveform.npy", "tracks.npz")
#: pictures of whole faces in colour: width and height in pixels, and seconds between two
LOOK_SIDE, LOOK_INTERVAL = 112, 1.0

MEGABYTE = 2**20


def shard_folder(store: Path, uri: str) -> Path:
    """Where the shard of a file lies."""
    # a leading dot marks shards in the making
    name = quote(uri, safe=" ")
    return store / "shards" / (f"%2E{name[1:]}" if name.startswith(".") else name)


class Shard:
    """One file of a store; arrays are opened when they are first asked for.

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
    ValueError
        When the index is damaged or of another version.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        path = folder / "index.json"
        try:
            self.index = json.loads(path.read_text(encoding="utf-8"))
            known = self.index["format"] == FORMAT
            self.uri = self.index["uri"]
            self.pieces = np.array(self.index["pieces"], np.int64).reshape(-1, 4)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is damaged ({error}): build the store again") from error
        if not known:
            raise ValueError(
                f"{path} has format {self.index['format']}, not {FORMAT}: build the store again"
            )

    def _open(self, name: str) -> np.ndarray:
        path = self.folder / name
        try:
            return np.load(path, mmap_mode="r")
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error}): build the store again") from error

    @cached_property
    def _crops(self) -> np.ndarray:
        # an empty file cannot be mapped
        return self._open("crops.npy") if len(self.pieces) else np.zeros((0, SIDE, SIDE), np.uint8)

    @cached_property
    def _present(self) -> np.ndarray:
        return np.load(self.folder / "present.npy")

    @cached_property
    def _waveform(self) -> np.ndarray:
        return self._open("waveform.npy") if self.index["samples"] else np.zeros(0, np.int16)

    @property
    def tracks(self) -> dict[int, tuple[int, int]]:
        """First grid index, and one past the last, of every track."""
        found: dict[int, tuple[int, int]] = {}
        for track, start, length, _ in self.pieces.tolist():
            found[track] = (found.get(track, (start,))[0], start + length)
        return found

    @property
    def face_tracks(self) -> FaceTracks:
        """Where the faces are, on the 25 Hz grid, without labels."""
        from pyannote_av.core.tracks import FaceTracks

        return FaceTracks.read(self.folder / "tracks.npz")

    @cached_property
    def looks(self) -> Looks:
        """Pictures of whole faces in colour, now and then: (n, 112, 112, 3) uint8, memory-mapped.

        Empty where there are no faces, or where the shard is older than looks are.
        """
        where = np.array(self.index.get("looks", []), np.int64).reshape(-1, 2)
        if not len(where):
            return Looks.none(np.zeros((0, LOOK_SIDE, LOOK_SIDE, 3), np.uint8))
        return Looks(where[:, 0], where[:, 1], self._open("looks.npy"))

    @property
    def problems(self) -> list[str]:
        """What was wrong with the file, in sentences."""
        return list(self.index["problems"])

    def crops(self, track: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Crops of one track; see :meth:`CropStore.crops`."""
        crops = np.zeros((stop - start, SIDE, SIDE), np.uint8)
        present = np.zeros(stop - start, bool)
        for where, rows in self._rows(track, start, stop):
            crops[where] = self._crops[rows]
            present[where] = self._present[rows]
        return crops, present

    def presence(self, track: int, start: int, stop: int) -> np.ndarray:
        """When one track is there; see :meth:`CropStore.presence`."""
        present = np.zeros(stop - start, bool)
        for where, rows in self._rows(track, start, stop):
            present[where] = self._present[rows]
        return present

    def _rows(self, track: int, start: int, stop: int) -> Iterator[tuple[slice, slice]]:
        """Frames from `start`, and rows of arrays that hold them"""
        mine = self.pieces[self.pieces[:, 0] == track]
        if not len(mine):
            raise KeyError(f"no track {track} in the store of {self.uri!r}")
        for _, first, length, row in mine.tolist():
            low, high = max(start, first), min(stop, first + length)
            if low < high:
                rows = slice(row + low - first, row + high - first)
                yield slice(low - start, high - start), rows

    def waveform(self, start: int, stop: int) -> np.ndarray:
        """Sound of grid steps; see :meth:`CropStore.waveform`."""
        first, last = start * SAMPLES_PER_FRAME, stop * SAMPLES_PER_FRAME
        sound = np.zeros(last - first, np.float32)
        low, high = max(first, 0), min(last, len(self._waveform))
        if low < high:
            sound[low - first : high - first] = self._waveform[low:high] / np.float32(32768)
        return sound

    def verify(self) -> str | None:
        """What is wrong with the shard's files, None when their checksums are right."""
        for name in {*ARRAYS, *self.index["sha256"]}:
            path = self.folder / name
            if not path.is_file():
                return f"{path} is missing"
            if sha256_of(path) != self.index["sha256"].get(name):
                return f"{path} is not what was written (checksum)"
        return None
