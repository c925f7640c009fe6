"""Output of pipelines: turns, speaker embeddings, face tracks, and a report."""

from __future__ import annotations

import tempfile
import webbrowser
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from pyannote.audio.pipelines.speaker_diarization import DiarizeOutput

from pyannote_av.core.output_format import FORMAT, VERSION, list_turns
from pyannote_av.core.speaker_renaming import check_names, rename_embeddings, rename_turns
from pyannote_av.core.turn_tables import turn_table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from pyannote.core import Annotation

    from pyannote_av.core.posteriors import SpeakerPosteriors
    from pyannote_av.core.tracks import FaceTracks
    from pyannote_av.core.transcript import Transcript


@dataclass
class Report:
    """How a result was obtained.

    Attributes
    ----------
    video_used : bool
        Whether the video changed or confirmed anything in the final result.
    reasons : list of str
        Why the video was or was not used, in sentences.
    problems : list of str
        Damage and oddities found in the file.
    streams : list of dict
        Streams of the file, which of them were used and why; see
        :meth:`pyannote_av.Video.streams`.
    components : dict
        Detector, scorer, embedder and audio pipeline that were used.
    numbers : dict
        Figures on which decisions are based (face coverage, A/V offset, ...), see ``late_fusion``.
    ignored_regions : list of dict
        Speech for which only the audio is evidence. Keys: ``start``, ``end``, ``reason``.
    changes : list of str
        Changes that fusion made to the audio-only result (splits, merges, relabelled seconds).
    seconds : dict
        Wall-clock seconds per stage. Stages follow one another.
    parallel_seconds : dict
        Wall-clock seconds of work that another thread does during a stage.
    duration : float
        Duration of the file in seconds.
    """

    video_used: bool = False
    reasons: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    streams: list[dict[str, Any]] = field(default_factory=list)
    components: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    ignored_regions: list[dict[str, Any]] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    parallel_seconds: dict[str, float] = field(default_factory=dict)
    duration: float = 0.0

    @classmethod
    def of_file(cls, file: Mapping[str, Any]) -> Report:
        """Start the report of a file prepared by ``prepare_one``.

        Parameters
        ----------
        file : mapping
            With ``waveform`` and ``sample_rate``. ``problems``, ``streams`` and
            ``decoding_seconds`` are optional, and are copied.
        """
        report = cls(
            problems=list(file.get("problems", [])),
            streams=list(file.get("streams", [])),
            duration=file["waveform"].shape[-1] / file["sample_rate"],
        )
        if "decoding_seconds" in file:
            report.seconds["decoding of the sound"] = file["decoding_seconds"]
        return report

    @property
    def real_time_factor(self) -> float:
        """Processing time divided by the duration of the file."""
        return sum(self.seconds.values()) / self.duration if self.duration else float("nan")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time spent inside the ``with`` block to stage `name`."""
        start = perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + perf_counter() - start

    def add_parallel(self, name: str, seconds: float) -> None:
        """Add `seconds` that another thread spent on `name`."""
        self.parallel_seconds[name] = self.parallel_seconds.get(name, 0.0) + seconds

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain containers that JSON can hold."""
        content = asdict(self)
        content["numbers"] = {k: round(float(v), 4) for k, v in self.numbers.items()}
        for times in ("seconds", "parallel_seconds"):
            content[times] = {k: round(v, 3) for k, v in content[times].items()}
        content["duration"] = round(self.duration, 3)
        if self.duration and self.seconds:
            # of the values that are written, so that a report that was read again says the same
            total = sum(content["seconds"].values())
            content["real_time_factor"] = round(total / (content["duration"] or self.duration), 4)
        return content

    def __str__(self) -> str:
        lines = [f"video used: {'yes' if self.video_used else 'no'}"]
        lines += [f"  {reason}" for reason in self.reasons]
        lines += [f"  change: {change}" for change in self.changes]
        lines += [
            f"  audio only from {r['start']:.2f} s to {r['end']:.2f} s: {r['reason']}"
            for r in self.ignored_regions
        ]
        lines += [f"problem: {problem}" for problem in self.problems]
        lines += [
            f"{stream['kind']}: stream {stream['index']}, {stream['reason']}"
            for stream in self.streams
            if stream["used"]
        ]
        lines += [f"{name}: {value}" for name, value in self.components.items()]
        lines += [f"{name}: {value:.3g}" for name, value in self.numbers.items()]
        stages = ", ".join(f"{name} {value:.1f}" for name, value in self.seconds.items())
        if self.duration and self.seconds:
            lines.append(f"seconds: {stages} (real-time factor {self.real_time_factor:.2f})")
        if self.parallel_seconds:
            stages = ", ".join(
                f"{name} {value:.1f}" for name, value in self.parallel_seconds.items()
            )
            lines.append(f"seconds of another thread: {stages}")
        return "\n".join(lines)


@dataclass(repr=False)
class AVDiarizeOutput(DiarizeOutput):
    """pyannote's diarization output, with faces and a report.

    Attributes
    ----------
    speaker_diarization, exclusive_speaker_diarization : Annotation
        With and without overlapping turns.
    speaker_embeddings : (num_speakers, dimension) array or None
        In the order of ``speaker_diarization.labels()``. NaN for speakers without an embedding.
    face_tracks : FaceTracks or None
        Where each face is in the picture, labelled with the same speakers.
    report : Report or None
    audio_only : Annotation or None
        Diarization from the audio alone.
    posteriors : SpeakerPosteriors or None
        Probabilities of the speakers of the audio alone. They are not written to files.
    provenance : dict of (segment, track) to dict
        Per turn of ``speaker_diarization``: ``confidence`` in [0, 1], or None if only the audio
        pipeline supports the turn, and ``modality`` (``"audio"``, ``"video"`` or
        ``"audio+video"``), the evidence that identified the speaker.
    transcript : Transcript or None
        What is said, if it was added; see :func:`pyannote_av.assign_speakers`.

    Methods of pyannote's ``Annotation``, such as ``itertracks``, are those of
    ``speaker_diarization``: pyannote.audio 3 returned an ``Annotation``.
    """

    face_tracks: FaceTracks | None = None
    report: Report | None = None
    audio_only: Annotation | None = None
    provenance: dict[tuple, dict[str, Any]] = field(default_factory=dict)
    transcript: Transcript | None = None
    posteriors: SpeakerPosteriors | None = None

    def serialize(self) -> dict[str, Any]:
        """Convert to plain containers that JSON can hold, a superset of pyannote's format."""
        content = {
            "format": FORMAT,
            "version": VERSION,
            "uri": self.speaker_diarization.uri,
            **super().serialize(),
        }
        content["speakers"] = self.speaker_diarization.labels()
        turns = self.speaker_diarization.itertracks(yield_label=True)
        for entry, (segment, track, _) in zip(content["diarization"], turns, strict=True):
            entry.update(self.provenance.get((segment, track), {}))
        if self.audio_only is not None:
            content["audio_only"] = list_turns(self.audio_only)
        if self.face_tracks is not None:
            content["face_tracks"] = self.face_tracks.to_dict()
        if self.report is not None:
            content["report"] = self.report.to_dict()
        if self.transcript is not None:
            content["transcript"] = self.transcript.to_dict()
        return content

    def __repr__(self) -> str:
        turns, report = self.speaker_diarization, self.report
        facts = [
            f"{turns.uri}",
            _count(len(turns.labels()), "speaker"),
            _count(sum(1 for _ in turns.itertracks()), "turn"),
            f"{turns.get_timeline().duration():.1f} s of speech",
        ]
        if report is not None and report.duration:
            facts[-1] += f" in {report.duration:.1f} s"
        if self.face_tracks is not None:
            facts.append(_count(len(self.face_tracks.tracks), "face track"))
        return f"<{type(self).__name__} {', '.join(facts)}>"

    def to_pandas(self) -> pd.DataFrame:
        """Table with one row per turn.

        Columns are ``uri``, ``start``, ``end`` and ``duration`` (seconds, to the millisecond),
        ``speaker``, ``confidence`` (NaN where unknown) and ``modality`` (None where unknown).
        """
        return turn_table(self.speaker_diarization, self.provenance)

    def rename(self, names: Mapping[str, str], merge: bool = False) -> AVDiarizeOutput:
        """Same result with renamed speakers: turns, face tracks, transcript and embeddings.

        Parameters
        ----------
        names : mapping of str to str
            New name by label. Labels that are missing keep their name. All names are replaced at
            once, so that ``{"A": "B", "B": "A"}`` swaps two speakers.
        merge : bool, optional
            Make one speaker of all those that get the same name. Their turns are kept as they are,
            even where they overlap. Their embedding is the mean of their embeddings, weighted by
            seconds of speech.

        Raises
        ------
        ValueError
            When a label does not exist, or when two speakers get one name without `merge`.
        """
        turns = self.speaker_diarization
        check_names(turns.labels(), names, merge)

        def renamed(annotation: Annotation | None) -> Annotation | None:
            return None if annotation is None else rename_turns(annotation, names)

        embeddings = self.speaker_embeddings
        return replace(
            self,
            speaker_diarization=renamed(turns),
            exclusive_speaker_diarization=renamed(self.exclusive_speaker_diarization),
            speaker_embeddings=(
                None if embeddings is None else rename_embeddings(embeddings, turns, names)
            ),
            face_tracks=None if self.face_tracks is None else self.face_tracks.relabel(names),
            audio_only=renamed(self.audio_only),
            provenance=dict(self.provenance),
            transcript=None if self.transcript is None else self.transcript.rename(names),
            posteriors=None if self.posteriors is None else self.posteriors.rename(names),
        )

    def view(
        self,
        video: str | Path | None = None,
        path: str | Path | None = None,
        open_browser: bool = True,
        **options: Any,
    ) -> Path:
        """Write a page that plays and corrects the result, and open it.

        Parameters
        ----------
        video : str or Path, optional
            Recording that the page plays.
        path : str or Path, optional
            The page. By default, it is in a new temporary folder.
        open_browser : bool, optional
        **options
            See :func:`~pyannote_av.player.page.write_page`.

        Returns
        -------
        path : Path
        """
        from pyannote_av.player.page import write_page

        if path is None:
            stem = Path(self.speaker_diarization.uri or "recording").name
            path = Path(tempfile.mkdtemp(prefix="pyannote-av-")) / f"{stem}.html"
        page = write_page(self, path, video, **options)
        if open_browser:
            webbrowser.open(page.absolute().as_uri())
        return page

    def __getattr__(self, name: str) -> Any:
        """Methods and attributes of ``speaker_diarization``, which pyannote.audio 3 returned."""
        turns = self.__dict__.get("speaker_diarization")
        if turns is None or name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(turns, name)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the turns; see :func:`pyannote_av.core.notebook.plot`."""
        from pyannote_av.core.notebook import plot

        return plot(self, ax)

    def _repr_html_(self) -> str:
        """Timeline and report for notebooks."""
        from pyannote_av.core.notebook import output_html

        return output_html(self)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
