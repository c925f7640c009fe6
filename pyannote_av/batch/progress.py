"""Progress bars of batch processing, with the estimated remaining time."""

from __future__ import annotations

from typing import Any


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
        self._bars.update(self._task, advance=amount, files=self._text())

    def _text(self) -> str:
        text = f"{self._done}/{self._of} files"
        return f"{text}, {self._failed} failed" if self._failed else text

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bars.stop()
