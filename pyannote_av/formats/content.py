"""What a file of results holds, whatever its format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyannote.core import Annotation, Segment

from pyannote_av.core.output_format import FORMAT, VERSION, list_turns
from pyannote_av.core.reading import ReadError
from pyannote_av.core.speaker_renaming import check_names, rename_turns
from pyannote_av.core.transcript import Cue, Transcript

if TYPE_CHECKING:
    from pyannote_av.core.tracks import FaceTracks

#: what speakers are called in files of cues if nobody is known to say a cue
UNKNOWN = "(unknown)"


@dataclass
class Content:
    """Result of diarization as it is read from files and written to them, without torch.

    Attributes
    ----------
    speaker_diarization : Annotation
    provenance : dict of (segment, track) to dict
        ``confidence`` and ``modality`` of turns; see
        :class:`~pyannote_av.core.output.AVDiarizeOutput`.
    transcript : Transcript or None
    face_tracks : FaceTracks or None
    exclusive_speaker_diarization, audio_only : Annotation or None
    report : dict or None
        See :meth:`pyannote_av.Report.to_dict`.
    media : Path or None
        Media file, to which some formats refer.
    """

    speaker_diarization: Annotation
    provenance: dict[tuple, dict[str, Any]] = field(default_factory=dict)
    transcript: Transcript | None = None
    face_tracks: FaceTracks | None = None
    exclusive_speaker_diarization: Annotation | None = None
    audio_only: Annotation | None = None
    report: dict[str, Any] | None = None
    media: Path | None = None

    @classmethod
    def of(cls, output: Any) -> Content:
        """Content of an output of a pipeline, an annotation, a transcript or face tracks.

        Raises
        ------
        TypeError
            For anything else.
        """
        if isinstance(output, cls):
            return output
        if isinstance(output, Annotation):
            return cls(output)
        if isinstance(output, Transcript):
            return cls.of_cues(output.cues, output.uri, output.language)
        if hasattr(output, "track_slice"):
            return cls(Annotation(uri=output.uri), face_tracks=output)
        if not isinstance(getattr(output, "speaker_diarization", None), Annotation):
            raise TypeError(f"a result of diarization is expected, not {type(output).__name__}")
        report = getattr(output, "report", None)
        return cls(
            output.speaker_diarization,
            provenance=getattr(output, "provenance", {}),
            transcript=getattr(output, "transcript", None),
            face_tracks=getattr(output, "face_tracks", None),
            exclusive_speaker_diarization=output.exclusive_speaker_diarization,
            audio_only=getattr(output, "audio_only", None),
            report=None if report is None else report.to_dict(),
        )

    @classmethod
    def of_cues(
        cls, cues: Sequence[Cue], uri: str | None = None, language: str | None = None
    ) -> Content:
        """Content of cues: each cue with a speaker is a turn.

        If no cue has a text, apart from the name of its speaker, there is no transcript.
        """
        transcript = Transcript(list(cues), uri, language)
        turns = Annotation(uri=uri)
        utterances = transcript.utterances()
        width = len(str(len(utterances)))
        for number, cue in enumerate(utterances):
            # annotations refuse segments without duration
            if cue.speaker is not None and (segment := Segment(cue.start, cue.end)):
                turns[segment, f"{number:0{width}}"] = cue.speaker
        if all(cue.text in ("", cue.speaker) for cue in cues):
            return cls(turns)
        return cls(turns, transcript=transcript)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], where: str = "diarization") -> Content:
        """Content of what ``output.serialize()`` returns; turns have been checked.

        Parameters
        ----------
        content : mapping
            See :func:`pyannote_av.formats.json.read_content`.
        where : str, optional
            Name of the source, for error messages.

        Raises
        ------
        ReadError
            When face tracks or the transcript are malformed.
        """
        from pyannote_av.core.tracks import FaceTracks
        from pyannote_av.formats.json import annotation_of
        from pyannote_av.formats.whisper import from_json

        uri = content.get("uri")
        turns, provenance = annotation_of(content["diarization"], uri)
        made = cls(turns, provenance, report=content.get("report"))
        if made.report is not None and not isinstance(made.report, Mapping):
            raise ReadError(f"{where}: the report is {type(made.report).__name__}, not a mapping")
        if "exclusive_diarization" in content:
            exclusive = annotation_of(content["exclusive_diarization"], uri)
            made.exclusive_speaker_diarization = exclusive[0]
        if "audio_only" in content:
            made.audio_only = annotation_of(content["audio_only"], uri)[0]
        if "face_tracks" in content:
            made.face_tracks = FaceTracks.from_dict(content["face_tracks"], f"{where}, face_tracks")
        if "transcript" in content:
            made.transcript = from_json(content["transcript"], f"{where}, transcript", uri)
        return made

    def serialize(self) -> dict[str, Any]:
        """Convert to plain containers that JSON can hold, as ``AVDiarizeOutput.serialize``."""
        turns = self.speaker_diarization
        content = {"format": FORMAT, "version": VERSION, "uri": turns.uri}
        content["diarization"] = list_turns(turns)
        for entry, (segment, track) in zip(content["diarization"], turns.itertracks(), strict=True):
            entry.update(self.provenance.get((segment, track), {}))
        if self.exclusive_speaker_diarization is not None:
            content["exclusive_diarization"] = list_turns(self.exclusive_speaker_diarization)
        content["speakers"] = turns.labels()
        if self.audio_only is not None:
            content["audio_only"] = list_turns(self.audio_only)
        if self.face_tracks is not None:
            content["face_tracks"] = self.face_tracks.to_dict()
        if self.report is not None:
            content["report"] = self.report
        if self.transcript is not None:
            content["transcript"] = self.transcript.to_dict()
        return content

    @property
    def uri(self) -> str | None:
        """Name of the file."""
        return self.speaker_diarization.uri

    @property
    def duration(self) -> float:
        """Duration of the file in seconds, or, if that is unknown, the end of the last turn."""
        if self.report is not None and self.report.get("duration"):
            return float(self.report["duration"])
        return self.end

    @property
    def end(self) -> float:
        """End of the last turn or cue, in seconds; 0 without any."""
        ends = [segment.end for segment in self.speaker_diarization.itersegments()]
        if self.transcript is not None:
            ends.append(self.transcript.end)
        return max(ends, default=0.0)

    def cues(self) -> list[Cue]:
        """The cues of the transcript, split by speaker, or else one cue without text per turn."""
        if self.transcript is not None:
            return self.transcript.utterances()
        turns = self.speaker_diarization.itertracks(yield_label=True)
        return [Cue(s.start, s.end, "", label) for s, _, label in turns]

    def rename(self, names: Mapping[str, str], merge: bool = False) -> Content:
        """Same content with renamed speakers; see ``AVDiarizeOutput.rename``."""
        check_names(self.speaker_diarization.labels(), names, merge)

        def renamed(turns: Annotation | None) -> Annotation | None:
            return None if turns is None else rename_turns(turns, names)

        return replace(
            self,
            speaker_diarization=rename_turns(self.speaker_diarization, names),
            exclusive_speaker_diarization=renamed(self.exclusive_speaker_diarization),
            audio_only=renamed(self.audio_only),
            face_tracks=None if self.face_tracks is None else self.face_tracks.relabel(names),
            transcript=None if self.transcript is None else self.transcript.rename(names),
        )


def by_speaker(cues: Sequence[Cue]) -> dict[str, list[Cue]]:
    """Cues of each speaker, none of which overlap, for formats with one tier per speaker.

    A cue ends where the next one of the same speaker begins. Cues that begin together are joined.
    Times are rounded to milliseconds, and a cue lasts at least one. Cues of nobody are listed as
    those of :data:`UNKNOWN`.
    """
    tiers: dict[str, list[Cue]] = {}
    for cue in sorted(cues, key=lambda cue: (cue.start, cue.end)):
        tier = tiers.setdefault(UNKNOWN if cue.speaker is None else cue.speaker, [])
        start = max(round(cue.start, 3), 0.0)
        cue = replace(cue, start=start, end=max(round(cue.end, 3), round(start + 0.001, 3)))
        if tier and cue.start < tier[-1].end:
            last = tier.pop()
            whole = max(cue.end, last.end)
            if cue.start == last.start:
                text = " ".join(filter(None, (last.text, cue.text)))
                cue = replace(cue, end=whole, text=text)
            elif not (cue.text or last.text):
                cue = replace(cue, start=last.start, end=whole)
            else:
                tier.append(replace(last, end=cue.start))
                cue = replace(cue, end=whole) if cue.end < last.end else cue
        tier.append(cue)
    return tiers
