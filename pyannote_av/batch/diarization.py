"""Batch work that runs a diarization pipeline on each file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyannote_av.batch.identity import pipeline_identity
from pyannote_av.batch.jobs import Job, Made
from pyannote_av.batch.progress import ProgressFile
from pyannote_av.core.checksums import digest
from pyannote_av.core.summary import in_one_line, summarize
from pyannote_av.core.workers import PIPELINE_IMPORTS

if TYPE_CHECKING:
    from pyannote.core import Annotation

FORMATS = ("rttm", "json")


@dataclass
class Diarize:
    """Writes ``<name>.rttm`` and ``<name>.json`` for every file.

    Parameters
    ----------
    pipeline : str
        Name or folder, as for ``Pipeline.from_pretrained``.
    formats : sequence of {"rttm", "json"}
    device : str
    trust : bool
        Allow the pipeline to name any class, and its checkpoints to be unpickled.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such pipeline.
    """

    pipeline: str
    formats: Sequence[str] = FORMATS
    device: str = "cpu"
    trust: bool = False
    verb: str = field(default="diarizing", init=False)

    def __post_init__(self):
        # use an absolute path, because workers may have another working directory
        if Path(self.pipeline).exists() and not _is_shipped(self.pipeline):
            self.pipeline = str(Path(self.pipeline).absolute())
        parts = ["diarize", pipeline_identity(self.pipeline), *self.formats]
        if self.trust:
            parts.append("trust")
        self.identity = digest([json.dumps(parts).encode()])
        self.imports = PIPELINE_IMPORTS if self.device == "cpu" else ()
        self._loaded: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None}

    def load(self) -> None:
        """See :class:`~pyannote_av.batch.jobs.Work`."""
        import torch

        from pyannote_av import Pipeline

        self._loaded = Pipeline.from_pretrained(self.pipeline, trust=self.trust)
        self._loaded.to(torch.device(self.device))

    def outputs(self, name: str, every: bool = False) -> list[str]:
        """See :class:`~pyannote_av.batch.jobs.Work`."""
        return [f"{name}.{kind}" for kind in (FORMATS if every else self.formats)]

    def process(self, job: Job, folder: Path) -> Made:
        """See :class:`~pyannote_av.batch.jobs.Work`."""
        from pyannote_av.formats.json import write_json
        from pyannote_av.formats.rttm import write_rttm

        hook = ProgressFile(folder, job.name, video=_looks_at_pictures(self._loaded))
        output = self._loaded(job.file, hook=hook, **job.options)
        turns = getattr(output, "speaker_diarization", output)
        if "rttm" in self.formats:
            write_rttm(turns, folder / f"{job.name}.rttm")
        if "json" in self.formats:
            write_json(output, folder / f"{job.name}.json")
        report = getattr(output, "report", None)
        whole = hasattr(output, "speaker_diarization")
        used = " with the picture" if report is not None and report.video_used else ""
        return Made(
            self.outputs(job.name),
            f"{len(turns.labels())} speakers{used}" + (f", {in_one_line(output)}" if whole else ""),
            report.problems if report is not None else (),
            summary=summarize(output) if whole else (),
        )


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


def _is_shipped(name: str) -> bool:
    from pyannote_av.pretrained import shipped

    return name in shipped()
