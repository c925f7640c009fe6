"""How far work on a collection is, and how long it will take."""

from __future__ import annotations

from typing import Any


class Progress:
    """Bars on the terminal, one after the other; nothing where they are not wanted.

    Time left is reckoned by the duration of the media, not by their number.

    Parameters
    ----------
    shown : bool
    """

    def __init__(self, shown: bool):
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
            # a few long files say more of the speed than the last seconds do
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not shown,
            speed_estimate_period=3600,
            transient=True,
        )
        self._task: Any = None

    def begin(self, what: str, files: int, seconds: float | None = None) -> None:
        """Start a bar.

        Parameters
        ----------
        what : str
        files : int
            How many there are.
        seconds : float, optional
            Of media, where that is what takes time.
        """
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._of, self._done, self._failed = files, 0, 0
        self._task = self._bars.add_task(what, total=seconds or files, files=self._text())

    def advance(self, amount: float, failed: bool = False) -> None:
        """One file is over.

        Parameters
        ----------
        amount : float
            Of what the bar is made of: its duration, or 1.
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
