"""Files of results in all formats: what a format can hold comes back, and its tools read it."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyannote.core import Annotation, Segment, Timeline
from typer import Typer
from typer.testing import CliRunner

from pyannote_av.cli import convert as command
from pyannote_av.core.output import AVDiarizeOutput, Report
from pyannote_av.core.reading import ReadError
from pyannote_av.core.tracks import FaceTracks
from pyannote_av.core.transcript import Cue, Transcript, Word
from pyannote_av.formats.content import Content
from pyannote_av.formats.eaf import media_of, to_eaf
from pyannote_av.formats.mot import read_mot, write_mot
from pyannote_av.formats.registry import FORMATS, WRITTEN, format_of, lost, read, write
from pyannote_av.formats.textgrid import read_textgrid
from pyannote_av.formats.uem import read_uem, write_uem

HOSTILE = [
    "<script>alert(1)</script>",
    "Tom & Jerry",
    'Jane "JD" Doe',
    "tab\there",
    "line\nbreak",
    "👩‍💻 emoji",
    "שרה",
    "\u202eevil",
    "",
    "a --> b",
    "name]: x",
    "=1+1",
    "NaN",
]
ROUND = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
#: formats of turns, which can be read
TURNS = [
    name for name in WRITTEN if "turns" in FORMATS[name].keeps and FORMATS[name].read is not None
]
_plain = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=12)
_spaced = st.lists(_plain, min_size=1, max_size=3).map(" ".join)
_any = st.text(st.characters(exclude_categories=["Cs"]), max_size=15)


def names_of(name: str) -> st.SearchStrategy[str]:
    """Names of speakers that a format can hold"""
    if name in ("json", "csv", "parquet"):
        return _any
    if FORMATS[name].names == "field":
        return _plain.filter(lambda one: one not in ("<NA>", "null"))
    if name == "srt":
        return _spaced.filter(lambda one: not {*one} & {*"<{]"} and "-->" not in one)
    return _spaced.filter(lambda one: one != "(unknown)")


@st.composite
def turns_of(draw, names: st.SearchStrategy[str]) -> Annotation:
    """Up to 8 turns of up to 3 speakers, which may overlap but are not the same, in milliseconds"""
    turns = Annotation(uri="talk")
    some = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    for number in range(draw(st.integers(0, 8))):
        start = draw(st.integers(0, 500_000_000))
        length = draw(st.one_of(st.just(1), st.integers(1, 100_000)))
        segment = Segment(start / 1000, round((start + length) / 1000, 3))
        label = draw(st.sampled_from(some))
        if label not in turns.get_labels(segment):
            turns[segment, f"{number}"] = label
    return turns


def listed(turns: Annotation, name: str = "json") -> list:
    """Turns to the millisecond; those of one speaker that overlap are united where files do"""
    if FORMATS[name].united:
        kept = []
        for label in turns.labels():
            regions = []
            for one in sorted(s for s, _, own in turns.itertracks("label") if own == label):
                if regions and one.start < regions[-1][1] - 1e-6:
                    regions[-1][1] = max(regions[-1][1], one.end)
                else:
                    regions.append([one.start, one.end])
            kept += [(round(a * 1000), round(b * 1000), label) for a, b in regions]
        return sorted(kept)
    return sorted(
        (round(s.start * 1000), round(s.end * 1000), label)
        for s, _, label in turns.itertracks(yield_label=True)
    )


def skip_without(name: str) -> None:
    if name == "parquet":
        pytest.importorskip("pyarrow", reason="pip install 'pyannote-av[parquet]'")


@pytest.mark.parametrize("name", TURNS)
@ROUND
@given(data=st.data())
def test_turns_come_back(name, data, tmp_path_factory):
    skip_without(name)
    turns = data.draw(turns_of(names_of(name)))
    path = tmp_path_factory.getbasetemp() / f"talk{FORMATS[name].suffix}"
    write(turns, path)
    if not turns and name == "stm":
        with pytest.raises(ValueError, match="about no file"):
            read(path)
        return
    assert listed(read(path).speaker_diarization) == listed(turns, name)


_texts = st.lists(st.text("abc'é字", min_size=1, max_size=8), min_size=1, max_size=5)


@st.composite
def transcripts(draw) -> Transcript:
    """Cues of words that follow one another, with speakers"""
    cues, time = [], 0
    for _ in range(draw(st.integers(1, 4))):
        words = []
        speaker = draw(st.sampled_from(["Ann", "Bob", None]))
        for text in draw(_texts):
            start = time + draw(st.integers(0, 400))
            time = start + draw(st.integers(1, 400))
            words.append(Word(text, start / 1000, time / 1000, speaker, 0.5))
        cues.append(Cue.of_words(tuple(words), speaker))
        time += 2000
    return Transcript(cues, "talk")


@pytest.mark.parametrize("name", ["json", "stm", "ctm", "srt", "vtt", "textgrid", "eaf"])
@ROUND
@given(transcript=transcripts())
def test_transcripts_come_back(name, transcript, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / f"talk{FORMATS[name].suffix}"
    write(transcript, path)
    found = read(path).transcript
    key = (lambda cue: cue.start) if not FORMATS[name].united else (lambda cue: cue.text)
    assert [(c.start, c.end, c.speaker, c.text) for c in sorted(found.cues, key=key)] == [
        (c.start, c.end, c.speaker, c.text) for c in sorted(transcript.cues, key=key)
    ]
    if "words" in FORMATS[name].keeps:
        assert found.words == transcript.words


@st.composite
def faces(draw) -> FaceTracks:
    count = draw(st.integers(1, 3))
    rows = [(track, frame) for track in range(count) for frame in range(draw(st.integers(1, 4)))]
    track, frame = np.array(rows).T
    corner = np.array(draw(st.lists(st.integers(0, 40), min_size=2, max_size=2))) / 100
    box = np.tile([*corner, *(corner + 0.25)], (len(rows), 1))
    return FaceTracks(
        frame / 25, track, box, confidence=np.full(len(rows), 0.875), frame_size=(640, 360)
    )


@ROUND
@given(tracks=faces())
def test_face_tracks_come_back_from_mot(tracks, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "talk.mot.txt"
    write_mot(tracks, path)
    found = read_mot(path, (640, 360))
    assert np.array_equal(found.track, tracks.track)
    assert np.allclose(found.time, tracks.time)
    assert np.allclose(found.box * 640, tracks.box * 640, atol=2e-3)
    assert np.array_equal(found.confidence, tracks.confidence)


@ROUND
@given(regions=st.lists(st.tuples(st.integers(0, 9000), st.integers(1, 9000)), max_size=5))
def test_regions_come_back_from_uem(regions, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "talk.uem"
    regions = Timeline([Segment(a / 1000, (a + b) / 1000) for a, b in regions], uri="talk")
    regions = regions.support()
    write_uem(regions, path)
    assert read_uem(path) == ({"talk": regions} if regions else {})


@pytest.fixture
def hostile() -> Annotation:
    turns = Annotation(uri="talk")
    for number, name in enumerate(HOSTILE):
        turns[Segment(number, number + 1.5), "_"] = name
    return turns


@pytest.mark.parametrize("name", TURNS)
def test_hostile_names_are_kept_or_spelled_in_another_way(name, hostile, tmp_path):
    skip_without(name)
    path = write(hostile, tmp_path / f"talk{FORMATS[name].suffix}")
    found = read(path).speaker_diarization
    # two names may not become one
    assert len(found.labels()) == len(HOSTILE)
    assert [t[:2] for t in listed(found)] == [t[:2] for t in listed(hostile)]
    if FORMATS[name].names == "exact" and name != "textgrid":
        assert listed(found) == listed(hostile)


@pytest.mark.parametrize("name", TURNS)
def test_nobody_and_two_hundred(name, tmp_path):
    skip_without(name)
    path = tmp_path / f"talk{FORMATS[name].suffix}"
    many = Annotation(uri="talk")
    for number in range(200):
        many[Segment(number, number + 2), "_"] = f"SPEAKER_{number:03}"
    write(many, path)
    assert listed(read(path).speaker_diarization) == listed(many)
    write(Annotation(uri="talk"), path)
    if name != "stm":
        assert not read(path).speaker_diarization


def test_a_name_that_is_two(tmp_path):
    turns = Annotation(uri="talk")
    turns[Segment(0, 1)], turns[Segment(1, 2)] = "A\nB", "A B"
    for name in ("rttm", "srt", "vtt", "eaf", "audacity", "stm"):
        with pytest.raises(ValueError, match=r"'A\\nB' and 'A B' of 'talk' are both called"):
            write(turns, tmp_path / f"talk{FORMATS[name].suffix}")
    assert not [*tmp_path.iterdir()]


# --- against the tools' own libraries ------------------------------------------------------------


@pytest.fixture
def words() -> Transcript:
    return Transcript(
        [
            Cue(0.5, 1.25, "Hello, <b>you</b> & you", "Ann"),
            Cue(1.0, 2.0, "Yes?", 'Bob "B"'),
            Cue(360_000.0, 360_001.5, "Late", None),
        ],
        "talk",
    )


def test_srt_is_read_by_pysubs2(words, tmp_path):
    pysubs2 = pytest.importorskip("pysubs2", reason="pip install pysubs2")
    # its hours have two digits
    words.cues[2] = Cue(356_400.0, 356_401.5, "Late", None)
    found = pysubs2.load(str(write(words, tmp_path / "talk.srt")))
    assert [(one.start, one.end) for one in found] == [
        (500, 1250),
        (1000, 2000),
        (356_400_000, 356_401_500),
    ]
    assert found[0].plaintext == "[Ann]: Hello, ‹b>you‹/b> & you"
    # and the other way round
    pysubs2.SSAFile.from_string(found.to_string("srt")).save(str(tmp_path / "other.srt"))
    cues = read(tmp_path / "other.srt").transcript.cues
    assert [cue.speaker for cue in cues] == ["Ann", 'Bob "B"', None]


def test_webvtt_is_read_by_webvtt_py(words, tmp_path):
    webvtt = pytest.importorskip("webvtt", reason="pip install webvtt-py")
    found = webvtt.read(str(write(words, tmp_path / "talk.vtt")))
    assert [(one.start, one.end) for one in found][::2] == [
        ("00:00:00.500", "00:00:01.250"),
        ("100:00:00.000", "100:00:01.500"),
    ]
    assert [one.voice for one in found] == ["Ann", 'Bob "B"', None]
    found.save(str(tmp_path / "other.vtt"))
    cues = read(tmp_path / "other.vtt").transcript.cues
    assert [(cue.speaker, cue.text) for cue in cues] == [
        (cue.speaker, cue.text) for cue in words.cues
    ]


def test_textgrid_is_read_by_praatio(hostile, words, tmp_path):
    textgrid = pytest.importorskip("praatio.textgrid", reason="pip install praatio")
    path = str(write(words, tmp_path / "talk.TextGrid"))
    found = textgrid.openTextgrid(path, includeEmptyIntervals=False)
    assert found.tierNames == ("Ann", 'Bob "B"', "(unknown)")
    entry = found.getTier("Ann").entries[0]
    assert tuple(entry) == (0.5, 1.25, "Hello, <b>you</b> & you")
    for form in ("short_textgrid", "long_textgrid"):
        found.save(str(tmp_path / "other.TextGrid"), format=form, includeBlankSpaces=True)
        cues = read(tmp_path / "other.TextGrid").transcript.cues
        assert [(c.start, c.end, c.speaker) for c in cues] == [
            (c.start, c.end, c.speaker) for c in words.cues
        ]


def test_eaf_is_read_by_pympi(words, tmp_path):
    elan = pytest.importorskip("pympi.Elan", reason="pip install pympi-ling")
    (tmp_path / "talk.mp4").touch()
    content = Content.of(words)
    content.media = tmp_path / "talk.mp4"
    found = elan.Eaf(str(write(content, tmp_path / "talk.eaf")))
    assert [*found.get_tier_names()] == ["Ann", 'Bob "B"', "(unknown)"]
    assert found.get_annotation_data_for_tier("Ann") == [(500, 1250, "Hello, <b>you</b> & you")]
    (linked,) = found.get_linked_files()
    assert linked["MEDIA_URL"] == (tmp_path / "talk.mp4").as_uri()
    assert linked["RELATIVE_MEDIA_URL"] == "./talk.mp4"
    assert [str(one) for one in media_of(tmp_path / "talk.eaf")] == ["talk.mp4"]
    found.to_file(str(tmp_path / "other.eaf"))
    cues = read(tmp_path / "other.eaf").transcript.cues
    assert [(c.start, c.end, c.speaker) for c in cues] == [
        (c.start, c.end, c.speaker) for c in words.cues
    ]


def test_parquet_is_read_by_pandas(hostile, tmp_path):
    skip_without("parquet")
    table = pd.read_parquet(write(hostile, tmp_path / "talk.parquet"))
    assert table["speaker"].tolist() == HOSTILE
    assert table["start"].dtype == np.float64


def test_csv_is_read_by_pandas(hostile, tmp_path):
    table = pd.read_csv(write(hostile, tmp_path / "talk.csv"), keep_default_na=False)
    assert table["speaker"].tolist() == HOSTILE


def test_supervision_takes_face_tracks_and_gives_them_back():
    pytest.importorskip("supervision", reason="pip install supervision")
    tracks = some_tracks()
    found = [*tracks.to_supervision()]
    assert [time for time, _ in found] == [0.0, 0.04]
    first = found[0][1]
    assert first.tracker_id.tolist() == [1, 2]
    assert np.allclose(first.xyxy[0], [64, 36, 192, 108])
    assert first.data["speaker"].tolist() == ["Ann", ""]
    back = FaceTracks.from_supervision(found, (640, 360))
    assert np.allclose(back.box, tracks.box)
    assert back.speaker == tracks.speaker
    found[0][1].tracker_id = None
    with pytest.raises(ValueError, match=r"at 0\.000 s have no tracker_id"):
        FaceTracks.from_supervision(found, (640, 360))


# --- tables, names, outputs ----------------------------------------------------------------------


def some_tracks() -> FaceTracks:
    return FaceTracks(
        time=[0.0, 0.04, 0.0],
        track=[1, 1, 2],
        box=[[0.1, 0.1, 0.3, 0.3], [0.1, 0.1, 0.3, 0.3], [0.5, 0.5, 0.7, 0.7]],
        speaking=[1.0, -1.0, np.nan],
        speaker={1: "Ann"},
        uri="talk",
        frame_size=(640, 360),
    )


def some_output() -> AVDiarizeOutput:
    turns = Annotation(uri="talk")
    turns[Segment(0, 2), "a"] = "A"
    turns[Segment(1, 3), "b"] = "B"
    turns[Segment(4, 5), "c"] = "C"
    return AVDiarizeOutput(
        turns,
        turns.copy(),
        np.array([[1.0, 0.0], [0.0, 1.0], [np.nan, np.nan]]),
        face_tracks=some_tracks().with_speakers({1: "A"}),
        report=Report(duration=6.0),
        audio_only=turns.copy(),
        provenance={(Segment(0, 2), "a"): {"confidence": 0.75, "modality": "audio+video"}},
        transcript=Transcript([Cue(0, 1, "Hi", "A", (Word("Hi", 0.0, 1.0, "A"),))], "talk"),
    )


def test_face_tracks_as_a_table():
    tracks = some_tracks()
    table = tracks.to_pandas()
    assert table["x1"].tolist() == pytest.approx([0.1, 0.1, 0.5])
    assert table["speaker"].isna().tolist() == [False, False, True]
    assert FaceTracks.from_pandas(table) == tracks
    pixels = table.assign(**{n: table[n] * 640 for n in ("x1", "x2")})
    pixels = pixels.assign(**{n: table[n] * 360 for n in ("y1", "y2")})
    assert np.allclose(FaceTracks.from_pandas(pixels).box, tracks.box)
    assert FaceTracks.from_pandas(FaceTracks.empty().to_pandas()) == FaceTracks.empty()
    with pytest.raises(ValueError, match="no column 'y2'"):
        FaceTracks.from_pandas(table.drop(columns="y2"))
    two = pd.concat([table, table.assign(uri="other")])
    with pytest.raises(ValueError, match="holds several videos"):
        FaceTracks.from_pandas(two)
    assert FaceTracks.from_pandas(two, "other", (640, 360)).uri == "other"


def test_turns_as_a_table():
    table = some_output().to_pandas()
    assert table.columns.tolist() == [
        *("uri", "start", "end", "duration", "speaker", "confidence", "modality")
    ]
    assert table["duration"].tolist() == [2.0, 2.0, 1.0]
    assert table["confidence"].tolist()[0] == 0.75
    assert table["confidence"].isna().tolist() == [False, True, True]
    assert AVDiarizeOutput(Annotation(), Annotation()).to_pandas().empty


def test_rename():
    output = some_output()
    swapped = output.rename({"A": "B", "B": "A"})
    assert [t[2] for t in listed(swapped.speaker_diarization)] == ["B", "A", "C"]
    # embeddings follow their speakers, in the order of the labels
    assert swapped.speaker_diarization.labels() == ["A", "B", "C"]
    assert swapped.speaker_embeddings[:2].tolist() == [[0.0, 1.0], [1.0, 0.0]]
    assert swapped.face_tracks.speaker == {1: "B"}
    assert swapped.transcript.cues[0].words[0].speaker == "B"
    assert swapped.audio_only.labels() == ["A", "B", "C"]
    # the original is not changed
    assert output.speaker_diarization.labels() == ["A", "B", "C"]
    assert output.face_tracks.speaker == {1: "A"}
    assert "Ann" in json.dumps(output.rename({"A": "Ann"}).serialize()["transcript"])


def test_renaming_two_to_one_is_asked_for():
    output = some_output()
    with pytest.raises(ValueError, match="speakers 'A' and 'B' would both be called 'B': with"):
        output.rename({"A": "B"})
    with pytest.raises(ValueError, match="there is no speaker 'X': there is 'A', 'B', 'C'"):
        output.rename({"X": "B"})
    merged = output.rename({"A": "B"}, merge=True)
    assert merged.speaker_diarization.labels() == ["B", "C"]
    assert merged.speaker_embeddings[0].tolist() == [0.5, 0.5]
    assert np.isnan(merged.speaker_embeddings[1]).all()


def test_content_is_serialized_as_outputs_are():
    output = some_output()
    assert json.dumps(Content.of(output).serialize()) == json.dumps(output.serialize())


def test_what_is_lost_is_said():
    content = Content.of(some_output())
    assert lost(content, FORMATS["json"]) == []
    (first, second) = lost(content, FORMATS["srt"])
    assert first == (
        "confidence and modality of turns, times and speakers of single words, face tracks, "
        "the turns of the audio alone and the report are not kept"
    )
    assert "speech without words" in second
    turns = Annotation(uri="talk")
    turns[Segment(0, 2), 1], turns[Segment(1, 3), 2] = "Jane Doe", "Jane Doe"
    assert lost(Content(turns), FORMATS["rttm"]) == ["names change: 'Jane Doe' to 'Jane_Doe'"]
    assert lost(Content(turns), FORMATS["textgrid"]) == [
        "1 turns that overlap another turn of the same speaker are united"
    ]


# --- malformed files -----------------------------------------------------------------------------

MALFORMED = {
    "times.csv": ("start,end,speaker\n1,2,A\nx,2,A\n", "line 3: start is 'x', not a number"),
    "columns.csv": ("start,stop,name\n1,2,A\n", "line 1: no column 'speaker', but 'start', 'stop'"),
    "short.csv": ("start,end,speaker\n1,2\n", "line 2: 2 fields where 3 are expected"),
    "order.csv": ("start,end,speaker\n3,2,A\n", r"line 2: ends at 2\.000 s, before it starts"),
    "few.stm": ("talk 1 A 0\n", "line 1: 4 fields where at least 5"),
    "time.stm": ("talk 1 A 0 nan x\n", "line 1: 'nan' is not a finite number"),
    "few.ctm": (";; c\ntalk 1 0 0.5\n", "line 2: 4 fields where 5 to 8"),
    "negative.ctm": ("talk 1 -1 0.5 x\n", r"line 1: negative start -1\.0"),
    "header.vtt": ("00:01.000 --> 00:02.000\nx\n", "line 1: WebVTT files begin with WEBVTT"),
    "time.vtt": ("WEBVTT\n\n1.0 --> 00:02.000\nx\n", "line 3: '1.0' is not a time"),
    "text.vtt": ("WEBVTT\n\nhello\nyou\n", "line 3: 'hello' is not a cue"),
    "text.srt": ("hello\n", "line 1: 'hello' is not a span"),
    "time.srt": ("1\n00:00:01,0 --> 00:00:99,0\nx\n", "line 2: '00:00:99,0' is not a time"),
    "order.srt": ("1\n00:00:02,0 --> 00:00:01,0\nx\n", "line 2: ends at"),
    "binary.TextGrid": ("ooBinaryFile\x08", "not a TextGrid as text|ends where"),
    "cut.TextGrid": ('"ooTextFile" "TextGrid" 0 1 <exists> 1 "IntervalTier" "A" 0', "truncated"),
    "quote.TextGrid": ('"ooTextFile"\n"TextGrid"\n0 1 "', "line 3: a quotation mark"),
    "other.eaf": ("<a/>", "not an ELAN document, but 'a'"),
    "cut.eaf": ("<ANNOTATION_DOCUMENT>\n<TIER>", "line 2: not valid XML"),
    "bomb.eaf": ("<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "a document type"),
    "spaces.audacity.txt": ("0 1 A\n", "line 1: start, end and name must be separated by tabs"),
    "many.rttm": (
        "".join(f"SPEAKER {f} 1 0 1 <NA> <NA> A <NA> <NA>\n" for f in "ab"),
        "is about 2 files: 'a', 'b'; name one with uri",
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_files_are_refused_with_their_line(name, tmp_path):
    text, message = MALFORMED[name]
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path / name)
    assert name in str(caught.value)


def test_a_parquet_file_that_is_none(tmp_path):
    skip_without("parquet")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and so on PAR1")
    with pytest.raises(ReadError, match=r"a\.parquet: not a Parquet file of turns"):
        read(tmp_path / "a.parquet")


def test_praat_writes_utf_16(tmp_path):
    text = '"ooTextFile"\n"TextGrid"\n0 1 <exists> 1\n"IntervalTier" "René" 0 1 1\n0 1 "oui ""2"""'
    (tmp_path / "a.TextGrid").write_bytes(text.encode("utf-16"))
    (cue,) = read_textgrid(tmp_path / "a.TextGrid").transcript.cues
    assert (cue.speaker, cue.text, cue.end) == ("René", 'oui "2"', 1.0)


def test_webvtt_of_others(tmp_path):
    (tmp_path / "a.vtt").write_text(
        "\ufeffWEBVTT - title\nKind: captions\n\nNOTE a --> b\n\nSTYLE\n::cue {}\n\nintro\n"
        "01.500 --> 00:02.000 align:start\n\n".replace("01.500", "00:01.500")
        + "00:03.000 --> 00:04.000\n<v.loud Ann>Hi <00:03.500><c>you</c></v>\n<v Bob>Yes &lt;3\n"
    )
    found = read(tmp_path / "a.vtt").transcript.cues
    assert [(c.speaker, c.text) for c in found] == [
        (None, ""),
        ("Ann", "Hi you"),
        ("Bob", "Yes <3"),
    ]


def test_formats_are_told_by_suffix():
    assert format_of("A.TEXTGRID").name == "textgrid"
    assert format_of("a.ava.csv").name == "ava"
    assert format_of("a.labels.txt").name == "audacity"
    assert format_of("a.txt").name == "txt"
    assert format_of("a.xyz", "SRT").name == "srt"
    with pytest.raises(ValueError, match=r"a\.xyz: no format has this suffix: name one of rttm"):
        format_of("a.xyz")
    with pytest.raises(ValueError, match="'docx' is not a format: there are rttm"):
        format_of("a.xyz", "docx")


# --- the command ---------------------------------------------------------------------------------


def run(*arguments: object):
    app = Typer()
    app.command()(command.command)
    return CliRunner().invoke(app, [str(one) for one in arguments])


def test_convert(tmp_path):
    source = write(some_output(), tmp_path / "talk.json")
    result = run(source, tmp_path / "talk.rttm", "--names", "A=Ann Lee")
    assert result.exit_code == 0
    assert "rttm: " in result.stderr
    assert "face tracks" in result.stderr
    assert "SPEAKER talk 1 0.000 2.000 <NA> <NA> Ann_Lee" in (tmp_path / "talk.rttm").read_text()
    again = run(source, tmp_path / "talk.rttm")
    assert again.exit_code == 1
    assert "talk.rttm exists: give another name, or use --overwrite" in again.stderr
    assert run(source, tmp_path / "talk.rttm", "--overwrite").exit_code == 0
    assert "Ann_Lee" not in (tmp_path / "talk.rttm").read_text()
    assert run(source, tmp_path / "faces.mot.txt").exit_code == 0
    missing = run(tmp_path / "tlak.json", tmp_path / "x.srt")
    assert missing.exit_code == 1
    assert "talk.json" in missing.stderr


def test_convert_names_from_files(tmp_path):
    source = write(some_output(), tmp_path / "talk.json")
    (tmp_path / "names.csv").write_text("speaker,name\nA,Ann\nB,Bob\n")
    (tmp_path / "player.json").write_text(json.dumps({"names": {"A": "Ann", "B": "Ann"}}))
    assert run(source, tmp_path / "a.csv", "--names", tmp_path / "names.csv").exit_code == 0
    assert read(tmp_path / "a.csv").speaker_diarization.labels() == ["Ann", "Bob", "C"]
    both = (source, tmp_path / "b.csv", "--names", tmp_path / "player.json")
    assert "would both be called 'Ann'" in run(*both).stderr
    assert run(*both, "--merge").exit_code == 0
    assert read(tmp_path / "b.csv").speaker_diarization.labels() == ["Ann", "C"]
    for names, message in (
        ("A", "'A' is not LABEL=NAME"),
        ("X=Ann", "there is no speaker 'X'"),
        ("A=Ann,A=Bob", "'A' is called 'Ann' and 'Bob'"),
    ):
        assert message in run(source, tmp_path / "c.csv", "--names", names).stderr
    (tmp_path / "bad.csv").write_text("A,Ann\nB\n")
    bad = run(source, tmp_path / "c.csv", "--names", tmp_path / "bad.csv")
    assert "bad.csv, line 2: 1 fields where label and name are expected" in bad.stderr
    assert not (tmp_path / "c.csv").exists()


def test_a_video_gives_mot_its_size(short_sample, tmp_path):
    tracks = FaceTracks.read(short_sample["tracks"])
    tracks.write(tmp_path / "talk.ava.csv")
    assert run(tmp_path / "talk.ava.csv", tmp_path / "a.mot.txt").exit_code == 1
    made = run(tmp_path / "talk.ava.csv", tmp_path / "a.mot.txt", "--media", short_sample["video"])
    assert made.exit_code == 0, made.output
    back = run(tmp_path / "a.mot.txt", tmp_path / "b.npz", "--media", short_sample["video"])
    assert back.exit_code == 0, back.output
    found = FaceTracks.read(tmp_path / "b.npz")
    assert np.allclose(found.time, tracks.time)
    assert np.allclose(found.box, tracks.box, atol=1e-4)


def test_eaf_cannot_hold_all_characters():
    turns = Annotation(uri="talk")
    turns[Segment(0, 1)] = "\x01\ufffe"
    assert "\ufffe" not in to_eaf(turns)
