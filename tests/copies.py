"""The simplest work of a batch, in a module that other processes import at once."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from conversations import voice, write_wav

from pyannote_av.batch.jobs import Job, Made


class Copy:
    """Media are copied, slowly if asked for."""

    verb = "copying"

    def __init__(self, identity="copy", seconds=0.0, into_folder=False):
        self.identity, self.seconds, self.into_folder = identity, seconds, into_folder

    def load(self):
        if self.identity == "unready":
            raise FileNotFoundError("no weights")

    def outputs(self, name: str, every: bool = False) -> list[str]:
        return [f"parts/{name}"] if self.into_folder else [f"{name}.copy"]

    def process(self, job: Job, folder: Path) -> Made:
        time.sleep(self.seconds)
        if job.options.get("num_speakers") == 13:
            raise ValueError("13 is too many")
        if self.into_folder:
            (folder / "parts" / job.name).mkdir(parents=True)
            shutil.copy(job.media["audio"], folder / "parts" / job.name / "index.json")
            return Made(self.outputs(job.name))
        shutil.copy(job.media["audio"], folder / f"{job.name}.copy")
        note = f"copied on {os.environ.get('CUDA_VISIBLE_DEVICES', 'CPU')}"
        return Made(self.outputs(job.name), note, ["odd"] if "2" in job.name else [])


def make_jobs(folder: Path, count: int) -> list[Job]:
    for i in range(count):
        write_wav(folder / f"file{i}.wav", voice(90 + i, 1.5, i))
    return [Job(f"file{i}", {"audio": str(folder / f"file{i}.wav")}) for i in range(count)]
