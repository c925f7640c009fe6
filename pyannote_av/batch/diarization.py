"""Batch work that runs a diarization pipeline on each file."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyannote_av.batch.identity import pipeline_identity
from pyannote_av.batch.jobs import Job, Made
from pyannote_av.batch.progress import ProgressFile
from pyannote_av.core.checksums import digest
from pyannote_av.core.summary import in_one_line, summarize
from pyannote_av.core.workers import PIPELINE_IMPORTS
from pyannote_av.formats import registry

if TYPE_CHECKING:
    from pyannote.core import Annotation

#: formats that can be written, and those that are written by default
FORMATS, DEFAULT_FORMATS = (*registry.WRITTEN, "html"), ("rttm", "json", "html")


@dataclass
class Diarize:
    """Writes ``<name>.rttm``, ``<name>.json`` and the page ``<name>.html``, or other formats.

    Jobs may have a column ``transcript``, the path of a transcript whose words get speakers.

    Parameters
    ----------
    pipeline : str
        Name or folder, as for ``Pipeline.from_pretrained``.
    formats : sequence of str
        Some of :data:`FORMATS`.
    device : str
    trust : bool
        Allow the pipeline to name any class, and its checkpoints to be unpickled.
    segmentation : str, optional
        Weights to use in place of those of the pipeline.
    names : mapping of str to str
        New names of speakers, by label. Labels that a file lacks are noted with its problems.
    into : Path, optional
        Folder of results, to which the paths of recordings in pages are relative.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such pipeline or format.
    """

    pipeline: str
    formats: Sequence[str] = DEFAULT_FORMATS
    device: str = "cpu"
    trust: bool = False
    segmentation: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    into: Path | None = None
    verb: str = field(default="diarizing", init=False)

    def __post_init__(self):
        if unknown := [name for name in self.formats if name not in FORMATS]:
            raise ValueError(f"unknown format: {unknown[0]!r}; there are {', '.join(FORMATS)}")
        # use an absolute path, because workers may have another working directory
        if Path(self.pipeline).exists() and not _is_shipped(self.pipeline):
            self.pipeline = str(Path(self.pipeline).absolute())
        if self.segmentation is not None and Path(self.segmentation).exists():
            self.segmentation = str(Path(self.segmentation).absolute())
        identity = pipeline_identity(self.pipeline, **self._arguments())
        parts = ["diarize", identity, *self.formats]
        if self.trust:
            parts.append("trust")
        if self.names:
            parts.append(json.dumps(dict(self.names), sort_keys=True))
        if (kind := self.device.partition(":")[0]) != "cpu":
            parts.append(kind)  # results of a GPU differ slightly
        self.identity = digest([json.dumps(parts).encode()])
        self.imports = PIPELINE_IMPORTS if self.device == "cpu" else ()
        self._loaded: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None}

    def load(self) -> None:
        """See :class:`~pyannote_av.batch.jobs.Work`."""
        import torch

        from pyannote_av import Pipeline

        self._loaded = Pipeline.from_pretrained(
            self.pipeline, trust=self.trust, **self._arguments()
        )
        self._loaded.to(torch.device(self.device))

    def _arguments(self) -> dict[str, Any]:
        return {} if self.segmentation is None else {"segmentation": self.segmentation}

    def outputs(self, name: str, every: bool = False) -> list[str]:
        """See :class:`~pyannote_av.batch.jobs.Work`."""
        return [_file_name(name, one) for one in (FORMATS if every else self.formats)]

    def process(self, job: Job, folder: Path) -> Made:
        """See :class:`~pyannote_av.batch.jobs.Work`."""
        from pyannote_av.formats.content import Content

        columns = {name: value for name, value in job.columns.items() if name != "transcript"}
        options = dict(job.options)
        if _takes_hook(self._loaded):
            options["hook"] = ProgressFile(folder, job.name, video=_looks_at_pictures(self._loaded))
        output = self._loaded(replace(job, columns=columns).file, **options)
        report = getattr(output, "report", None)
        problems = list(report.problems) if report is not None else []
        output, notes = self._named(output, job.columns.get("transcript"))
        content = replace(Content.of(output), media=_media(job))
        for one in self.formats:
            if one == "html":
                self._write_page(output, job, folder)
                continue
            # outputs of pipelines write JSON themselves
            whole = output if one == "json" else content
            registry.write(whole, folder / _file_name(job.name, one), one)
        used = " with the picture" if report is not None and report.video_used else ""
        note = f"{len(content.speaker_diarization.labels())} speakers{used}"
        return Made(
            self.outputs(job.name),
            f"{note}, {in_one_line(content)}",
            [*problems, *notes],
            summary=summarize(content),
        )

    def _named(self, output: Any, transcript: Path | None) -> tuple[Any, list[str]]:
        """Output with words and names, and notes about what they lack"""
        from pyannote_av import assign_speakers
        from pyannote_av.formats.content import Content
        from pyannote_av.formats.transcripts import read_transcript

        notes = []
        if not hasattr(output, "transcript") and (transcript is not None or self.names):
            output = Content.of(output)
        if transcript is not None:
            words = assign_speakers(read_transcript(transcript), output)
            output = replace(output, transcript=words)
            if unknown := sum(word.speaker is None for word in words.words):
                notes.append(f"{unknown} words of {transcript} have no speaker")
        if self.names:
            labels = output.speaker_diarization.labels()
            if absent := [label for label in self.names if label not in labels]:
                notes.append(f"there is no speaker {', '.join(absent)} to name")
            output = output.rename({k: v for k, v in self.names.items() if k in labels})
        return output, notes

    def _write_page(self, output: Any, job: Job, folder: Path) -> None:
        from pyannote_av.player.page import write_page

        # results are moved from `folder` to `into`, names may have folders
        place = None if self.into is None else (self.into.absolute() / job.name).parent
        write_page(output, folder / f"{job.name}.html", _media(job), folder=place)


def _takes_hook(pipeline: Any) -> bool:
    """Whether a pipeline reports its progress"""
    parameters = inspect.signature(pipeline.apply).parameters.values()
    return any(one.name == "hook" or one.kind is one.VAR_KEYWORD for one in parameters)


def _looks_at_pictures(pipeline: Any) -> bool:
    """Whether a pipeline has a part that tracks faces"""
    return any(hasattr(pipeline, part) for part in ("faces", "first_pass", "active_speaker"))


def read_turns_of(folder: Path, name: str) -> Annotation:
    """Turns that :class:`Diarize` wrote for a file."""
    from pyannote_av.formats.annotations import read_rttm

    # RTTM names have no white space, but file names may
    (turns,) = read_rttm(folder / f"{name}.rttm").values()
    turns.uri = name
    return turns


def _file_name(name: str, format: str) -> str:
    """Name of the output of a job in a format"""
    return f"{name}.html" if format == "html" else f"{name}{registry.FORMATS[format].suffix}"


def _media(job: Job) -> Path | None:
    """The file that people would open beside the result"""
    path = job.media.get("video") or job.media.get("audio")
    return None if path is None else Path(path)


def _is_shipped(name: str) -> bool:
    from pyannote_av.pretrained import shipped

    return name in shipped()
