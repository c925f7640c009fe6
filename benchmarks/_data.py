"""What benchmarks read: recordings, videos made from the sample, stores of faces, conversations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch

    from pyannote_av.core.tracks import FaceTracks, TrackSegment
    from pyannote_av.data.crop_shard import Shard
    from pyannote_av.pipelines.active_speaker_detection import ActiveSpeakerDetection

MEDIA = {".mp4", ".mkv", ".mpg", ".avi", ".wav", ".flac"}
#: crops in a segment of a track, at most
SEGMENT = 300


def existing(path: Path, what: str = "data") -> Path:
    """The path; raises FileNotFoundError if it does not exist."""
    if not path.exists():
        raise FileNotFoundError(f"{what} missing: {path} (see --help for the content of DATA)")
    return path


def clips(data: Path, groups: Iterable[str], only: Sequence[str] | None = None) -> list[Path]:
    """Media files in ``DATA/clips/GROUP``, or those whose name without suffix is in `only`."""
    folders = [existing(data / "clips" / group, "clips") for group in groups]
    found = [path for folder in folders for path in sorted(folder.iterdir())]
    found = [path for path in found if path.suffix.lower() in MEDIA]
    return [path for path in found if not only or path.stem in only]


def cut_sample(folder: Path, count: int, seconds: int = 1) -> list[Path]:
    """Write short videos, ``000.mp4`` and so on, each from another moment of the sample file."""
    from pyannote.core import Segment

    from pyannote_av.core.grid import SAMPLE_RATE
    from pyannote_av.core.io import Video
    from pyannote_av.simulation.encoding import encode
    from pyannote_av.simulation.sample import SIZE, sample

    video, paths = Video(), []
    sound = video.waveform(sample()).numpy()[0]
    folder.mkdir(parents=True, exist_ok=True)
    step = min(1.0, (len(sound) / SAMPLE_RATE - seconds) / count)
    for k in range(count):
        pictures, _ = video.crop(sample(), Segment(k * step, k * step + seconds))
        first = round(k * step * SAMPLE_RATE)
        own = sound[first : first + seconds * SAMPLE_RATE]
        paths.append(folder / f"{k:03d}.mp4")
        encode(paths[-1], enumerate(pictures), own, SIZE, compression=20)
    return paths


def write_joinable(
    path: Path,
    pictures: Iterable[np.ndarray],
    sound: np.ndarray,
    size: tuple[int, int],
    rate: int = 25,
) -> None:
    """Write H.264 video and PCM sound as MKV; :func:`join_copies` can join copies of the file.

    Parameters
    ----------
    pictures : iterable of (H, W, 3) uint8
        RGB, at `rate` Hz.
    sound : (N,) float
        Sound at 16 kHz.
    size : (int, int)
        Width and height.
    rate : int, optional
    """
    import av
    import numpy as np

    from pyannote_av.core.atomic import replacing
    from pyannote_av.core.grid import SAMPLE_RATE

    pcm = (sound.clip(-1, 1) * 32767).astype(np.int16)
    step = SAMPLE_RATE // rate
    with replacing(path) as temporary, av.open(str(temporary), "w") as container:
        video = container.add_stream("libx264", rate=rate)
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        # without frames that refer to later ones, copies can be joined
        video.options = {"preset": "veryfast", "bf": "0"}
        audio = container.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number
            container.mux(video.encode(frame))
            samples = pcm[None, number * step : (number + 1) * step]
            if not samples.size:
                continue
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate, frame.pts = SAMPLE_RATE, number * step
            container.mux(audio.encode(frame))
        for stream in (video, audio):
            container.mux(stream.encode(None))


def join_copies(part: Path, times: int, seconds: float, path: Path) -> None:
    """Join copies of a file of :func:`write_joinable`, `seconds` long each, without decoding."""
    import av

    from pyannote_av.core.atomic import replacing

    with (
        av.open(str(part)) as source,
        replacing(path) as temporary,
        av.open(str(temporary), "w") as target,
    ):
        streams = {s.index: target.add_stream_from_template(s) for s in source.streams}
        for turn in range(times):
            source.seek(0)
            for packet in source.demux():
                if packet.dts is None:
                    continue
                shift = round(turn * seconds / packet.time_base)
                packet.dts, packet.pts = packet.dts + shift, packet.pts + shift
                packet.stream = streams[packet.stream.index]
                target.mux(packet)


def split_screen(path: Path, faces: int, size: tuple[int, int], seconds: int) -> None:
    """Write a joinable video of the sample's two people in panels, with the sample's sound.

    Faces beyond two are copies of them, mirrored or not, whose video is 8 s, 16 s ... ahead: their
    lips do not move with the sound.

    Parameters
    ----------
    faces : int
    size : (int, int)
        Width and height in pixels, even. Panels fill as much of it as their shape allows.
    seconds : int
        Duration, at most that of the sample.
    """
    import cv2
    import numpy as np

    from pyannote_av.core.grid import SAMPLE_RATE
    from pyannote_av.core.io import Video
    from pyannote_av.simulation.sample import SIZE, sample

    video = Video()
    rows = 1 if faces <= 3 else 2
    columns = -(-faces // rows)
    cell = size[0] // columns, size[1] // rows
    half = SIZE[0] // 2
    scale = min(cell[0] / half, cell[1] / SIZE[1])
    panel = round(half * scale), round(SIZE[1] * scale)
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR

    def pair(ahead: int) -> Iterator[np.ndarray]:
        start = 8 * ahead % seconds
        spans = [(start, seconds), (0, start)] if start else [(0, seconds)]
        for first, last in spans:
            for frame in video.frames(sample(), first, last):
                yield frame.image[:, ::-1] if ahead % 2 else frame.image

    def pictures() -> Iterator[np.ndarray]:
        for pairs in zip(*map(pair, range(-(-faces // 2))), strict=True):
            canvas = np.zeros((size[1], size[0], 3), np.uint8)
            for k in range(faces):
                person = pairs[k // 2][:, half * (k % 2) : half * (k % 2 + 1)]
                left = k % columns * cell[0] + (cell[0] - panel[0]) // 2
                top = k // columns * cell[1] + (cell[1] - panel[1]) // 2
                resized = cv2.resize(person, panel, interpolation=way)
                canvas[top : top + panel[1], left : left + panel[0]] = resized
            yield canvas

    sound = video.waveform(sample()).numpy()[0, : seconds * SAMPLE_RATE]
    write_joinable(path, pictures(), sound, size)


def write_wav(path: Path, video: Path) -> None:
    """Write the sound of a video as 16 kHz mono 16-bit WAV."""
    import numpy as np
    from scipy.io import wavfile

    from pyannote_av.core.atomic import replacing
    from pyannote_av.core.grid import SAMPLE_RATE
    from pyannote_av.core.io import Video

    sound = Video().waveform(str(video)).numpy()[0]
    with replacing(path) as temporary:
        wavfile.write(temporary, SAMPLE_RATE, (sound.clip(-1, 1) * 32767).astype(np.int16))


def ami(data: Path, limit: int | None = None) -> list[dict]:
    """Excerpts of AMI meetings in ``DATA/ami``: audio only, so everybody is off-screen."""
    from pyannote.database.util import load_rttm, load_uem

    folder, files = existing(data / "ami", "excerpts"), []
    for subset in ("train", "development", "test"):
        turns = load_rttm(folder / f"debug.{subset}.rttm")
        maps = load_uem(folder / f"debug.{subset}.uem")
        files += [
            {
                "uri": uri,
                "subset": subset,
                "audio": str(folder / f"{uri}.flac"),
                "annotation": turns[uri],
                "annotated": maps[uri],
            }
            for uri in sorted(maps)
            if (folder / f"{uri}.flac").is_file()
        ]
    return files[:limit]


def meeting_table(data: Path) -> list[dict]:
    """``DATA/clips/several/meeting_table``: two women at a table."""
    from pyannote.core import Segment, Timeline
    from pyannote.database.util import load_rttm

    from pyannote_av.core.io import Video

    path = existing(data / "clips" / "several" / "meeting_table.mp4", "clip")
    duration = Video().get_duration(str(path))
    file = {
        "uri": path.stem,
        "video": str(path),
        "annotation": next(iter(load_rttm(path.with_suffix(".rttm")).values())),
        "annotated": Timeline([Segment(0, duration)]),
    }
    return [file]


def protocol(corpus: Path):
    """The protocol of a corpus that ``recipes.simulated.corpus`` made."""
    from pyannote.database import registry

    registry.load_database(existing(corpus / "database.yml", "corpus"))
    return registry.get_protocol("Simulated.SpeakerDiarization.Simulated")


def stored_segments(shard: Shard) -> Iterator[TrackSegment]:
    """Face tracks of a stored file, as face tracking passes them on."""
    from pyannote_av.core.tracks import TrackSegment

    for track, start, length, _ in shard.pieces.tolist():
        for first in range(start, start + length, SEGMENT):
            last = min(start + length, first + SEGMENT)
            yield TrackSegment(track, first, *shard.crops(track, first, last))


def score_faces(
    pipeline: ActiveSpeakerDetection,
    waveform: torch.Tensor,
    segments: Iterable[TrackSegment],
    tracks: FaceTracks,
) -> tuple[FaceTracks, tuple[float, float]]:
    """Score faces that have been found and cropped already.

    Returns
    -------
    tracks : FaceTracks
        With speaking scores.
    offset : (float, float)
        Audio-visual offset in seconds, and its confidence.
    """
    from pyannote_av.pipelines.speaking_scores import estimate_offset

    collector = pipeline.collector(waveform)
    for segment in segments:
        collector.update(segment)
    scores = collector.compute()
    return pipeline.add_scores(tracks, scores), estimate_offset(scores, pipeline.smoothing)
