"""Numbers of speakers that users give: numbers, or text from forms and tables"""

from __future__ import annotations

import math
import re
from typing import Any

#: largest number of speakers that can be asked for
MOST_SPEAKERS = 10_000


def number_of_speakers(value: Any, name: str = "num_speakers") -> int:
    """A number of speakers as an int. Text ("2") and whole floats (2.0) are accepted.

    Parameters
    ----------
    value : int, float or str
    name : str, optional
        Name of the argument, for the error.

    Raises
    ------
    ValueError
        If it is not a whole number of at least 1.
    """
    number = value
    if isinstance(value, str) and re.fullmatch(r"\s*\d{1,9}(\.0*)?\s*", value, re.ASCII):
        number = float(value)
    try:
        # numpy's numbers have no common class; True is not a number of speakers
        whole = int(number) if type(number) is not bool and not isinstance(number, str) else 0
        if whole == number and 1 <= whole <= MOST_SPEAKERS:
            return whole
    except (TypeError, ValueError, OverflowError, RuntimeError):
        pass
    raise ValueError(
        f"{name}: {value!r} is not a number of speakers. Give a whole number of at least 1, "
        "or None if it is unknown"
    )


def speaker_bounds(
    num_speakers: Any = None, min_speakers: Any = None, max_speakers: Any = None
) -> dict[str, int | None]:
    """Check the numbers of speakers that a pipeline is called with.

    Parameters
    ----------
    num_speakers, min_speakers, max_speakers : int, float, str or None
        An infinite `max_speakers` is no bound.

    Returns
    -------
    bounds : dict of str to int or None
        With the names of the parameters.

    Raises
    ------
    ValueError
        If one is not a number of speakers, or if they contradict one another.
    """
    if isinstance(max_speakers, float) and max_speakers == math.inf:
        max_speakers = None
    given = {
        "num_speakers": num_speakers,
        "min_speakers": min_speakers,
        "max_speakers": max_speakers,
    }
    bounds = {
        name: None if value is None else number_of_speakers(value, name)
        for name, value in given.items()
    }
    low, exact, high = bounds["min_speakers"], bounds["num_speakers"], bounds["max_speakers"]
    for less, more, first, second in (
        (low, high, "min_speakers", "max_speakers"),
        (low, exact, "min_speakers", "num_speakers"),
        (exact, high, "num_speakers", "max_speakers"),
    ):
        if less is not None and more is not None and less > more:
            raise ValueError(f"{first}={less} is more than {second}={more}")
    return bounds
