"""Systems whose time is compared: our pipelines, and what is usually used instead.

A system is a callable that diarizes a :class:`Medium` and returns an :class:`Outcome`. Functions of
``SYSTEMS`` load one.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import torch
    from pyannote.core import Annotation

    from pyannote_av.core.output import Report
    from pyannote_av.core.tracks import TrackSegment

#: shipped pipelines that are compared
OURS = ("audio", "late_fusion", "hmsanet")
#: shipped pipelines that cluster windows
WINDOWS = ("avrnet", "cysmsd", "similarity", "enrolment", "joint", "vbx")


@dataclass(frozen=True)
class Medium:
    """A video, and its sound as 16 kHz mono 16-bit WAV."""

    name: str
    path: Path
    wav: Path
    seconds: float


class Outcome(NamedTuple):
    """Number of speakers found, and a report with the seconds of each stage."""

    speakers: int
    report: Report


System = Callable[[Medium], Outcome]


@dataclass(frozen=True)
class Settings:
    """What systems need to know.

    Attributes
    ----------
    threads : int
        Threads of torch and OpenCV.
    weights : Path, optional
        Folder with the public weights of Light-ASD or LR-ASD.
    """

    threads: int
    weights: Path | None = None

    def apply(self) -> None:
        """Set the number of threads, which some systems change."""
        import cv2
        import torch

        torch.set_num_threads(self.threads)
        cv2.setNumThreads(self.threads)


def load(name: str, settings: Settings) -> System:
    """Load a system by its name in ``SYSTEMS``."""
    settings.apply()
    return SYSTEMS[name](settings)


# ------------------------------------------------------------------------------------ ours


def load_ours(settings: Settings, name: str) -> System:
    """A shipped pipeline, which gets the path of the video."""
    from pyannote_av import Pipeline

    pipeline = Pipeline.from_pretrained(name)

    def diarize(medium: Medium) -> Outcome:
        output = pipeline(str(medium.path))
        return Outcome(len(output.speaker_diarization.labels()), output.report)

    return diarize


# ------------------------------------------------------------------------------------ stock audio


def stock_pipeline(ours, segmentation_step: float | None = None):
    """pyannote's pipeline with the models and hyper-parameters of `ours`.

    Parameters
    ----------
    ours : AudioDiarization
    segmentation_step : float, optional
        Defaults to that of `ours`.
    """
    from pyannote.audio.core.plda import PLDA
    from pyannote.audio.pipelines import SpeakerDiarization

    stock = SpeakerDiarization(
        segmentation=ours.segmentation_model,
        segmentation_step=segmentation_step or ours.segmentation_step,
        embedding=ours.embedding,
        embedding_exclude_overlap=ours.embedding_exclude_overlap,
        plda=PLDA.__new__(PLDA),  # required but not used
        clustering="AgglomerativeClustering",
    )
    return stock.instantiate(ours.parameters(instantiated=True))


class Stock:
    """pyannote's audio pipeline, with the weights and settings of ours.

    Parameters
    ----------
    segmentation_step : float, optional
        Step between chunks, as a ratio of their duration. Defaults to that of our pipeline.
    """

    def __init__(self, segmentation_step: float | None = None):
        from pyannote_av.pipelines.audio_diarization import AudioDiarization

        ours = AudioDiarization()
        ours.instantiate(ours.default_parameters())
        self._pipeline = stock_pipeline(ours, segmentation_step)
        self.name = f"pyannote, step {self._pipeline.segmentation_step:g}"

    def diarize(self, waveform: torch.Tensor) -> Annotation:
        """Diarize a waveform (1, num_samples) at 16 kHz."""
        from pyannote_av.core.grid import SAMPLE_RATE

        sound = {"waveform": waveform, "sample_rate": SAMPLE_RATE, "uri": "sound"}
        return self._pipeline(sound).speaker_diarization

    def __call__(self, medium: Medium) -> Outcome:
        """Decode the sound of a video with our reader, and diarize it."""
        from pyannote_av.core.io import Video
        from pyannote_av.core.output import Report

        report = Report(duration=medium.seconds, components={"audio": self.name})
        with report.stage("decoding of the sound"):
            waveform = Video().waveform(str(medium.path))
        with report.stage("audio"):
            turns = self.diarize(waveform)
        return Outcome(len(turns.labels()), report)


# ------------------------------------------------------------------------------------ senko


def load_senko(settings: Settings) -> System:
    """senko on CPU, which gets the WAV file."""
    import senko

    from pyannote_av.core.output import Report

    # it prints the type of its device even if asked to be quiet
    with redirect_stdout(StringIO()):
        diarizer = senko.Diarizer(device="cpu", warmup=True, quiet=True)
    diarizer.logical_cores = settings.threads

    def diarize(medium: Medium) -> Outcome:
        report = Report(duration=medium.seconds, components={"audio": "senko"})
        with report.stage("audio"), redirect_stdout(StringIO()):
            found = diarizer.diarize(str(medium.wav))
        # None in silence
        return Outcome(found["merged_speakers_detected"] if found else 0, report)

    return diarize


# ------------------------------------------------------------------------------------ naive chain


def published_scorer(folder: Path | None):
    """Scorer with the public weights of Light-ASD, or of LR-ASD if only those are there.

    Raises
    ------
    MissingWeightsError
        If neither is there.
    """
    from pyannote_av.core import weights
    from pyannote_av.models.active_speaker.scorers import get_scorer

    for name in ("light-asd", "lr-asd"):
        own = [folder / each for each in weights.REGISTRY[name].filenames] if folder else []
        for path in [*own, weights.find(name)]:
            if path is not None and path.is_file():
                return get_scorer(path)
    return get_scorer("light-asd")


class WholeTracks:
    """Collector of all crops of each face track."""

    def __init__(self):
        self._segments: dict[int, list[TrackSegment]] = {}

    def update(self, segment: TrackSegment) -> None:
        """Keep the crops of a part of a face track."""
        self._segments.setdefault(segment.track, []).append(segment)

    def compute(self) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """First frame, crops (T, 112, 112) and presence (T,) of each track."""
        return [
            (
                parts[0].start,
                np.concatenate([part.crops for part in parts]),
                np.concatenate([part.present for part in parts]),
            )
            for parts in self._segments.values()
        ]


class NaiveChain:
    """The chain that is usually built from public parts.

    The face detector runs on every picture. Light-ASD scores every face whenever it is visible,
    each track as a whole. pyannote's pipeline diarizes the sound. Face identities, and the
    association of faces with speakers, are left out.

    Parameters
    ----------
    detector : str
    weights : Path, optional
        See :func:`published_scorer`.
    """

    def __init__(self, detector: str, weights: Path | None):
        from pyannote_av.vision.detection import get_detector

        self._scorer = published_scorer(weights)
        self._detector = get_detector(detector)
        self._audio = Stock()

    def __call__(self, medium: Medium) -> Outcome:
        """Diarize a video and score its faces."""
        from pyannote_av.core.io import Video
        from pyannote_av.core.output import Report
        from pyannote_av.vision.streaming import DetectionPass
        from pyannote_av.vision.tracking import Tracker

        class EveryPicture(Tracker):
            """A tracker that does not wait longer for steady faces"""

            due = 1

        report = Report(duration=medium.seconds)
        report.components = {
            "audio": self._audio.name,
            "face detector": self._detector.name,
            "scorer": self._scorer.name,
        }
        with report.stage("decoding of the sound"):
            waveform = Video().waveform(str(medium.path))
        with report.stage("audio"):
            turns = self._audio.diarize(waveform)
        with report.stage("faces"):
            tracks = WholeTracks()
            tracker = EveryPicture(min_confidence=self._detector.min_confidence, stride=1)
            with DetectionPass(self._detector, tracker, [tracks]) as faces:
                for frame in Video().frames(str(medium.path)):
                    faces.update(frame)
                faces.finish()
        with report.stage("speaking scores"):
            for start, crops, present in tracks.compute():
                self._scorer(sound_of(waveform, start, len(crops)), crops, present)
        return Outcome(len(turns.labels()), report)


def sound_of(waveform: torch.Tensor, start: int, count: int) -> torch.Tensor:
    """Sound (1, num_samples) of `count` pictures from grid index `start`, padded with silence."""
    import torch

    from pyannote_av.core.grid import SAMPLES_PER_FRAME

    sound = waveform[:, SAMPLES_PER_FRAME * start : SAMPLES_PER_FRAME * (start + count)]
    return torch.nn.functional.pad(sound, (0, SAMPLES_PER_FRAME * count - sound.shape[1]))


#: functions that load a system
SYSTEMS: dict[str, Callable[[Settings], System]] = {
    **{name: partial(load_ours, name=name) for name in (*OURS, *WINDOWS)},
    "stock": lambda settings: Stock(),
    "stock-0.1": lambda settings: Stock(segmentation_step=0.1),
    "senko": load_senko,
    "naive": lambda settings: NaiveChain("auto", settings.weights),
    "naive-mtcnn": lambda settings: NaiveChain("mtcnn", settings.weights),
}
