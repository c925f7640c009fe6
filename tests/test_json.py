"""JSON results: what is written is read again, and anything else is refused with a reason."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyannote.core import Annotation, Segment

from pyannote_av.core.output import AVDiarizeOutput, Report
from pyannote_av.core.reading import ReadError
from pyannote_av.core.tracks import FaceTracks
from pyannote_av.formats.json import from_dict, read_json, write_json


def annotation(*turns, uri="talk") -> Annotation:
    made = Annotation(uri=uri)
    for number, (start, end, speaker) in enumerate(turns):
        made[Segment(start, end), number] = speaker
    return made


@pytest.fixture
def output() -> AVDiarizeOutput:
    """Two speakers at the same time, with everything that an output can hold."""
    turns = annotation((0.0, 2.5, "B"), (0.0, 2.5, "A"), (3.25, 4.0, "A"))
    first = next(turns.itertracks())
    time = np.arange(10) / 25
    tracks = FaceTracks(
        time=np.r_[time, time + 1],
        track=np.repeat([3, 7], 10),
        box=np.tile([0.1, 0.2, 0.3, 0.45], (20, 1)),
        speaking=np.r_[np.full(10, 1.5), np.full(10, np.nan)],
        speaker={3: "A"},
        uri="talk",
        frame_size=(640, 360),
    )
    report = Report(
        video_used=True,
        reasons=["one face speaks"],
        ignored_regions=[{"start": 1.0, "end": 2.0, "reason": "no face"}],
        numbers={"face_share": 0.5},
        seconds={"audio": 1.25},
        duration=10.0,
    )
    return AVDiarizeOutput(
        turns,
        annotation((0.0, 2.5, "B"), (3.25, 4.0, "A")),
        face_tracks=tracks,
        report=report,
        audio_only=annotation((0.0, 2.0, "A")),
        provenance={first: {"confidence": 0.75, "modality": "audio+video"}},
    )


@pytest.mark.parametrize("name", ["talk.json", "talk.json.gz"])
def test_what_is_written_is_read_again(output, name, tmp_path):
    path = write_json(output, tmp_path / "talk.json")
    if name.endswith(".gz"):
        path = tmp_path / name
        path.write_bytes(gzip.compress((tmp_path / "talk.json").read_bytes()))
    again = read_json(path)
    assert again.serialize() == output.serialize()
    assert again.speaker_diarization.uri == "talk"
    assert list(again.exclusive_speaker_diarization.itertracks(yield_label=True))[1][0] == Segment(
        3.25, 4.0
    )
    assert again.audio_only.labels() == ["A"]
    assert list(again.provenance.values()) == [{"confidence": 0.75, "modality": "audio+video"}]
    assert again.face_tracks.speaker == {3: "A"}
    assert again.face_tracks.frame_size == (640, 360)
    assert again.report.ignored_regions == output.report.ignored_regions


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(st.integers(0, 9999), st.integers(10, 9999), st.sampled_from("ABC\u05d0<")),
        max_size=20,
    )
)
def test_any_turns_are_read_again(turns):
    turns = annotation(*((s / 1000, (s + n) / 1000, name) for s, n, name in turns))
    content = AVDiarizeOutput(turns, turns).serialize()
    assert from_dict(json.loads(json.dumps(content))).serialize() == content


def test_other_writers_of_the_format(tmp_path):
    """pyannote.audio's own files, and those of older versions, lack some keys."""
    path = tmp_path / "talk.json"
    turns = [{"start": 0.5, "end": 1, "speaker": "A"}]
    path.write_text(json.dumps({"diarization": turns, "exclusive_diarization": turns}))
    again = read_json(path)
    assert again.speaker_diarization.uri == "talk"
    assert again.report is again.face_tracks is again.audio_only is None
    path.write_text(json.dumps({"uri": "x", "diarization": turns}))
    assert read_json(path).exclusive_speaker_diarization.labels() == ["A"]


TURN = {"start": 0.0, "end": 1.0, "speaker": "A"}
REFUSED = {
    "whisper": ({"text": "", "segments": [], "language": "en"}, "such as those of Whisper"),
    "whisperx": ({"segments": [], "word_segments": []}, "transcript of WhisperX"),
    "faces": ({"uri": "x", "frame_rate": 25, "tracks": []}, "face tracks"),
    "names": ({"names": {}}, "names of speakers"),
    "anything": ({"a": 1}, "it has no 'diarization' .*'a'"),
    "list": ([TURN], "not a result of diarization, but a list"),
    "newer": ({"diarization": [], "version": 2}, "version 2 .* reads version 1: update"),
    "format": ({"diarization": [], "format": "x"}, "format 'x'"),
    "uri": ({"diarization": [], "uri": 3}, "uri must be text"),
    "turns": ({"diarization": {"a": 1}}, "diarization: a list of turns"),
    "no-end": ({"diarization": [TURN, {"start": 1, "speaker": "A"}]}, "turn 1 .*no 'end'"),
    "text": ({"diarization": ["A"]}, "diarization, turn 0 is not a turn"),
    "speaker": ({"diarization": [{**TURN, "speaker": None}]}, "turn 0: a speaker is called None"),
    "bool": ({"diarization": [{**TURN, "end": True}]}, "turn 0: end is True"),
    "late": ({"diarization": [{**TURN, "end": 1e7}]}, "turn 0: end is 1"),
    "backward": (
        {"audio_only": [{**TURN, "start": 2}], "diarization": []},
        "only, turn 0 ends",
    ),
    "report": ({"diarization": [], "report": {"duration": "x"}}, "report: duration cannot be 'x'"),
    "report-list": ({"diarization": [], "report": []}, "report: a mapping"),
    "tracks": ({"diarization": [], "face_tracks": {}}, "face_tracks: .*no 'tracks'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_files_are_refused_with_a_reason(case, tmp_path):
    content, says = REFUSED[case]
    path = tmp_path / "other.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ReadError, match=says) as caught:
        read_json(path)
    assert str(caught.value).startswith(str(path))


def test_a_truncated_file_is_named(output, tmp_path):
    path = write_json(output, tmp_path / "talk.json")
    text = path.read_text()
    for length in {1, len(text) - 2, *range(10, len(text) - 2, 97)}:
        path.write_text(text[:length])
        with pytest.raises(ReadError, match=r"talk\.json is truncated"):
            read_json(path)
    path.write_text(text[:200] + "!" + text[200:])
    with pytest.raises(ReadError, match=r"talk\.json, line 1"):
        read_json(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such file: .*talk\.json"):
        read_json(tmp_path / "talk.json")
