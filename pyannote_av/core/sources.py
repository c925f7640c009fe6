"""Decoding of the pictures of a file with PyAV or decord"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np

from pyannote_av.core.decoding import JUMP, SHORT, Damage, decode
from pyannote_av.core.display import PQ, Scaler, orientation_of, show, square_size
from pyannote_av.core.files import MediaError
from pyannote_av.core.media import MediaInfo, faults, is_too_large, open_media
from pyannote_av.core.pictures import TOLERANCE, Filtering, FrameSource, Picture, Pixels
from pyannote_av.core.text import printable

logger = logging.getLogger(__name__)


class _Clock:
    """Times of the decoded pictures of one pass"""

    def __init__(self, info: MediaInfo):
        self.info = info
        self._step = 1 / info.video.frame_rate
        self._next = info.video.start
        self._first_dts: int | None = None

    def __call__(self, frame) -> float:
        """Time of a picture in seconds; one without timestamp follows the previous picture"""
        time = self._next
        if self.info.format == "avi":
            # AVI stores no presentation times. With B-frames, ffmpeg's guess puts pictures out of
            # order; decoding times are regular.
            if frame.dts is not None:
                self._first_dts = frame.dts if self._first_dts is None else self._first_dts
                ticks = frame.dts - self._first_dts
                time = self.info.video.start + float(ticks * frame.time_base)
        elif frame.pts is not None:
            time = float(frame.pts * frame.time_base) - self.info.origin
        self._next = time + self._step
        return time


class PyAVSource:
    """Pictures decoded by PyAV (ffmpeg), which reads any container, even if damaged"""

    # containers with exact seeking thanks to an index; others are decoded from their beginning
    SEEKABLE = ("mov", "matroska", "mpegts")

    def __init__(self, info: MediaInfo):
        self.info = info
        self.damage = Damage()
        self.notes: list[str] = []
        self._scaler = Scaler()

    def __call__(self, start: float = 0.0) -> Iterator[Picture]:
        """See :class:`~pyannote_av.core.pictures.FrameSource`."""
        stream = self.info.video
        # times in the index are those of the first of several recordings
        seekable = self.info.format.split(",")[0] in self.SEEKABLE and not self.info.joints
        if seekable and start > stream.start + 1.0:
            # the index may point after `start`; in that case seek further back
            for margin in (0.0, 10.0):
                pictures = self._decode(start - margin)
                picture = next(pictures, None)
                if picture is not None and picture.time <= start:
                    yield picture
                    yield from pictures
                    return
                pictures.close()
        yield from self._decode(None)

    def _decode(self, start: float | None) -> Iterator[Picture]:
        """Pictures from the key picture before `start`, or from the beginning"""
        info, stream = self.info, self.info.video
        self.damage = damage = Damage.of(info, start or 0.0)
        with open_media(info.path) as container:
            source = container.streams[stream.index]
            source.thread_type = "AUTO"
            if start is not None:
                try:
                    offset = math.floor((start + info.origin) / source.time_base)
                    container.seek(offset, stream=source)
                except faults():
                    return
            step, size = 1 / stream.frame_rate, (stream.width, stream.height)
            # with a variable rate, the time between pictures is arbitrary
            tolerance = max(SHORT, 3 * step) if stream.constant_rate else math.inf
            clock, shapes = _Clock(info), _Shapes(info)
            self.notes = shapes.notes
            previous = -math.inf
            waiting = start is not None
            for frame in decode(container, source, damage, info):
                # pictures before the first key picture may depend on pictures not decoded
                if waiting and not frame.key_frame:
                    continue
                waiting = False
                if is_too_large(frame.width, frame.height):
                    damage.error()
                    continue
                time = clock(frame)
                if time <= previous:
                    damage.misplace()
                    continue
                if not damage.accepts(time, info.duration):
                    continue
                if frame.is_corrupt:
                    damage.error()
                previous = time
                length = float((frame.duration or 0) * frame.time_base)
                # some containers give a duration of one tick if they know none
                length = max(length, step) if stream.constant_rate else length or step
                if time + length > info.duration + JUMP:
                    damage.misplace()
                    length = max(info.duration - time, 0.0)
                damage.advance(time, time + length, tolerance)
                aspect = shapes.aspect(frame, source.codec_context, time)
                yield Picture(time, length, size, partial(self._convert, frame, aspect))

    def _convert(
        self,
        frame,
        aspect: Fraction,
        pixels: Pixels,
        size: tuple[int, int],
        filtering: Filtering,
    ) -> np.ndarray:
        """See :class:`~pyannote_av.core.pictures.Convert`."""
        way = orientation_of(frame)
        try:
            return show(frame, size, aspect, way, self._scaler, pixels, filtering)
        except faults() as error:
            kind = {"rgb24": "RGB", "gray": "grey"}[pixels]
            raise MediaError(
                f"video stream of {self.info.path}: pictures of the format {frame.format.name} "
                f"cannot be converted to {kind} ({error}): convert the file to another codec"
            ) from error


class _Shapes:
    """Sizes of the decoded pictures of one pass; `notes` says when they change"""

    def __init__(self, info: MediaInfo):
        self.notes: list[str] = []
        self._info = info
        self._known: dict[tuple, tuple[int, int]] = {}

    def aspect(self, frame, context, time: float) -> Fraction:
        """Width of a pixel of the picture divided by its height

        The container declares it for the whole stream. If the ratio that the decoder reports
        changes, that one is used, as in television, where films in 4:3 and 16:9 follow each other.
        """
        stream = self._info.video
        coded = context.sample_aspect_ratio or Fraction(1)
        aspect = stream.pixel_aspect if coded == stream.coded_aspect else coded
        key = (frame.width, frame.height, aspect)
        if key not in self._known:
            size = square_size(*key)
            self._known[key] = size
            if len(self._known) == 2:
                first, second = (f"{width}x{height}" for width, height in self._known.values())
                self.notes.append(
                    f"video stream of {self._info.path} changes the size of its pictures from "
                    f"{first} to {second} at {time:.2f} s: all are shown within "
                    f"{stream.width}x{stream.height}"
                )
        return aspect


class DecordSource:
    """Pictures decoded by decord, for files that `trusts` accepts; if it fails, PyAV takes over

    decord puts the first picture at time 0, so its times are shifted by the probed start. It is
    known to hang on files that hold fewer pictures than they declare
    (https://github.com/dmlc/decord/issues/373), refuses truncated files, and loses timestamps in
    AVI. It ships its own, old FFmpeg, to which the limits set here do not apply. Use PyAV for files
    of unknown origin.

    Raises
    ------
    RuntimeError
        If decord cannot open the file, or if its count or times of pictures contradict the header.
    """

    def __init__(self, info: MediaInfo):
        import decord

        self.info = info
        self.damage = Damage()
        self.notes: list[str] = []
        self._errors = (decord.DECORDError, RuntimeError, IndexError)
        try:
            # an absolute path cannot be mistaken for a protocol ("concat:...")
            path = str(Path(info.path).absolute())
            self._reader = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
        except self._errors as error:
            raise RuntimeError(_brief(error)) from error
        stream = info.video
        count = len(self._reader)
        times = np.asarray(self._reader.get_frame_timestamp(range(count)), np.float64)[:, 0]
        self._times = times - times[0] + stream.start
        expected = stream.start + np.arange(count) / stream.frame_rate
        if count != stream.num_frames or np.abs(self._times - expected).max() > 2 * TOLERANCE:
            raise RuntimeError("its count or times of pictures differ from those of the header")

    @staticmethod
    def trusts(info: MediaInfo) -> bool:
        """Whether the header declares count, duration and a constant rate that agree

        Pictures that need more than turning are left to PyAV, and so are files of several video
        streams, of which decord chooses another one.
        """
        stream = info.video
        single = sum(one.kind == "video" for one in info.streams) == 1
        plain = not stream.mirrored and not stream.interlaced and stream.transfer != PQ
        return (
            plain
            and single
            and stream.pixel_aspect == 1
            and stream.num_frames is not None
            and stream.duration is not None
            and stream.constant_rate
            and abs(stream.num_frames - stream.duration * stream.frame_rate) <= 1.0
        )

    def __call__(self, start: float = 0.0) -> Iterator[Picture]:
        """See :class:`~pyannote_av.core.pictures.FrameSource`."""
        self.damage = Damage()
        step = 1 / self.info.video.frame_rate
        first = max(int(np.searchsorted(self._times, start + TOLERANCE, side="right")) - 1, 0)
        for index in range(first, len(self._times)):
            try:
                # one by one, because batches keep many pictures in memory
                image = self._reader[index].asnumpy()
            except self._errors as error:
                yield from self._go_on(index, first, start, error)
                return
            time = float(self._times[index])
            self.damage.end = time + step
            yield Picture.of(image, time, step)

    def _go_on(self, index: int, first: int, start: float, error: Exception) -> Iterator[Picture]:
        """Decode the remaining pictures, from `index` on, with PyAV"""
        time = float(self._times[index])
        logger.warning(
            "%s is read with PyAV from %.2f s on: decord failed (%s)",
            printable(self.info.path),
            time,
            _brief(error),
        )
        source = PyAVSource(self.info)
        for picture in source(start if index == first else time):
            self.damage, self.notes = source.damage, source.notes
            if index == first or picture.time > time - TOLERANCE:
                yield picture
        self.damage, self.notes = source.damage, source.notes


def open_source(info: MediaInfo, backend: str = "auto") -> FrameSource:
    """Source for the pictures of a file

    Parameters
    ----------
    info : MediaInfo
    backend : {"auto", "pyav", "decord"}
        See `pyannote_av.core.io.Video`.
    """
    if backend != "decord":
        return PyAVSource(info)
    if not DecordSource.trusts(info):
        logger.warning(
            "%s is read with PyAV: decord needs a constant rate, a declared count of pictures, one "
            "video stream, square pixels, and pictures neither mirrored nor interlaced",
            printable(info.path),
        )
        return PyAVSource(info)
    try:
        return DecordSource(info)
    except ImportError as error:
        raise MediaError(
            "backend='decord' needs decord, which is not installed: `pip install decord`, or use "
            "backend='pyav'"
        ) from error
    except RuntimeError as error:
        logger.warning("%s is read with PyAV: decord cannot (%s)", printable(info.path), error)
        return PyAVSource(info)


def _brief(error: Exception) -> str:
    """Last line of a message of decord; the other lines are a stack trace"""
    return printable((str(error).strip().splitlines() or [type(error).__name__])[-1])
