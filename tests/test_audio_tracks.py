"""Which audio track is read: the right one without asking, and any other one on request."""

import json

import av
import media
import numpy as np
import pytest
from media import Pictures, Sound, tone, write_streams

from pyannote_av.batch.inputs import split_tracks
from pyannote_av.batch.jobs import Job
from pyannote_av.batch.manifest import read_manifest
from pyannote_av.cli.apply import apply_all
from pyannote_av.core.files import MediaError
from pyannote_av.core.io import Video
from pyannote_av.core.media import probe
from pyannote_av.core.streams import choose_audio

DEFAULT, DUB, ORIGINAL, COMMENT, HEARING, VISUAL = 1, 2, 4, 8, 128, 256
TONES = (440, 880, 1320, 1760)  # Hz, of the tracks of a file


def track(number: int, flags: int = 0, language: str = "", title: str = "", **how) -> Sound:
    """Audio track of its own tone"""
    metadata = {"language": language} if language else {}
    metadata |= {"title": title} if title else {}
    how = {"duration": 0.5, "codec": "flac", "rate": 16000} | how
    return Sound(tone(TONES[number]), flags=flags, metadata=metadata, **how)


def heard(path, **options) -> list[int]:
    """Numbers of the tones in what is read"""
    waveform = Video(**options).waveform(path, problems=[])
    levels = [media.level_of(waveform, frequency) for frequency in TONES]
    return [number for number, level in enumerate(levels) if level > 0.02]


STEREO = {"layout": "stereo"}


@pytest.mark.parametrize(
    ("streams", "used"),
    [
        # flags, one by one and together
        ([track(0), track(1, DEFAULT)], [1]),
        ([track(0), track(1, DEFAULT | ORIGINAL)], [1]),
        ([track(0, COMMENT), track(1, DEFAULT | ORIGINAL)], [1]),
        ([track(0, COMMENT), track(1)], [1]),
        ([track(0, COMMENT | DEFAULT), track(1)], [1]),
        ([track(0, VISUAL), track(1, DEFAULT)], [1]),
        ([track(0), track(1, ORIGINAL)], [1]),
        ([track(0, DEFAULT | DUB), track(1, ORIGINAL)], [0]),
        ([track(0, DUB), track(1, ORIGINAL)], [1]),
        ([track(0, COMMENT)], [0]),
        ([track(0, DEFAULT | HEARING), track(1)], [0]),
        # languages
        ([track(0, language="eng"), track(1, DEFAULT, "deu")], [1]),
        ([track(0, DEFAULT, "eng"), track(1, 0, "deu")], [0]),
        ([track(0, language="eng"), track(1, language="deu")], [0]),
        # titles
        ([track(0, title="Director's commentary"), track(1)], [1]),
        ([track(0, title="Audio description"), track(1)], [1]),
        # one microphone a track
        ([track(0), track(1)], [0, 1]),
        ([track(0, DEFAULT), track(1)], [0, 1]),
        ([track(0, DEFAULT), track(1, DEFAULT), track(2, DEFAULT)], [0, 1, 2]),
        ([track(0, 0, "eng", "Anna"), track(1, 0, "eng", "Ben")], [0, 1]),
        ([track(0), track(1), track(2, COMMENT)], [0, 1]),
        # a mix and its parts, as recorders of streams write them
        ([track(0, **STEREO), track(1, **STEREO)], [0]),
        ([track(0, **STEREO), track(1), track(2)], [0]),
    ],
)
def test_the_right_track_without_asking(tmp_path, streams, used):
    path = write_streams(tmp_path / "a.mkv", Pictures(duration=0.2), *streams)
    assert heard(path) == used
    rows = [row for row in Video().streams(path) if row["kind"] == "audio"]
    assert [row["index"] - 1 for row in rows if row["used"]] == used
    assert all(row["reason"] for row in rows)
    problems = []
    Video().waveform(path, problems)
    assert len(problems) == (len(streams) > 1)
    assert all(f"{len(streams)} audio tracks" in problem for problem in problems)


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [(".mp4", "aac"), (".mov", "pcm_s16le"), (".mxf", "pcm_s16le"), (".avi", "pcm_s16le")],
)
def test_a_microphone_a_track_in_any_container(tmp_path, suffix, codec):
    how = {"codec": codec, "rate": 48000}
    pictures = Pictures(duration=0.6, codec="mpeg2video" if suffix == ".mxf" else "mpeg4")
    path = write_streams(tmp_path / f"a{suffix}", pictures, track(0, **how), track(1, **how))
    assert heard(path) == [0, 1]


def test_a_mix_is_a_mean_and_silent_tracks_do_not_count(tmp_path):
    """Broadcast files have eight tracks of which two are used"""
    silent = Sound(lambda t: np.zeros(len(t), np.float32), 0.5, codec="flac", rate=16000)
    path = write_streams(tmp_path / "a.mkv", track(0), silent, track(1), silent, silent)
    waveform = Video().waveform(path, [])
    assert media.level_of(waveform, TONES[0]) == pytest.approx(0.15, abs=0.01)
    assert media.level_of(waveform, TONES[1]) == pytest.approx(0.15, abs=0.01)


@pytest.mark.parametrize("level", [1e-5, 3e-3])
def test_an_unused_microphone_stays_faint(tmp_path, level):
    """Dither does not count in the mean, and noise is not amplified before tracks are mixed"""
    noise = np.random.default_rng(0).uniform(-level, level, 16000).astype(np.float32)
    unused = Sound(lambda t: noise[: len(t)], 0.5, codec="flac", rate=16000)
    problems: list[str] = []
    waveform = Video().waveform(write_streams(tmp_path / "a.mkv", track(0), unused), problems)
    count = 2 if level > 1e-4 else 1
    assert media.level_of(waveform, TONES[0]) == pytest.approx(0.3 / count, abs=0.01)
    assert not any("amplified" in sentence for sentence in problems)


def test_tracks_of_a_mix_keep_their_places(tmp_path):
    late = track(1, start=0.4, duration=0.8)
    path = write_streams(tmp_path / "a.mkv", track(0, duration=0.4), late)
    waveform = Video().waveform(path, [])[0].numpy()
    assert len(waveform) == pytest.approx(1.2 * 16000, abs=20)
    early, rest = waveform[:6000], waveform[6800:]
    assert media.level_of(early, TONES[0]) > 0.14
    assert media.level_of(early, TONES[1]) < 0.01
    assert media.level_of(rest, TONES[1]) > 0.14
    assert media.level_of(rest, TONES[0]) < 0.01


def test_a_speaker_a_channel_is_heard(tmp_path):
    def signal(t):
        return np.stack([tone(TONES[0])(t), tone(TONES[1])(t)])

    path = write_streams(tmp_path / "a.mkv", Sound(signal, codec="flac", layout="stereo"))
    assert heard(path) == [0, 1]


def test_a_track_that_cannot_be_read_is_told(tmp_path):
    """One microphone is broken: the other one is used, and the file says so"""
    path = write_streams(
        tmp_path / "a.mkv",
        Pictures(duration=0.2),
        track(0, codec="aac", rate=48000),
        track(1),
    )
    data = bytearray(path.read_bytes())

    with av.open(str(path)) as container:
        packets = [bytes(p) for p in container.demux(audio=0) if p.size > 40]
    for packet in packets:
        place = data.find(packet)
        data[place : place + len(packet)] = bytes(len(packet))
    path.write_bytes(data)
    problems = []
    waveform = Video().waveform(path, problems)
    assert media.level_of(waveform, TONES[1]) > 0.1
    assert any("stream 1" in problem or "audio stream" in problem for problem in problems)


# --- on request ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Pictures, then English by default, German, a commentary, another microphone"""
    return write_streams(
        tmp_path_factory.mktemp("film") / "film.mkv",
        Pictures(duration=0.2),
        track(0, DEFAULT, "eng"),
        track(1, 0, "ger"),
        track(2, COMMENT, "eng"),
        track(3, 0, "eng"),
    )


@pytest.mark.parametrize(
    ("asked", "used"),
    [
        ("auto", [0]),
        ("mix", [0, 1, 2, 3]),
        (2, [1]),
        ("2", [1]),
        (np.int64(3), [2]),
        ("eng", [0]),
        ("EN", [0]),
        ("deu", [1]),
        ("de", [1]),
        ("ger", [1]),
        ("de-AT", [1]),
    ],
)
def test_a_track_on_request(film, asked, used):
    assert heard(film, audio_track=asked) == used
    assert heard({"video": film, "audio_track": asked}) == used
    # what a file says goes before what the reader says
    assert heard({"video": film, "audio_track": asked}, audio_track=4) == used
    assert heard({"video": film, "audio": film, "audio_track": asked}) == used
    rows = Video().streams({"video": film, "audio_track": asked})
    assert [r["index"] - 1 for r in rows if r["used"] and r["kind"] == "audio"] == used


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            0,
            "stream 0 of .*film.mkv is not an audio stream: choose 'auto', 'mix' or .* 1 .eng",
        ),
        (9, "stream 9 of .*film.mkv is not an audio stream"),
        ("fra", "no audio track of .*film.mkv is in 'fra'"),
        ("loud one", "audio_track must be 'auto', 'mix', the number of an audio stream"),
        (-1, "audio_track must be"),
        (True, "audio_track must be"),
        (1.5, "audio_track must be"),
        ([1], "audio_track must be"),
    ],
)
def test_a_track_that_is_not_there(film, asked, said):
    with pytest.raises(MediaError, match=said):
        Video().waveform({"video": film, "audio_track": asked})


def test_nothing_is_said_about_what_was_asked_for(film):
    problems = []
    Video(audio_track=2).waveform(film, problems)
    assert problems == []


def test_the_callers_mapping_is_left_alone(film):
    file = {"video": film, "audio_track": "2", "uri": "film"}
    before = dict(file)
    Video().waveform(file, [])
    assert file == before
    assert Video.validate_file(file)["audio_track"] == 2


def test_streams_of_two_files(film, tmp_path):
    sound = write_streams(tmp_path / "sound.mkv", track(2), Pictures(duration=0.2))
    rows = Video().streams({"video": film, "audio": sound})
    used = [(row["file"], row["index"]) for row in rows if row["used"]]
    assert used == [(str(film), 0), (str(sound), 0)]
    assert {row["reason"] for row in rows if row["file"] == str(film)} >= {"another file is used"}
    waveform = {"waveform": Video().waveform(sound, []), "sample_rate": 16000}
    assert Video().streams(waveform) == []


# --- commands -----------------------------------------------------------------------------------


def info(path, capsys, *options) -> str:
    from pyannote_av.cli.info import describe

    return "\n".join(describe(path, num_pictures=1, **dict(options)))


def test_info_lists_all_and_says_why(film, capsys):
    lines = info(film, capsys).splitlines()
    streams = [line for line in lines if "used: " in line]
    assert len(streams) == 5
    assert "sound 1: flac, 16000 Hz, 1 channel, eng, default" in streams[1]
    assert streams[1].endswith("used: the default one")
    assert streams[2].endswith("not used: another one is used")
    assert streams[3].endswith("not used: a commentary or description")
    lines = info(film, capsys, ("audio_track", "deu")).splitlines()
    assert [line.split(":")[0].strip() for line in lines if "; used: requested" in line] == [
        "sound 2"
    ]


def test_apply_writes_which_streams_were_used(tmp_path):
    path = write_streams(tmp_path / "talk.mkv", track(0), track(1))
    for asked, used in (("auto", [0, 1]), (1, [1])):
        assert not apply_all([path], tmp_path / "out", "audio", audio_track=asked)
        report = json.loads((tmp_path / "out" / "talk.json").read_text())["report"]
        assert [row["index"] for row in report["streams"] if row["used"]] == used
        assert any("2 audio tracks" in problem for problem in report["problems"]) == (
            asked == "auto"
        )


def test_one_result_per_track(tmp_path):
    path = write_streams(tmp_path / "talk.mkv", track(0), track(1))
    single = write_streams(tmp_path / "single.mkv", track(0))
    assert not apply_all([path, single], tmp_path / "out", "audio", ["json"], audio_track="each")
    names = sorted(p.name for p in (tmp_path / "out").glob("*.json"))
    assert names == ["single.json", "talk_track0.json", "talk_track1.json"]
    report = json.loads((tmp_path / "out" / "talk_track1.json").read_text())["report"]
    assert [row["used"] for row in report["streams"]] == [False, True]


def test_names_of_tracks_never_collide(tmp_path):
    path = write_streams(tmp_path / "a.mkv", track(0), track(1))
    other = write_streams(tmp_path / "a_track1.mkv", track(0))
    parts = split_tracks({path: "a", other: "a_track1"}, "each")
    assert parts == {"a_track0": (path, 0), "a_track1_": (path, 1), "a_track1": (other, "auto")}
    assert split_tracks({path: "a", other: "a_track1"}, "each", progress=True) == parts
    missing = tmp_path / "missing.mkv"
    assert split_tracks({missing: "missing"}, "each") == {"missing": (missing, "auto")}


def test_a_manifest_names_tracks(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("uri,video,audio_track\na,a.mkv,2\nb,a.mkv,mix\nc,a.mkv,\n")
    jobs = read_manifest(path)
    assert [job.columns for job in jobs] == [{"audio_track": 2}, {"audio_track": "mix"}, {}]
    assert jobs[0].file["audio_track"] == 2
    path.write_text("uri,video,audio_track\na,a.mkv,the loud one\n")
    with pytest.raises(ValueError, match=r"line 2, column audio_track: audio_track must be"):
        read_manifest(path)


def test_another_track_is_another_result(film):
    media_of = {"video": str(film)}
    keys = {
        Job("a", media_of, {}, columns).key("work")
        for columns in ({}, {"audio_track": 1}, {"audio_track": "mix"})
    }
    assert len(keys) == 3


def test_stores_take_a_track(film, tmp_path):
    from pyannote_av.data.build import ShardJob, _source

    one = ShardJob("a", {"video": str(film)}, None, 2)
    other = ShardJob("a", {"video": str(film)}, None)
    assert _source(one, None) != _source(other, None)


def test_the_order_of_tracks_is_that_of_choice(film):
    assert [stream.index for stream in probe(film).audio] == [1, 2, 4, 3]
    assert choose_audio(probe(film)).reason == "the default one (stream 1) is used"
