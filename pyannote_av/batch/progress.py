"""Progress bars of batch processing, with the estimated remaining time.

Within a file, workers write their progress to a small file beside its unfinished outputs, a few
times a second at most. The process with the progress bars reads these files, so that it sees
workers in other processes and on other machines too.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

#: file with the progress of a worker, beside the outputs that it writes
PROGRESS = ".progress"

_OFTEN = 0.4  # seconds between two updates
_LARGEST = 4096  # bytes of a file of progress

# share of the processing time that is over when a step begins and ends, measured roughly
_AUDIO = {"segmentation": (0.0, 0.5), "embeddings": (0.5, 1.0)}
_VIDEO = {
    "segmentation": (0.0, 0.12),
    "embeddings": (0.12, 0.25),
    "face_tracking": (0.25, 0.8),
    "fusion": (0.8, 0.8),
    # the second pass of pipelines with target speakers
    "second segmentation": (0.8, 1.0),
}


class InFile(NamedTuple):
    """Progress within a file.

    Attributes
    ----------
    name : str
        Name of the file.
    step : str
        What is done now.
    done : float
        Share of the step, from 0 to 1.
    share : float
        Share of the whole work on the file, from 0 to 1.
    """

    name: str
    step: str
    done: float
    share: float


class ProgressFile:
    """Hook of a pipeline that writes its progress to a folder.

    Parameters
    ----------
    folder : Path
    name : str
        Name of the file that is processed.
    video : bool
        Whether the pipeline looks at pictures.
    """

    def __init__(self, folder: Path, name: str, video: bool):
        self._path, self._name = folder / PROGRESS, name
        self._steps = _VIDEO if video else _AUDIO
        self._share = 0.0
        self._fused = False
        self._next = 0.0

    def __call__(
        self,
        step: str,
        artifact: Any = None,
        file: Any = None,
        total: float | None = None,
        completed: float | None = None,
    ) -> None:
        """See the hooks of pyannote.audio."""
        done = 1.0 if not total or completed is None else completed / total
        self._fused |= step == "fusion"
        known = f"second {step}" if self._fused and f"second {step}" in self._steps else step
        begin, end = self._steps.get(known, (self._share, self._share))
        self._share = max(self._share, begin + min(done, 1.0) * (end - begin))
        if monotonic() < self._next:
            return
        self._next = monotonic() + _OFTEN
        content = {"name": self._name, "step": step, "done": done, "share": self._share}
        # a disk that is full stops the work elsewhere
        with suppress(OSError):
            new = self._path.with_suffix(".new")
            new.write_text(json.dumps(content), encoding="utf-8")
            os.replace(new, self._path)


def read_progress(unfinished: Path) -> list[InFile]:
    """Progress of all workers.

    Parameters
    ----------
    unfinished : Path
        Folder of the folders that workers write to.
    """
    found = []
    with suppress(OSError):
        for folder in sorted(unfinished.iterdir()):
            with suppress(OSError, ValueError, TypeError, KeyError):
                with open(folder / PROGRESS, "rb") as opened:
                    content = json.loads(opened.read(_LARGEST))
                step, numbers = content["step"], (float(content["done"]), float(content["share"]))
                done, share = (min(max(number, 0.0), 1.0) for number in numbers)
                found.append(InFile(str(content["name"]), str(step), done, share))
    return found


class Progress:
    """Consecutive progress bars on the terminal, or none if they are disabled.

    The remaining time is estimated from the duration of the media, not from the number of files.

    Parameters
    ----------
    visible : bool
    """

    def __init__(self, visible: bool):
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bars

        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[files]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            # use the overall speed: with few long files, the most recent speed varies too much
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not visible,
            speed_estimate_period=3600,
            transient=True,
        )
        self._task: Any = None
        self._visible = visible
        self._finished = 0.0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._watcher: threading.Thread | None = None

    def begin(self, what: str, files: int, seconds: float | None = None) -> None:
        """Start a progress bar.

        Parameters
        ----------
        what : str
        files : int
            Number of files.
        seconds : float, optional
            Duration of the media, if the processing time depends on it.
        """
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._of, self._done, self._failed = files, 0, 0
        self._finished = 0.0
        self._task = self._bars.add_task(what, total=seconds or files, files=self._text())

    def advance(self, amount: float, failed: bool = False) -> None:
        """Advance by one file.

        Parameters
        ----------
        amount : float
            Duration of the file, or 1 if the bar counts files.
        failed : bool, optional
        """
        self._done += 1
        self._failed += failed
        with self._lock:
            self._finished += amount
            self._bars.update(self._task, completed=self._finished, files=self._text())

    def watch(self, unfinished: Path, seconds: Mapping[str, float]) -> None:
        """Show progress within files, from now on.

        Parameters
        ----------
        unfinished : Path
            See :func:`read_progress`.
        seconds : dict of str to float
            Duration of each file, by name.
        """
        if not self._visible:
            return

        def look() -> None:
            while not self._stop.wait(_OFTEN):
                self.show(
                    [one for one in read_progress(unfinished) if one.name in seconds], seconds
                )

        self._watcher = threading.Thread(target=look, daemon=True)
        self._watcher.start()

    def show(self, files: list[InFile], seconds: Mapping[str, float]) -> None:
        """Show the progress of files that are processed now; see :meth:`watch`."""
        from rich.markup import escape

        with self._lock:
            partly = sum(one.share * seconds[one.name] for one in files)
            text = self._text()
            if files:
                one = files[0]
                step, length = escape(one.step.replace("_", " ")), seconds[one.name]
                text += f", {step} {one.done * length:.0f}/{length:.0f} s"
            # a bar that goes back confuses
            before = next(task.completed for task in self._bars.tasks if task.id == self._task)
            now = max(before, self._finished + partly)
            self._bars.update(self._task, completed=now, files=text)

    def _text(self) -> str:
        text = f"{self._done}/{self._of} files"
        return f"{text}, {self._failed} failed" if self._failed else text

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        if self._watcher is not None:
            self._watcher.join()
        self._bars.stop()
