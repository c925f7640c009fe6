"""References, maps and lists as people have them: read right, or refused with file and line."""

from __future__ import annotations

import codecs
import io
import logging
import re
from pathlib import Path

import pytest
from pyannote.core import Annotation, Segment, Timeline
from typer import Typer
from typer.testing import CliRunner

from pyannote_av.batch.manifest import read_manifest
from pyannote_av.cli import evaluate as command
from pyannote_av.core.protocols import files_of
from pyannote_av.core.reading import ReadError, read_json, read_yaml
from pyannote_av.core.tracks import FaceTracks
from pyannote_av.evaluation.conditions import conditions
from pyannote_av.evaluation.diarization import evaluate
from pyannote_av.formats.annotations import (
    read_lab,
    read_reference,
    read_rttm,
    read_turns,
    read_uem,
)
from pyannote_av.formats.lists import read_names, read_paths
from pyannote_av.formats.loaders import StrictLAB, StrictRTTM, StrictUEM
from pyannote_av.formats.rttm import to_rttm, write_rttm

COMPOSED, DECOMPOSED = "Ren\xe9", "Rene\u0301"
LINE = "SPEAKER {} 1 0.5 2.0 <NA> <NA> {} <NA> <NA>\n"
FULL = [(0.5, 2.5, "A")]


def turns(path: Path, lenient: bool = False) -> dict[str, list[tuple[float, float, str]]]:
    """Start, end and speaker of all turns, by uri"""
    return {
        uri: [(round(s.start, 6), round(s.end, 6), name) for s, _, name in one.itertracks("label")]
        for uri, one in read_rttm(path, lenient).items()
    }


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.fixture
def rttm(tmp_path) -> Path:
    return tmp_path / "x.rttm"


@pytest.fixture
def uem(tmp_path) -> Path:
    return tmp_path / "x.uem"


# --- what is read as it is -----------------------------------------------------------------------

A = LINE.format("a", "A")
READ = {
    "tabs": (A.replace(" ", "\t"), {"a": FULL}),
    "tabs and spaces": (A.replace(" 1 0.5", "\t1\t \t0.5"), {"a": FULL}),
    "tabs around names with spaces": (
        LINE.replace(" ", "\t").format("my file", "Jane Doe"),
        {"my file": [(0.5, 2.5, "Jane Doe")]},
    ),
    "CRLF": (A.replace("\n", "\r\n") + "\r\n", {"a": FULL}),
    "CR": (A.replace("\n", "\r") * 2, {"a": FULL}),
    "last line without end": (A.strip(), {"a": FULL}),
    "byte order mark": (codecs.BOM_UTF8 + A.encode(), {"a": FULL}),
    "joined files with marks": (
        codecs.BOM_UTF8 + A.encode() + codecs.BOM_UTF8 + LINE.format("b", "A").encode(),
        {"a": FULL, "b": FULL},
    ),
    "UTF-16": (LINE.format(COMPOSED, "A").encode("utf-16"), {COMPOSED: FULL}),
    "UTF-16, big end first": (codecs.BOM_UTF16_BE + A.encode("utf-16-be"), {"a": FULL}),
    "UTF-32": (A.encode("utf-32"), {"a": FULL}),
    "comments": (f";; a\n; b\n# c\n  ;; d\n{A}", {"a": FULL}),
    "other types": (f"SPKR-INFO a 1 <NA> <NA> <NA> unknown A <NA> <NA>\n{A}", {"a": FULL}),
    "lower case": (A.lower().replace(" a <", " A <"), {"a": FULL}),
    "8 fields": (A.replace(" <NA> <NA>\n", "\n"), {"a": FULL}),
    "9 fields": (A.replace(" <NA>\n", "\n"), {"a": FULL}),
    "confidence": (A.replace("A <NA>", "A 0.93"), {"a": FULL}),
    "certain": (A.replace("A <NA>", "A 1") + A.replace("0.5", "9").replace("A <NA>", "A 1"), None),
    "log-likelihood": (A.replace("A <NA>", "A -12.75"), {"a": FULL}),
    "exponents": (A.replace("0.5 2.0", "5e-1 2E0"), {"a": FULL}),
    "plus sign, no leading digit": (A.replace("0.5 2.0", "+.5 2."), {"a": FULL}),
    "several files": (A + LINE.format("b", "A") + A.replace("0.5", "5"), None),
    "touching turns": (A + A.replace("0.5", "2.5"), {"a": [*FULL, (2.5, 4.5, "A")]}),
    "overlapping turns of one": (A + A.replace("0.5", "1.5"), {"a": [*FULL, (1.5, 3.5, "A")]}),
    "rounded times touch": (
        "".join(A.replace("0.5 2.0", f"{t} 0.1") for t in ("0.1", "0.2", "0.3")),
        {"a": [(0.1, 0.2, "A"), (0.2, 0.3, "A"), (0.3, 0.4, "A")]},
    ),
    "two channels": (A + A.replace("a 1", "a 2").replace(" A ", " B "), None),
}


@pytest.mark.parametrize("case", READ)
def test_valid_lines_are_read_alike_strictly_and_leniently(case, rttm):
    text, expected = READ[case]
    write(rttm, text)
    assert turns(rttm) == turns(rttm, lenient=True)
    if expected is not None:
        assert turns(rttm) == expected


def test_touching_turns_share_their_boundary(rttm):
    write(rttm, READ["rounded times touch"][0])
    first, second, third = (turn.segment for turn in read_turns(rttm)["a"])
    assert first.end == second.start
    assert second.end == third.start


# --- what is refused, and what the lenient reader makes of it ------------------------------------

REFUSED = {
    "space in the uri": (
        LINE.format("my file", "A"),
        "line 1: 11 fields where 8 to 10 are expected: names cannot hold spaces",
        {"my file": FULL},
    ),
    "space in a speaker": (
        LINE.format("a", "Jane Doe") + LINE.format("a", "Jane Roe"),
        "line 1: 11 fields",
        {"a": [(0.5, 2.5, "Jane Doe"), (0.5, 2.5, "Jane Roe")]},
    ),
    "no-break space": (
        LINE.format("a", "J\u00a0Doe"),
        "line 1: a space of another kind (U+00A0)",
        {"a": [(0.5, 2.5, "J\u00a0Doe")]},
    ),
    "line separator": (
        LINE.format("a", "J\u2028D"),
        "line 1: a space of another kind (U+2028)",
        {"a": [(0.5, 2.5, "J\u2028D")]},
    ),
    "spaces in both": (
        LINE.format("my long file", "Jane van Doe"),
        "line 1: 14 fields",
        {"my long file": [(0.5, 2.5, "Jane van Doe")]},
    ),
    "space in the speaker, 9 fields": (
        "SPEAKER a 1 0.5 2.0 <NA> <NA> Jane Doe <NA>\n",
        "'Doe' follows the speaker 'Jane', where a confidence",
        {},
    ),
    "space in the uri, 9 fields": (
        "SPEAKER my file 1 0.5 2.0 <NA> <NA> A <NA>\n",
        "'A' follows the speaker '<NA>'",
        {},
    ),
    "numbered speakers, 8 fields": (
        "SPEAKER a 1 0.5 2.0 <NA> <NA> Speaker 1\nSPEAKER a 1 9 2.0 <NA> <NA> Speaker 2\n",
        "line 2: '2' follows the speaker 'Speaker'",
        None,
    ),
    "speakers 0 and 1, 8 fields": (
        "SPEAKER a 1 0.5 2.0 <NA> <NA> Speaker 0\nSPEAKER a 1 9 2.0 <NA> <NA> Speaker 1\n",
        "line 2: '1' follows the speaker 'Speaker'",
        None,
    ),
    "decimal comma": (
        A.replace("0.5 2.0", "0,5 2,0"),
        "line 1: '0,5', '2,0': times must be numbers, with a decimal point",
        {"a": FULL},
    ),
    "thousands": (A.replace("0.5", "1,000.5"), "times must be numbers", {}),
    "NaN": (A.replace("2.0", "nan"), "times must be finite", {}),
    "infinite": (A.replace("2.0", "1e999"), "times must be finite", {}),
    "hexadecimal": (A.replace("2.0", "0x2"), "times must be numbers", {}),
    "other digits": (A.replace("2.0", "\u0662"), "times must be numbers", {}),
    "negative start": (A.replace("0.5", "-0.5"), "negative start", {"a": [(0.0, 1.5, "A")]}),
    "wholly before 0": (A.replace("0.5", "-5"), "negative start", {}),
    "negative duration": (A.replace("2.0", "-2.0"), "negative duration", {}),
    "no speaker": ("SPEAKER a 1 0.5 2.0 <NA> <NA>\n", "7 fields, but the speaker is the 8th", {}),
    "cut short": ("SPEAKER a 1\n", "3 fields where at least 5 are expected", {}),
    "unknown type": (A.replace("SPEAKER", "SPEEKER"), "'SPEEKER' is not an RTTM type", {}),
    "Latin-1": (
        LINE.format("a", COMPOSED).encode("latin-1"),
        "line 1: not UTF-8 (byte 0xe9): save the file as UTF-8",
        {"a": [(0.5, 2.5, COMPOSED)]},
    ),
    "Windows-1252": (
        LINE.format("a", "\u201cA\u201d").encode("cp1252"),
        "line 1: not UTF-8 (byte 0x93)",
        {"a": [(0.5, 2.5, "\u201cA\u201d")]},
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_refused_or_mended_with_a_warning(case, rttm, caplog):
    text, says, mended = REFUSED[case]
    good = LINE.format("good", "A")
    write(rttm, text)
    with pytest.raises(ReadError) as error:
        read_rttm(rttm)
    assert str(rttm) in str(error.value)
    assert says in str(error.value)
    write(rttm, write(rttm, text).read_bytes() + good.encode())
    assert not caplog.text
    found = turns(rttm, lenient=True)
    assert found.pop("good") == FULL
    if mended is not None:
        assert {uri: some for uri, some in found.items() if some} == mended
    if "of another kind" not in says:  # read as it is
        assert f"{rttm}" in caplog.text
        assert re.search(r"line \d", caplog.text)


@pytest.mark.parametrize("lenient", [False, True])
def test_utf_16_without_a_mark_is_refused(rttm, lenient):
    write(rttm, A.encode("utf-16-le"))
    with pytest.raises(ReadError, match=r"line 1: a NUL character.*UTF-16"):
        read_rttm(rttm, lenient)


def test_mixed_encodings_are_guessed_line_by_line(rttm, caplog):
    line = LINE.format("a", COMPOSED)
    write(rttm, line.encode() + line.replace("0.5", "9").encode("latin-1"))
    assert turns(rttm, lenient=True) == {"a": [(0.5, 2.5, COMPOSED), (9.0, 11.0, COMPOSED)]}
    assert "1 lines are not UTF-8 and were read as Windows-1252 (first: line 2)" in caplog.text


def test_repeated_turns_and_turns_of_no_length_are_left_out_with_a_warning(rttm, caplog):
    write(rttm, A + A + A.replace("2.0", "0.0") + LINE.format("b", "A"))
    assert turns(rttm) == {"a": FULL, "b": FULL}
    assert f"repeated turns, left out: 1 (first: {rttm}, line 2)" in caplog.text
    assert f"turns without duration, left out: 1 (first: {rttm}, line 3)" in caplog.text


def test_forms_of_a_name_are_one_name(rttm, caplog):
    """Otherwise one person would be two, and one file two"""
    write(
        rttm,
        LINE.format(DECOMPOSED, DECOMPOSED) + LINE.format(COMPOSED, COMPOSED).replace("0.5", "9"),
    )
    expected = {DECOMPOSED: [(0.5, 2.5, DECOMPOSED), (9.0, 11.0, DECOMPOSED)]}
    assert turns(rttm) == expected
    assert "names in another Unicode form" in caplog.text


def test_folders_are_read_without_the_shadows_of_macos(tmp_path):
    write(tmp_path / "a.RTTM", A)
    write(tmp_path / "._a.rttm", b"\0\5\x16\7")
    write(tmp_path / ".DS_Store", b"\0\0")
    assert turns(tmp_path) == {"a": FULL}


# --- maps ----------------------------------------------------------------------------------------


def test_lines_of_maps(uem):
    write(uem, "\ufeffa 1 0 3\r\n;; c\r\na\t1\t5\t9\r\n")
    assert read_uem(uem) == {"a": Timeline([Segment(0, 3), Segment(5, 9)])}
    write(uem, "my file\t1\t0\t3\n")
    assert read_uem(uem) == {"my file": Timeline([Segment(0, 3)])}


@pytest.mark.parametrize(
    ("text", "says", "mended"),
    [
        ("my file 1 0 3", "line 1: 5 fields where 4 are expected: names", ("my file", 0, 3)),
        ("a 1 0 2\na 1 1 3", "line 2: this region of 'a' overlaps", ("a", 0, 3)),
        ("a 1 0 3\nb 1 3 1", "line 2: end before start", ("a", 0, 3)),
        ("a 1 0,0 3,0", "with a decimal point", ("a", 0, 3)),
        ("a 1 -1 3", "negative start", ("a", 0, 3)),
        ("a 1 0 3\nb 0 3", "line 2: 3 fields where at least 4", ("a", 0, 3)),
        ("a 1 0 3\nb 1 0 inf", "line 2: 0, inf: times must be finite", ("a", 0, 3)),
    ],
)
def test_wrong_lines_of_maps(text, says, mended, uem, caplog):
    write(uem, text)
    with pytest.raises(ReadError, match=re.escape(says)) as error:
        read_uem(uem)
    assert str(uem) in str(error.value)
    uri, start, end = mended
    assert read_uem(uem, lenient=True) == {uri: Timeline([Segment(start, end)])}


def test_channels_of_a_map_are_one_time_line(uem, caplog):
    write(uem, "a A 0 30\na B 0 30\n")
    assert read_uem(uem) == {"a": Timeline([Segment(0, 30)])}
    assert not caplog.text
    write(uem, "a A 0 30\na B 20 40\n")
    assert read_uem(uem) == {"a": Timeline([Segment(0, 40)])}
    assert "the channels of 'a' have different regions: their union is scored" in caplog.text


def score(references, hypotheses, maps=None):
    """Seconds of speech, missed, false and confused, without a collar"""
    one = evaluate(references, hypotheses, maps).scores["automatic", "Full"]
    return {uri: (s.total, s.missed, s.false_alarm, s.confusion) for uri, s in one.items()}


def test_a_narrower_map_decides_what_is_scored(rttm, uem, caplog):
    write(rttm, A + LINE.format("a", "B").replace("0.5", "9"))
    write(uem, "a 1 1 10\n")
    references, maps = read_reference(rttm, uem)
    empty = {"a": Annotation(uri="a")}
    assert score(references, empty, maps) == {"a": (2.5, 2.5, 0, 0)}
    assert "2 turns of 'a' are not scored, or only in part" in caplog.text
    assert f"first: {rttm}, line 1" in caplog.text


def test_collars_of_turns_outside_the_map_stay_as_in_md_eval(rttm, uem):
    write(rttm, A)  # from 0.5 to 2.5
    write(uem, "a 1 2.6 5\n")
    references, maps = read_reference(rttm, uem)
    said = Annotation(uri="a")
    said[Segment(2.6, 5)] = "A"
    fair = evaluate(references, {"a": said}, maps).scores["automatic", "Fair"]["a"]
    assert fair.false_alarm == pytest.approx(5 - 2.75)


def test_a_map_of_fewer_files_decides_which_are_scored(rttm, uem, caplog):
    write(rttm, A + LINE.format("b", "A"))
    write(uem, "a 1 0 10\nc 1 0 10\n")
    references, _ = read_reference(rttm, uem)
    assert list(references) == ["a"]
    assert f"{uem} has no entry for 'b': not scored" in caplog.text
    assert f"{rttm} has no entry for 'c'" in caplog.text
    write(uem, "c 1 0 10\n")
    with pytest.raises(ReadError, match=r"has none of the files of .*'a', but has 'c'"):
        read_reference(rttm, uem)


def test_names_in_two_unicode_forms_meet(rttm, uem, caplog):
    write(rttm, LINE.format(COMPOSED, "A"))
    write(uem, f"{DECOMPOSED} 1 0 10\n")
    references, maps = read_reference(rttm, uem)
    assert list(references) == list(maps) == [COMPOSED]
    hypotheses = {DECOMPOSED: references[COMPOSED]}
    assert score(references, hypotheses, maps) == {COMPOSED: (2.0, 0, 0, 0)}
    assert conditions(references, hypotheses, maps).seconds
    assert "which is spelled differently" in caplog.text


def test_names_that_two_files_could_have_do_not_meet():
    one = Annotation()
    with pytest.raises(ValueError, match="has nothing on"):
        evaluate({"a b": one, "a_b": one}, {"a\tb": one, "a\u00a0b": one})


# --- speech regions ------------------------------------------------------------------------------


def test_lines_of_speech_regions(tmp_path):
    path = write(tmp_path / "a.lab", "\ufeff0\t1\tspeech\r\n# c\r\n1 2 sil\r\n2 3\r\n")
    assert read_lab(path) == {"a": Timeline([Segment(0, 1), Segment(2, 3)])}
    for line, says in (
        ("4 5 background music", "line 2: 4 fields"),
        ("4 5 music", "line 2: 'music' is neither"),
        ("4", "line 2: 1 fields"),
        ("5 4", "line 2: end before start 4"),
        ("4,0 5,0 x", "line 2: '4,0', '5,0': times must be numbers, with"),
    ):
        write(path, f"0 1\n{line}\n")
        with pytest.raises(ReadError, match=says):
            read_lab(path)
        assert read_lab(path, lenient=True) == {"a": Timeline([Segment(0, 1)])}


# --- loaders of protocols ------------------------------------------------------------------------


def test_loaders_find_names_in_other_spellings(tmp_path, caplog):
    for name in ("rttm", "uem", "lab"):
        text = {"rttm": LINE.format(COMPOSED, "A"), "uem": f"{COMPOSED} 1 0 9\n", "lab": "0 9\n"}
        write(tmp_path / f"{COMPOSED}.{name}_strict", text[name])
    for loader, suffix in ((StrictRTTM, "rttm"), (StrictUEM, "uem"), (StrictLAB, "lab")):
        load = loader(tmp_path / f"{COMPOSED}.{suffix}_strict")
        assert load({"uri": DECOMPOSED})
        assert load({"uri": COMPOSED})
        assert "is spelled differently" in caplog.text
    spaced = write(tmp_path / "all.rttm_strict", LINE.format("my_interview", "A"))
    assert StrictRTTM(spaced)({"uri": "my interview"}).labels() == ["A"]
    with pytest.raises(ValueError, match="has no entry for 'your interview'"):
        StrictRTTM(spaced)({"uri": "your interview"})
    write(spaced, LINE.format("my interview", "A"))
    with pytest.raises(ReadError, match="line 1: 11 fields"):
        StrictRTTM(spaced)({"uri": "my interview"})
    assert StrictRTTM(spaced, lenient=True)({"uri": "my interview"}).labels() == ["A"]


def test_lists_of_protocols(tmp_path):
    write(tmp_path / "a.rttm", A)
    write(
        tmp_path / "database.yml",
        "Protocols:\n  Formats:\n    SpeakerDiarization:\n      Lists:\n        train:\n"
        "          uri: a.lst\n          annotation: a.rttm\n",
    )
    name, database = "Formats.SpeakerDiarization.Lists", tmp_path / "database.yml"
    write(tmp_path / "a.lst", "a\r\n\r\n")
    (one,) = files_of(name, database=database)["train"]
    assert one["uri"] == "a"
    write(tmp_path / "a.lst", "\ufeffa\n")
    with pytest.raises(ReadError, match=r"a\.lst begins with a byte order mark"):
        files_of(name, database=database)


# --- writing -------------------------------------------------------------------------------------


def named(uri: str, *speakers) -> Annotation:
    annotation = Annotation(uri=uri)
    for i, speaker in enumerate(speakers):
        annotation[Segment(2 * i, 2 * i + 1), i] = speaker
    return annotation


@pytest.mark.parametrize(
    ("uri", "speaker"),
    [
        ("my interview", "Jane Doe"),
        ("a\tb\nc", "J\u00a0D"),
        ("session1/cam2", "s/1"),
        ("\U0001f600", "\u4f1a\u8b70"),
        (DECOMPOSED, COMPOSED),
        ("-x", "#1"),
    ],
)
def test_what_is_written_is_read_again(uri, speaker, rttm):
    write_rttm(named(uri, speaker, "B"), rttm)
    found = StrictRTTM(rttm)({"uri": uri})
    assert [s for s, _ in found.itertracks()] == [Segment(0, 1), Segment(2, 3)]
    assert set(found.labels()) == {re.sub(r"\s+", "_", speaker), "B"}
    # pyannote's own reader agrees
    from pyannote.database.util import load_rttm

    (other,) = load_rttm(rttm).values()
    assert other.labels() == found.labels()


def test_speakers_never_become_one_by_writing():
    with pytest.raises(ValueError, match="'Jane Doe' and 'Jane_Doe' of 'a' are both called"):
        to_rttm(named("a", "Jane Doe", "Jane_Doe"))
    with pytest.raises(ValueError, match="both called '1'"):
        to_rttm(named("a", 1, "1"))


# --- lists, tables, JSON -------------------------------------------------------------------------


def test_lists_of_names(tmp_path):
    path = tmp_path / "a.lst"
    write(path, "\ufeffone\r\n\r\nsub/two \r\n")
    assert read_names(path) == ["one", "sub/two"]
    write(path, "one\ntwo\none".encode("utf-16"))
    with pytest.raises(ReadError, match=r"a\.lst, line 3: 'one' is already in line 1"):
        read_names(path)
    write(path, b"one\nRen\xe9\n")
    with pytest.raises(ReadError, match=r"a\.lst, line 2: not UTF-8 \(byte 0xe9\)"):
        read_names(path)
    write(path, "one\n../two\n")
    with pytest.raises(ReadError, match=r"a\.lst, line 2: '../two' is not the name"):
        read_names(path)


def test_lists_of_paths(tmp_path):
    for name in (" spaced .wav", "#1.wav", "a\u2028b.wav", "quoted one.wav"):
        (tmp_path / name).touch()
    path = tmp_path / "a.txt"
    write(path, '\ufeff spaced .wav\r\n#1.wav\n# a comment\n\na\u2028b.wav\n"quoted one.wav"\nno')
    names = [" spaced .wav", "#1.wav", "a\u2028b.wav", "quoted one.wav", "no"]
    assert read_paths(path) == [tmp_path / name for name in names]
    write(path, b"Ren\xe9.wav\n")
    with pytest.raises(ReadError, match=r"a\.txt, line 1: neither UTF-8 \(byte 0xe9\) nor"):
        read_paths(path)


MANIFEST = "uri,video,num_speakers\nmonday,m.mp4,2\nsub/tuesday,t.mp4,\n"


@pytest.mark.parametrize(
    "content",
    [
        MANIFEST.encode(),
        MANIFEST.replace(",", ";").replace("\n", "\r\n").encode("utf-8-sig"),
        MANIFEST.replace(",", "\t").encode("utf-16"),
        MANIFEST.replace(",2\n", ",2.0\n").replace(",", ", ").encode(),
        (MANIFEST + ",,\n\n,,\n").encode(),
    ],
)
def test_manifests_of_spreadsheets(tmp_path, content):
    (tmp_path / "list.csv").write_bytes(content)
    monday, tuesday = read_manifest(tmp_path / "list.csv")
    assert (monday.name, monday.options) == ("monday", {"num_speakers": 2})
    assert (tuesday.name, tuesday.options) == ("sub/tuesday", {})
    assert tuesday.media == {"video": str(tmp_path / "t.mp4")}


@pytest.mark.parametrize("name", ["/a", "a//b", "a/", "a/../b", "a/.b", "a\\b", " ", "a/ "])
def test_names_of_manifests_stay_inside(tmp_path, name):
    write(tmp_path / "list.csv", f"uri,video\n{name},m.mp4\n")
    with pytest.raises(ValueError, match=r"line 2, column uri: .* cannot be a name"):
        read_manifest(tmp_path / "list.csv")


def test_marks_and_encodings_of_other_data_files(tmp_path):
    tracks = FaceTracks([0.0], [1], [[0.1, 0.1, 0.2, 0.2]], uri="a", speaker={1: COMPOSED})
    for name in ("t.csv", "t.json"):
        tracks.write(tmp_path / name)
        text = (tmp_path / name).read_text(encoding="utf-8")
        for encoding in ("utf-8-sig", "utf-16"):
            (tmp_path / name).write_bytes(text.replace("\n", "\r\n").encode(encoding))
            assert FaceTracks.read(tmp_path / name).speaker == {1: COMPOSED}
        (tmp_path / name).write_bytes(f"{text} \xe9".encode("latin-1"))
        with pytest.raises(ReadError, match=rf"{name}.*not .*UTF-8"):
            FaceTracks.read(tmp_path / name)
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / "a.json").write_bytes('{"a": "\xe9"}'.encode(encoding))
        assert read_json(tmp_path / "a.json") == {"a": "\xe9"}
        (tmp_path / "a.yaml").write_bytes("a: \xe9\n".encode(encoding))
        assert read_yaml(tmp_path / "a.yaml") == {"a": "\xe9"}


# --- the command ---------------------------------------------------------------------------------


def run(*arguments: object):
    app = Typer()
    app.command()(command.command)
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_evaluate_is_strict_unless_told_otherwise(rttm, uem, tmp_path):
    write(rttm, LINE.format("my file", "A").encode())
    write(uem, "my file 1 0 9\n")
    done = run(rttm, rttm, "--uem", uem)
    assert done.exit_code == 1
    assert "x.rttm, line 1: 11 fields" in done.output
    done = run(rttm, rttm, "--uem", uem, "--lenient", "--csv", tmp_path / "scores.csv")
    assert done.exit_code == 0, done.output
    assert "my file" in (tmp_path / "scores.csv").read_text()


def test_evaluate_with_a_map_that_is_narrower(rttm, uem, caplog):
    write(rttm, A + A.replace("0.5", "20"))
    for text in ("a 1 10 30\n", "a A 0 30\na B 0 30\n"):
        write(uem, text)
        done = run(rttm, rttm, "--uem", uem)
        assert done.exit_code == 0, done.output
    with caplog.at_level(logging.WARNING):
        assert "1 turns of 'a' are not scored" in caplog.text


def test_pyannote_writes_what_the_pipelines_name(rttm):
    """Uris of files with spaces in their names, when none is given"""
    from pyannote_av import Video

    path = rttm.with_name("my interview\u00a0 1.wav")
    path.write_bytes(b"x")
    uri = Video().validate_file(path)["uri"]
    assert uri == "my_interview_1"
    named(uri, "A").write_rttm(io.StringIO())
