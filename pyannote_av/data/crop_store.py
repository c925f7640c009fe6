"""Store of the face crops and sound of a whole corpus. Training reads it instead of videos.

Each file of the corpus has a folder, which is written atomically::

    store/shards/<uri>/crops.npy      (N, 112, 112) uint8, memory-mapped
                       present.npy    (N,) bool
                       waveform.npy   (samples,) int16 at 16 kHz, memory-mapped
                       tracks.npz     where the faces are, on the 25 Hz grid
                       looks.npy      (L, 112, 112, 3) uint8, whole faces in colour, one a second
                       index.json     which rows are which face when; checksums

Labels are not stored. They come from the protocol, at training time, by (uri, track).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from pyannote_av.core.grid import SAMPLES_PER_FRAME
from pyannote_av.data.crop_shard import Shard, shard_folder

#: maximum number of shards kept open: each uses two memory maps, and so two file descriptors
_OPEN_SHARDS = 64


class CropStore:
    """A prepared store of face crops and sound.

    Opening it reads nothing. Shards are opened on first access, and can be sent to other
    processes.

    Parameters
    ----------
    folder : str or Path
        Folder written by ``build_store``.

    Raises
    ------
    FileNotFoundError
        If this folder holds no store.

    Examples
    --------
    >>> report = build_store("store", protocol.files(), num_workers=8)
    >>> report.failed                     # {uri: reason}; the next call tries these again
    >>> store = CropStore("store")
    >>> first, last = store["interview"].tracks[3]
    >>> crops, present = store.crops("interview", 3, first, last)
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if not (self.folder / "shards").is_dir():
            raise FileNotFoundError(
                f"there is no store of crops in {self.folder}: write one with build_store"
            )
        self._shards: OrderedDict[str, Shard] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "_shards": OrderedDict()}

    @property
    def uris(self) -> list[str]:
        """Files in the store, sorted."""
        names = (path.name for path in (self.folder / "shards").iterdir())
        return sorted(unquote(name) for name in names if not name.startswith("."))

    def __len__(self) -> int:
        return len(self.uris)

    def __iter__(self) -> Iterator[str]:
        return iter(self.uris)

    def __contains__(self, uri: str) -> bool:
        return uri in self._shards or (shard_folder(self.folder, uri) / "index.json").is_file()

    def __getitem__(self, uri: str) -> Shard:
        """Shard of one file."""
        if uri not in self._shards:
            if uri not in self:
                raise KeyError(f"{uri!r} is not in the store of crops in {self.folder}")
            self._shards[uri] = Shard(shard_folder(self.folder, uri))
            if len(self._shards) > _OPEN_SHARDS:
                self._shards.popitem(last=False)
        self._shards.move_to_end(uri)
        return self._shards[uri]

    def crops(self, uri: str, track: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Crops of a track for grid indices `start` to `stop` (exclusive).

        Parameters
        ----------
        uri : str
        track : int
        start, stop : int
            On the 25 Hz grid. The range may extend beyond either end of the track.

        Returns
        -------
        crops : (stop - start, 112, 112) uint8 array
        present : (stop - start,) bool array
            Where this is False, the crops are black and carry no information.
        """
        return self[uri].crops(track, start, stop)

    def presence(self, uri: str, track: int, start: int, stop: int) -> np.ndarray:
        """Presence of a track, (stop - start,) bool, without reading its crops."""
        return self[uri].presence(track, start, stop)

    def waveform(self, uri: str, start: int, stop: int) -> np.ndarray:
        """Sound of grid indices `start` to `stop` (exclusive).

        Returns
        -------
        waveform : (640 x (stop - start),) float32 array
            16 kHz, in [-1, 1]. Silent before the sound starts and after it ends.
        """
        return self[uri].waveform(start, stop)

    def sound(self, uri: str) -> np.ndarray:
        """Sound of a whole file, in whole frames: (640 x frames,) float32 array; 16 kHz."""
        return self.waveform(uri, 0, self[uri].index["samples"] // SAMPLES_PER_FRAME)

    def verify(self) -> dict[str, str]:
        """Read everything and compare checksums.

        Returns
        -------
        damaged : dict
            Description of the damage, by uri; empty if there is none. To repair a shard, delete
            its folder and build the store again.
        """
        damaged = {}
        for uri in self.uris:
            try:
                reason = self[uri].verify()
            except (OSError, ValueError, KeyError) as error:
                reason = str(error)
            if reason:
                damaged[uri] = reason
        return damaged
