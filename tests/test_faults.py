"""Faults of pictures, tracks and whole files come out as the table says."""

import re

import faults
import media
import numpy as np
import pytest
from faults_picture import FAULTS

from pyannote_av.core.io import MediaError, Video


def told(read, problems):
    """What is read, or None and the reason among the problems"""
    try:
        return read(problems)
    except MediaError as error:
        problems.append(str(error))
        return None


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.id)
def test_fault(tmp_path, fault):
    path = fault.make(tmp_path)
    content = path.read_bytes()
    video, problems = Video(), []
    frames = told(lambda problems: list(video.frames(path, problems=problems)), problems)
    waveform = told(lambda problems: video.waveform(path, problems), problems)

    if fault.pictures is None:
        assert not frames
    else:
        shown = frames[-1].time - frames[0].time + 0.04
        assert shown == pytest.approx(fault.pictures, abs=max(0.1, 0.25 * fault.pictures))
        stream = video.probe(path).video
        assert {f.image.shape for f in frames} == {(stream.height, stream.width, 3)}
        assert fault.size in (None, (stream.width, stream.height))
    if fault.sound is None:
        assert waveform is None
    else:
        assert waveform.shape[1] / 16000 == pytest.approx(fault.sound, abs=0.25 * fault.sound)
        assert np.isfinite(waveform.numpy()).all()
    if fault.tones is not None:
        levels = {f: media.level_of(waveform, f) for f in (440, 880, 1320)}
        assert {f for f, level in levels.items() if level > 0.1} == set(fault.tones)
    if fault.message is None:
        assert problems == []
    else:
        assert any(fault.message in problem for problem in problems), problems
    assert all(problem.isprintable() for problem in problems)
    assert path.read_bytes() == content


def test_rows_are_distinct():
    names = [row.id for _, rows in faults.lists() for row in rows]
    assert len(set(names)) == len(names)
    assert len(FAULTS) >= 40
    assert all(re.fullmatch(r"[a-z0-9-]+", name) for name in names)


def test_the_page_has_the_rows():
    assert faults.PAGE.read_text(encoding="utf-8") == faults.page(faults.lists()), (
        "run `python tests/faults.py`"
    )
