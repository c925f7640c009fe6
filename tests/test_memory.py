"""Memory that is given back"""

import gc
import platform
from pathlib import Path

import numpy as np
import pytest

from pyannote_av.core.memory import release_freed

PAGE, ARRAY, COUNT = 4096, 100_000, 2000


def resident() -> int:
    return PAGE * int(Path("/proc/self/statm").read_text().split()[1])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs the C library of GNU")
def test_gaps_between_arrays_that_are_kept():
    pairs = [(np.ones(ARRAY, np.uint8), np.ones(64, np.uint8)) for _ in range(COUNT)]
    kept = [small for _, small in pairs]
    del pairs
    gc.collect()
    before = resident()
    release_freed()
    assert before - resident() > ARRAY * COUNT / 2
    assert all(small.all() for small in kept)
