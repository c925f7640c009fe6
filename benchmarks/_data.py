"""What benchmarks read: real recordings and clips, stores of faces, simulated conversations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
