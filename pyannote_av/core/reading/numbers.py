"""Numbers in data files."""

from __future__ import annotations

import math
from typing import Any

#: seconds that a time may be away from 0: eleven days, longer than any recording
LONGEST = 1e6


def decimal(text: str) -> float:
    """Number in plain ASCII digits; raises ValueError for anything else, NaN and infinities too."""
    if not text.isascii() or "_" in text or not math.isfinite(value := float(text)):
        raise ValueError(f"{text!r} is no finite number")
    return value


def whole(value: Any, low: int, high: int, what: str) -> int:
    """`value` if it is an int from `low` to `high`; raises ValueError that names it otherwise."""
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{what} is {value!r}, where a whole number from {low} to {high} is meant")
    return value
