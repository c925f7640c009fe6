"""Words of transcripts get the right speaker, and transcripts of all recognisers are read."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from pyannote.core import Annotation, Segment

from pyannote_av import assign_speakers
from pyannote_av.cli.apply import apply_all
from pyannote_av.core.tracks import FaceTracks
from pyannote_av.core.transcript import Cue, Transcript, Word
from pyannote_av.formats.annotations import read_rttm
from pyannote_av.formats.content import Content
from pyannote_av.formats.registry import read, write
from pyannote_av.formats.speaker_names import parse_names
from pyannote_av.formats.transcripts import read_transcript

SAMPLE = Path(find_spec("pyannote.audio").submodule_search_locations[0]) / "sample"


def whisper_of(reference: Annotation) -> tuple[dict, list[str]]:
    """JSON as Whisper writes it, of words of 0.25 s in the turns of a reference, and who says them.

    Segments are pauses apart, not speakers.
    """
    words = []
    for segment, _, speaker in reference.itertracks(yield_label=True):
        for start in np.arange(segment.start, max(segment.end - 0.2, segment.start + 0.01), 0.25):
            end = min(start + 0.25, segment.end)
            words.append((round(float(start), 2), round(float(end), 2), speaker))
    words.sort()
    segments: list[dict] = []
    for number, (start, end, _) in enumerate(words):
        if not segments or start > segments[-1]["end"] + 0.6:
            segments.append({"id": len(segments), "start": start, "end": end, "words": []})
        segments[-1]["end"] = max(segments[-1]["end"], end)
        entry = {"word": f" w{number}", "start": start, "end": end, "probability": 0.9}
        segments[-1]["words"].append(entry)
    for one in segments:
        one["text"] = "".join(word["word"] for word in one["words"])
    text = "".join(one["text"] for one in segments)
    content = {"text": text, "segments": segments, "language": "en"}
    return content, [speaker for _, _, speaker in words]


@pytest.fixture(scope="module")
def reference() -> Annotation:
    return read_rttm(SAMPLE / "sample.rttm")["sample"]


def faces_of(reference: Annotation, jitter: float = 3.0) -> FaceTracks:
    """A face per speaker, always visible, with scores that say who speaks"""
    time = np.arange(0, 30, 0.04)
    columns: dict[str, list] = {"time": [], "track": [], "box": [], "speaking": []}
    for track, label in enumerate(reference.labels()):
        speaks = np.zeros(len(time), bool)
        for turn in reference.label_timeline(label):
            speaks |= (time >= turn.start) & (time < turn.end)
        columns["time"].append(time)
        columns["track"].append(np.full(len(time), track))
        columns["box"].append(np.tile([0.1 + 0.5 * track, 0.1, 0.3 + 0.5 * track, 0.4], (750, 1)))
        columns["speaking"].append(np.where(speaks, jitter, -jitter))
    arrays = {name: np.concatenate(values) for name, values in columns.items()}
    return FaceTracks(**arrays, speaker=dict(enumerate(reference.labels())), uri="sample")


def share_right(transcript: Transcript, truth: list[str]) -> float:
    said = [word.speaker for word in transcript.words]
    return float(np.mean([one == other for one, other in zip(said, truth, strict=True)]))


def test_words_of_the_sample_get_their_speaker(reference, tmp_path):
    content, truth = whisper_of(reference)
    (tmp_path / "sample.json").write_text(json.dumps(content))
    transcript = read_transcript(tmp_path / "sample.json")
    assert transcript.language == "en"
    assert len(transcript.words) == len(truth) > 50
    # two words at the same time cannot be told apart
    alone = reference.get_overlap().gaps(Segment(0, 30))
    made = assign_speakers(transcript, reference)
    assert share_right(made, truth) > 0.9
    pairs = [
        (word.speaker, speaker)
        for word, speaker in zip(made.words, truth, strict=True)
        if any(Segment(word.start, word.end) in one for one in alone)
    ]
    assert len(pairs) > 50
    assert all(one == other for one, other in pairs)
    seen = Content(reference, face_tracks=faces_of(reference))
    assert share_right(assign_speakers(transcript, seen), truth) > 0.9
    # turns with boundaries that are off by 0.15 s, one of them missing
    rough = Annotation(uri="sample")
    for number, (segment, _, label) in enumerate(reference.itertracks(yield_label=True)):
        if number != 3:
            rough[Segment(segment.start + 0.15, segment.end + 0.15), number] = label
    heard = share_right(assign_speakers(transcript, rough), truth)
    both = share_right(
        assign_speakers(transcript, Content(rough, face_tracks=faces_of(reference))), truth
    )
    assert both > 0.9
    assert both > heard


def turns_of(*turns: tuple[float, float, str]) -> Annotation:
    annotation = Annotation(uri="talk")
    for number, (start, end, label) in enumerate(turns):
        annotation[Segment(start, end), number] = label
    return annotation


def words_at(*spans: tuple[float, float]) -> Transcript:
    words = tuple(Word(f"w{i}", start, end) for i, (start, end) in enumerate(spans))
    return Transcript([Cue.of_words(words)])


def speakers(transcript: Transcript, output, **options) -> list[str | None]:
    return [word.speaker for word in assign_speakers(transcript, output, **options).words]


def test_words_of_nobody_get_the_next_turn_within_bounds():
    turns = turns_of((1.0, 2.0, "A"), (5.0, 6.0, "B"))
    assert speakers(words_at((2.1, 2.4)), turns) == ["A"]
    assert speakers(words_at((4.4, 4.8)), turns) == ["B"]
    assert speakers(words_at((3.3, 3.6)), turns) == [None]
    assert speakers(words_at((3.3, 3.6)), turns, max_gap=2.0) == ["A"]
    assert speakers(words_at((2.1, 2.4)), turns, max_gap=0.0) == [None]
    assert speakers(words_at((2.1, 2.4)), turns_of()) == [None]


def test_a_face_that_speaks_is_enough_where_nobody_is_heard():
    time = np.arange(0, 8, 0.04)
    box = np.tile([0.1, 0.1, 0.3, 0.3], (200, 1))
    faces = FaceTracks(time, np.ones(200), box, speaking=np.full(200, 2.0), speaker={1: "B"})
    turns = turns_of((1.0, 2.0, "A"), (7.0, 8.0, "B"))
    content = Content(turns, face_tracks=faces)
    assert speakers(words_at((3.5, 3.8)), content) == ["B"]
    # and it does not outweigh a turn
    assert speakers(words_at((1.2, 1.6)), content) == ["A"]


def test_in_overlap_the_face_that_speaks_decides():
    turns = turns_of((0.0, 4.0, "A"), (0.0, 4.0, "B"))
    time = np.arange(0, 4, 0.04)
    box = np.tile([0.1, 0.1, 0.3, 0.3], (200, 1))
    # B in the first half, A in the second
    score = np.concatenate([np.where(time < 2, -3, 3), np.where(time < 2, 3, -3)])
    track = np.repeat([1, 2], 100)
    faces = FaceTracks(np.tile(time, 2), track, box, speaking=score, speaker={1: "A", 2: "B"})
    words = words_at((0.2, 0.6), (1.0, 1.5), (2.4, 2.8), (3.0, 3.4))
    assert speakers(words, Content(turns, face_tracks=faces)) == ["B", "B", "A", "A"]


def test_one_word_does_not_change_the_speaker_of_a_sentence():
    # B speaks at the same time during the third word
    turns = turns_of((0.0, 3.0, "A"), (1.0, 1.5, "B"))
    words = words_at((0.0, 0.5), (0.5, 1.0), (1.0, 1.5), (1.5, 2.0), (2.0, 2.5))
    assert speakers(words, turns) == ["A"] * 5
    # where only B speaks, the word is B's
    turns = turns_of((0.0, 1.0, "A"), (1.0, 1.5, "B"), (1.5, 3.0, "A"))
    assert speakers(words, turns) == ["A", "A", "B", "A", "A"]
    # where nobody speaks between words of one speaker, the cue tells
    turns = turns_of((0.0, 0.5, "A"), (4.5, 5.0, "A"))
    assert speakers(words_at((0.0, 0.5), (2.0, 2.4), (4.5, 5.0)), turns) == ["A"] * 3


def test_cues_without_times_of_words():
    transcript = Transcript([Cue(0, 3, "one two"), Cue(10, 11, "three")], "other")
    made = assign_speakers(transcript, turns_of((0, 1, "A"), (1, 3, "B")))
    assert [cue.speaker for cue in made.cues] == ["B", None]
    assert [word.speaker for word in made.words] == ["B", "B", None]
    assert made.uri == "other"


def test_a_transcript_of_another_file():
    content = Content(turns_of((0, 1, "A")), report={"duration": 30.0})
    assign_speakers(words_at((29.0, 31.0)), content)
    with pytest.raises(ValueError, match=r"goes on at 95\.30 s, but the file lasts 30\.00 s"):
        assign_speakers(
            words_at((1, 2), (95.3, 96)), Content(turns_of(), report={"duration": 30.0})
        )


# --- readers -------------------------------------------------------------------------------------

HELLO = [("Hello", 0.5, 1.0), ("you.", 1.0, 1.5)]
JSON = {
    "whisper": {
        "text": " Hello you.",
        "language": "en",
        "segments": [
            {
                "id": 0,
                "seek": 0,
                "start": 0.5,
                "end": 1.5,
                "text": " Hello you.",
                "words": [
                    {"word": " Hello", "start": 0.5, "end": 1.0, "probability": 0.5},
                    {"word": " you.", "start": 1.0, "end": 1.5, "probability": 0.5},
                ],
            }
        ],
    },
    "whisperx": {
        "segments": [
            {
                "start": 0.5,
                "end": 1.5,
                "text": " Hello you.",
                "speaker": "SPEAKER_00",
                "words": [
                    {"word": "Hello", "start": 0.5, "end": 1.0, "score": 0.5},
                    {"word": "you.", "start": 1.0, "end": 1.5, "score": 0.5},
                ],
            }
        ],
        "word_segments": [],
    },
    "faster-whisper": [
        {
            "start": 0.5,
            "end": 1.5,
            "text": " Hello you.",
            "words": [
                {"word": " Hello", "start": 0.5, "end": 1.0, "probability": 0.5},
                {"word": " you.", "start": 1.0, "end": 1.5, "probability": 0.5},
            ],
        }
    ],
    "words": [{"word": text, "start": start, "end": end} for text, start, end in HELLO],
    "openai": {
        "segments": [{"start": 0.5, "end": 1.5, "text": "Hello you."}],
        "words": [{"word": text, "start": start, "end": end} for text, start, end in HELLO],
    },
    "transformers": {
        "text": "Hello you.",
        "chunks": [{"text": text, "timestamp": [start, end]} for text, start, end in HELLO],
    },
    "whisper.cpp": {
        "transcription": [{"offsets": {"from": 500, "to": 1500}, "text": " Hello you."}]
    },
}


@pytest.mark.parametrize("name", JSON)
def test_json_of_recognisers(name, tmp_path):
    (tmp_path / "talk.json").write_text(json.dumps(JSON[name]))
    transcript = read_transcript(tmp_path / "talk.json")
    assert " ".join(cue.text for cue in transcript.cues) == "Hello you."
    words = [(word.text, word.start, word.end) for word in transcript.words]
    if name == "whisper.cpp":
        assert [word[0] for word in words] == ["Hello", "you."]
        assert (words[0][1], words[-1][2]) == (0.5, 1.5)
    else:
        assert words == HELLO
    assert transcript.uri == "talk"


def test_words_without_times_lie_between_their_neighbours(tmp_path):
    entries = [
        {"word": "In", "start": 1.0, "end": 1.2},
        {"word": "1999,"},
        {"word": "20"},
        {"word": "people", "start": 2.6, "end": 3.0},
        {"word": "16."},
    ]
    segment = {"start": 1.0, "end": 3.5, "text": "In 1999, 20 people 16.", "words": entries}
    (tmp_path / "a.json").write_text(json.dumps({"segments": [segment]}))
    (cue,) = read_transcript(tmp_path / "a.json").cues
    times = [time for word in cue.words for time in (word.start, word.end)]
    assert times == pytest.approx([1.0, 1.2, 1.2, 2.2, 2.2, 2.6, 2.6, 3.0, 3.0, 3.5])


def test_languages_without_spaces(tmp_path):
    entries = [{"word": one, "start": i, "end": i + 1} for i, one in enumerate("你好吗")]
    segment = {"start": 0, "end": 3, "text": "你好吗", "words": entries}
    (tmp_path / "a.json").write_text(json.dumps({"segments": [segment]}))
    made = assign_speakers(read_transcript(tmp_path / "a.json"), turns_of((0, 2, "A"), (2, 3, "B")))
    assert [(cue.speaker, cue.text) for cue in made.utterances()] == [("A", "你好"), ("B", "吗")]


BAD = {
    "no times": ({"text": "Hello"}, "a transcript without times"),
    "no times of segments": (
        {"segments": [{"text": "a"}]},
        "segment 0: 'a' has no times",
    ),
    "no times of words": (
        {"segments": [{"text": "a", "words": [{"word": "a"}]}]},
        "segment 0: no times",
    ),
    "words alone": ([{"word": "a"}], "no times, neither of the words nor of the whole"),
    "text as time": ({"segments": [{"text": "a", "start": "0", "end": 1}]}, "start is '0'"),
    "wrong order": (
        {"segments": [{"text": "a", "start": 2, "end": 1}]},
        r"segment 0: ends at 1\.000 s, before it starts",
    ),
    "list of numbers": ([1], "segment 0: a mapping is expected"),
    "other": ({"a": 1}, "not a transcript, it has no 'segments'"),
    "number": (3, "a list of segments is expected, not int"),
    "a result": ({"diarization": []}, "a result of diarization without a transcript"),
}


@pytest.mark.parametrize("name", BAD)
def test_transcripts_that_are_none(name, tmp_path):
    content, message = BAD[name]
    (tmp_path / "bad.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message) as caught:
        read_transcript(tmp_path / "bad.json")
    assert "bad.json" in str(caught.value)


def test_paths_that_are_no_transcripts(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_transcript(tmp_path / "a.srt")
    (tmp_path / "a.docx").touch()
    with pytest.raises(ValueError, match=r"transcripts are \.json, \.srt"):
        read_transcript(tmp_path / "a.docx")
    (tmp_path / "a.json").write_text('{"segments": [')
    with pytest.raises(ValueError, match=r"a\.json, line 1"):
        read_transcript(tmp_path / "a.json")


def test_subtitles_as_transcripts(tmp_path):
    (tmp_path / "a.srt").write_text(
        "1\n00:00:00,500 --> 00:00:01,500\n<i>Hello</i> you.\n\n"
        "2\n00:00:02,000 --> 00:00:03,000\n[SPEAKER_00]: Yes.\n\n"
        "3\n00:00:04,000 --> 00:00:05,000\n[Music]\n"
    )
    cues = read_transcript(tmp_path / "a.srt").cues
    assert [(c.speaker, c.text) for c in cues] == [
        (None, "Hello you."),
        ("SPEAKER_00", "Yes."),
        (None, "[Music]"),
    ]


def test_a_transcript_as_text(tmp_path):
    transcript = Transcript(
        [Cue(0, 1, "Hello\nyou.", "Ann"), Cue(1, 2, "Fine?", "Ann"), Cue(2, 3, "Yes.", None)]
    )
    write(transcript, tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "Ann: Hello you. Fine?\n\n(unknown): Yes.\n"
    with pytest.raises(ValueError, match="a text needs words"):
        write(turns_of((0, 1, "A")), tmp_path / "a.txt")


def test_names():
    assert parse_names("SPEAKER_00=Ann, SPEAKER_01 = Bob B.") == {
        "SPEAKER_00": "Ann",
        "SPEAKER_01": "Bob B.",
    }
    with pytest.raises(FileNotFoundError):
        parse_names("nowhere.csv")


# --- apply ---------------------------------------------------------------------------------------


def test_apply_with_transcript_and_names(reference, tmp_path):
    content, truth = whisper_of(reference)
    (tmp_path / "said").mkdir()
    (tmp_path / "said" / "sample.whisper.json").write_text(json.dumps(content))
    lines: list[str] = []
    options = {
        "formats": ["rttm", "json", "srt", "txt", "ctm", "eaf"],
        "names": {"SPEAKER_00": "Ann", "SPEAKER_01": "Bob", "SPEAKER_07": "Eve"},
        "transcript": tmp_path / "said",
        "tell": lines.append,
    }
    into = tmp_path / "out"
    assert apply_all([SAMPLE / "sample.wav"], into, "audio", **options) == {}
    assert any("no speaker SPEAKER_07 to name" in line for line in lines)
    assert sorted(path.name for path in into.iterdir() if path.is_file()) == [
        f"sample.{one}" for one in ("ctm", "eaf", "json", "rttm", "srt", "txt")
    ]
    found = read(into / "sample.json")
    assert found.speaker_diarization.labels() == ["Ann", "Bob"]
    labels = reference.labels()
    orders = (dict(zip(("Ann", "Bob"), one, strict=True)) for one in (labels, labels[::-1]))
    assert max(share_right(found.transcript.rename(one), truth) for one in orders) > 0.8
    assert "sample.wav" in (into / "sample.eaf").read_text()
    assert "[Ann]: w" in (into / "sample.srt").read_text()
    # nothing is done again, unless the transcript changes
    lines.clear()
    apply_all([SAMPLE / "sample.wav"], into, "audio", **options)
    assert "already done" in lines[0]


def test_transcripts_that_do_not_fit_the_files(tmp_path):
    (tmp_path / "a.srt").touch()
    files = [SAMPLE / "sample.wav", tmp_path / "other.wav"]
    with pytest.raises(ValueError, match="one transcript for 2 files"):
        apply_all(files, tmp_path / "out", "audio", transcript=tmp_path / "a.srt")
    with pytest.raises(FileNotFoundError, match=r"no transcript of .*sample\.wav in"):
        apply_all(files, tmp_path / "out", "audio", transcript=tmp_path)
    with pytest.raises(ValueError, match="unknown format: 'docx'; there are rttm"):
        apply_all(files, tmp_path / "out", "audio", ["docx"])
