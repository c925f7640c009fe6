"""Atomic writing of one file of a store of face crops."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np

from pyannote_av.core.checksums import sha256_of
from pyannote_av.core.tracks import FaceSamples, FaceTracks, TrackSegment
from pyannote_av.data.crop_shard import ARRAYS, FORMAT, SIDE, shard_folder


class ShardWriter:
    """Writes crops as they arrive, and keeps only their positions in memory.

    Parameters
    ----------
    store : Path
        Folder of the store.
    uri : str
        File to write. It replaces the stored data of that file, if any.

    Examples
    --------
    >>> with ShardWriter(store, "interview") as shard:
    ...     for segment in crop_tracks(frames, tracks):
    ...         shard.add(segment)
    ...     shard.finish(tracks, sound, source={}, problems=[])
    """

    def __init__(self, store: Path, uri: str):
        self.uri, self.folder = uri, shard_folder(store, uri)
        self._partial = self.folder.with_name(f".{self.folder.name}.partial")
        self._pieces: list[tuple[int, int, int, int]] = []
        self._present: list[np.ndarray] = []
        self._count = 0

    def __enter__(self) -> ShardWriter:
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir(parents=True)
        self._file: IO[bytes] = open(self._partial / "crops.npy", "wb")
        self._header(0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        shutil.rmtree(self._partial, ignore_errors=True)

    def _header(self, count: int) -> None:
        # numpy reserves room for the first axis to grow, so rewriting the header keeps its size
        shape = {"descr": "|u1", "fortran_order": False, "shape": (count, SIDE, SIDE)}
        self._file.seek(0)
        np.lib.format.write_array_header_1_0(self._file, shape)

    def add(self, segment: TrackSegment) -> None:
        """Append the crops of a part of a track."""
        self._file.write(np.ascontiguousarray(segment.crops))
        self._pieces.append((segment.track, segment.start, len(segment), self._count))
        self._present.append(segment.present)
        self._count += len(segment)

    def finish(
        self,
        tracks: FaceTracks,
        sound: np.ndarray,
        source: Mapping[str, str],
        problems: Sequence[str],
        face_samples: FaceSamples | None = None,
    ) -> list[str]:
        """Complete the shard, and move it into the store.

        Parameters
        ----------
        tracks : FaceTracks
            On the 25 Hz grid. Their labels and speakers are not stored.
        sound : (samples,) int16 array
            At 16 kHz; empty if the file has no sound.
        source : mapping of str to str
            Fingerprints of the inputs that the content depends on.
        problems : sequence of str
            Problems found in the file so far, as sentences.
        face_samples : FaceSamples, optional
            Images of whole faces in colour.

        Returns
        -------
        problems : list of str
            The given problems, and those found while writing.
        """
        self._header(self._count)
        self._file.close()
        present = np.concatenate([np.zeros(0, bool), *self._present])
        np.save(self._partial / "present.npy", present)
        np.save(self._partial / "waveform.npy", sound)
        problems = list(problems)
        if missing := len(tracks) - int(present.sum()):
            problems.append(
                f"{missing} of {len(tracks)} boxes of file {self.uri!r} lie where the video has "
                "no picture"
            )
        where = replace(tracks, speaking=None, label=None, speaker={}, uri=self.uri)
        where.write(self._partial / "tracks.npz")
        arrays = list(ARRAYS)
        if face_samples is not None and len(face_samples.track):
            np.save(self._partial / "looks.npy", face_samples.vector)
            arrays.append("looks.npy")
        index = {
            "format": FORMAT,
            "uri": self.uri,
            "source": dict(source),
            "samples": len(sound),
            "problems": problems,
            "pieces": sorted(self._pieces),
            "sha256": {name: sha256_of(self._partial / name) for name in arrays},
        }
        if face_samples is not None:
            index["looks"] = np.stack([face_samples.track, face_samples.frame], axis=1).tolist()
        (self._partial / "index.json").write_text(json.dumps(index), encoding="utf-8")
        shutil.rmtree(self.folder, ignore_errors=True)
        os.replace(self._partial, self.folder)
        return problems


def to_int16(waveform: np.ndarray) -> np.ndarray:
    """Convert sound (samples,) in [-1, 1] to the format of the store."""
    return np.clip(np.rint(waveform * np.float32(32768)), -32768, 32767).astype(np.int16)
