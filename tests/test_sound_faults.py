"""Faults of sound and of the clock: the result is right, or the report says what is missing."""

import re
from itertools import pairwise

import faults_sound
import media
import numpy as np
import pytest
import torch
from faults_sound import FAULTS
from hypothesis import given, settings
from hypothesis import strategies as st

from pyannote_av.core.clock import GAP, Joint, Packet, Parts, Settling
from pyannote_av.core.io import Video
from pyannote_av.core.mixing import Mixer, level
from pyannote_av.core.sound import _Repairs, _Waveform

RATE = 16000


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.id)
def test_fault(tmp_path, fault):
    file = fault.make(tmp_path)
    kept = file["waveform"].clone() if isinstance(file, dict) else None
    video, problems = Video(), []
    waveform = video.waveform(file, problems)[0].numpy()

    for made, found in zip(fault.sound_at, fault.found_at or fault.sound_at, strict=True):
        assert media.offset_at(waveform, made, found) == pytest.approx(0, abs=fault.within), made
    for first, end in fault.silent:
        assert np.abs(waveform[round(first * RATE) : round(end * RATE)]).max() < 1e-3
    assert len(waveform) / RATE == pytest.approx(fault.duration, abs=0.15)
    # what a header declares, and what FLAC leaves out at a joint
    declared = {"cut-short": 6.0, "joined-flac": 5.7}.get(fault.id, fault.duration)
    assert video.get_duration(file) == pytest.approx(declared, abs=0.2)
    if fault.sound_at and fault.level is not None:
        assert np.quantile(np.abs(waveform), 0.98) == pytest.approx(fault.level, rel=0.1)
    if fault.message is None:
        assert problems == []
    else:
        assert any(fault.message in sentence for sentence in problems), problems
    if kept is not None:
        np.testing.assert_array_equal(kept.numpy(), file["waveform"].numpy())  # NaN equals NaN


def test_rows_are_distinct():
    names = [fault.id for fault in FAULTS]
    assert len(set(names)) == len(names) >= 40
    assert all(re.fullmatch(r"[a-z0-9-]+", name) for name in names)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("joined.ts", {}),
        ("joined.mkv", {}),
        ("leap.ts", {"starts": (0.0, 3600.0)}),
        ("earlier.ts", {"starts": (3600.0, 0.0)}),
    ],
)
def test_pictures_of_joined_recordings_stay_with_the_sound(tmp_path, name, how):
    path = faults_sound._joined(tmp_path, name, **how)
    problems = []
    frames = list(Video().frames(path, problems=problems))
    lags = [f.time - media.read_time(f.image) for f in frames if not f.repeated]
    second = [
        lag
        for f, lag in zip([f for f in frames if not f.repeated], lags, strict=True)
        if f.time > 3.1
    ]
    waveform = Video().waveform(path, [])[0].numpy()
    sound = media.offset_at(waveform, 5.0)
    # the second recording draws its own time, and says what is made three seconds later
    assert len(second) > 60
    assert np.abs(np.array(second) - 3.0 - sound).max() < 0.07
    assert any("inconsistent timestamps" in sentence for sentence in problems)
    part = [f.pts for f in Video().frames(path, start=4.0, end=5.0)]
    assert part == [f.pts for f in frames if 4.0 <= f.time < 5.0]


def test_pictures_before_the_clock_wraps(tmp_path):
    path = faults_sound._film(tmp_path, "wrap.ts", faults_sound.WRAP - 2.0, 6.0)
    video, problems = Video(), []
    frames = list(video.frames(path, problems=problems))
    lags = np.array([f.time - media.read_time(f.image) for f in frames if not f.repeated])
    assert len(frames) == 150
    assert np.ptp(lags) < 0.045
    assert problems == []
    part = list(video.frames(path, start=3.0, end=4.0))
    assert [f.pts for f in part] == [f.pts for f in frames if 3.0 <= f.time < 4.0]


@pytest.mark.parametrize("name", ["short.flv", "short.wmv", "still.mkv", "trimmed.mp4"])
def test_whole_files_are_not_called_cut_short(tmp_path, name):
    make = {
        "short.flv": lambda f: faults_sound._one_track_shorter(f, name, audio_rate=44100),
        "short.wmv": lambda f: faults_sound._one_track_shorter(
            f, name, video_codec="mpeg4", audio_codec="libmp3lame", audio_rate=44100
        ),
        "still.mkv": lambda f: faults_sound._film(f, name, duration=6.0, timestamps=[0.0]),
        "trimmed.mp4": faults_sound._trimmed,
    }
    problems = []
    path = make[name](tmp_path)
    assert list(Video().frames(path, problems=problems))
    Video().waveform(path, problems)
    assert problems == []


def test_truncated_flv_is_reported_for_both_streams(tmp_path):
    """Both streams end before the declared end, so the file is cut short"""
    path = faults_sound._film(tmp_path, "cut.flv", duration=6.0, audio_rate=44100)
    media.truncate(path, 0.5)
    problems = []
    list(Video().frames(path, problems=problems))
    Video().waveform(path, problems)
    assert sum("cut short" in sentence for sentence in problems) == 2


def test_clean_sound_is_not_touched(tmp_path):
    """Two channels with a conversation: nothing is said, and the average is exact"""
    times = np.arange(4 * RATE) / RATE
    left, right = media.chirps(times), media.chirps(times + 100.0)
    path = media.write_floats(tmp_path / "two.wav", np.stack([left, right], axis=1))
    problems = []
    waveform = Video().waveform(path, problems)[0].numpy()
    assert problems == []
    assert np.array_equal(waveform, np.stack([left, right]).mean(axis=0, dtype=np.float32))
    memory = {"waveform": torch.from_numpy(np.stack([left, right])), "sample_rate": RATE}
    assert np.array_equal(Video().waveform(memory, problems)[0].numpy(), waveform)
    assert problems == []


# --- placing, by numbers ------------------------------------------------------------------------


def _settle(stamps, length=0.02, accepts=lambda time: True):
    counts = {"misplaced": 0, "restarted": 0}

    def count(name):
        counts[name] += 1

    settling = Settling(accepts, lambda: count("misplaced"), lambda: count("restarted"))
    blocks = [(stamp, length, number) for number, stamp in enumerate(stamps)]
    return list(settling(blocks, 0.0)), settling, counts


def test_dead_channel_after_mono_sound():
    """Only an average over all of the sound is made louder: here, a half of it is no average"""
    mixer, sound = Mixer(RATE), np.sin(np.arange(RATE)).astype(np.float32)
    stereo = np.stack([sound, np.zeros_like(sound)], axis=1)
    waveform = np.concatenate([mixer.mix(sound[:, None], 0.0), mixer.mix(stereo, 1.0)])
    levelled, sentences = level(waveform, mixer)
    np.testing.assert_array_equal(levelled[:RATE], sound)
    assert any("2 channels, of which 1 is silent" in sentence for sentence in sentences)
    mixer = Mixer(RATE)
    levelled, _ = level(mixer.mix(stereo, 0.0), mixer)
    np.testing.assert_allclose(levelled, sound)


@pytest.mark.parametrize(("loudness", "said"), [(0.0, "is silent from"), (1e-3, "is very quiet")])
def test_spikes_do_not_hide_what_is_wrong_with_the_rest(loudness, said):
    waveform = np.float32(loudness) * np.sin(np.arange(10 * RATE)).astype(np.float32)
    waveform[[RATE, 3 * RATE]] = 5000.0
    waveform, sentences = level(waveform, Mixer(RATE))
    assert "has 2 samples of up to 5000" in sentences[0]
    assert sentences[1].startswith(said)
    assert np.abs(waveform).max() == pytest.approx(0.5 if loudness else 0.0)


def test_bad_samples_that_decoding_makes_are_told_with_their_times():
    repairs = _Repairs()
    waveform = _Waveform(RATE, RATE, repairs)
    waveform.lay(0, np.ones(RATE, np.float32))
    waveform.lay(RATE, np.array([1, np.nan, 1, np.inf], np.float32))
    assert waveform.finish()[RATE:].tolist() == [1, 0, 1, 0]
    (sentence,) = repairs.describe()
    assert "2 samples" in sentence
    assert "from 1.00 to 1.00 s" in sentence


def test_exact_stamps_are_taken_as_they_are():
    placed, settling, _ = _settle([0.02 * k for k in range(200)])
    assert [p.time for p in placed] == pytest.approx([0.02 * k for k in range(200)])
    assert settling.drift == settling.wobble == 0


def test_blocks_without_stamps_follow_each_other():
    placed, _, _ = _settle([None] * 10)
    assert [p.time for p in placed] == pytest.approx([0.02 * k for k in range(10)])


def test_lost_packet_is_a_gap():
    stamps = [0.02 * k for k in range(200) if k != 100]
    placed, settling, _ = _settle(stamps)
    assert [p.time for p in placed] == pytest.approx(stamps)
    assert settling.drift == 0


def test_every_block_of_a_stair_of_gaps_is_at_its_stamp():
    stamps = [3.0 * k for k in range(50)]
    placed, _, _ = _settle(stamps)
    assert [p.time for p in placed] == stamps


def test_overlap_is_left_out_and_what_follows_is_in_place():
    stamps = [0.02 * k for k in range(100)] + [0.02 * k for k in range(95, 200)]
    placed, _, counts = _settle(stamps)
    assert placed[-1].time == pytest.approx(stamps[-1], abs=GAP)
    assert counts["misplaced"] == 5


def test_restart_goes_on():
    stamps = [0.02 * k for k in range(100)] * 2
    placed, _, counts = _settle(stamps)
    assert [p.time for p in placed] == pytest.approx([0.02 * k for k in range(200)])
    assert counts == {"misplaced": 0, "restarted": 1}


def test_stamps_that_stand_still_are_ignored():
    """As ffmpeg writes them where recordings are joined without a new clock"""
    stamps = [0.02 * k for k in range(100)] + [2.0 + 0.001 * k for k in range(200)]
    placed, settling, counts = _settle(stamps)
    assert [p.time for p in placed] == pytest.approx([0.02 * k for k in range(300)])
    assert settling.stood > 3.5
    assert counts == {"misplaced": 0, "restarted": 0}


def test_lost_packets_among_odd_stamps():
    """As damage leaves them: gaps here and there, blocks without stamps, and absurd stamps"""
    stamps = [0.02 * k for k in range(400)]
    true = stamps.copy()
    for k in (104, 130, 160):
        stamps[k] = 6804.0
    for k in range(140, 150):
        stamps[k] = None
    lost = {100, 101, 102, 103, 120, 155, 156}
    kept = [k for k in range(400) if k not in lost]
    placed, settling, _ = _settle([stamps[k] for k in kept])
    assert [p.time for p in placed] == pytest.approx([true[k] for k in kept])
    assert settling.drift == 0


@given(
    steps=st.lists(
        st.sampled_from([0.02] * 6 + [0.0, 0.1, 1.0, 50.0, -0.05, -1.0, -90.0]), max_size=300
    ),
    lost=st.sets(st.integers(0, 299)),
)
@settings(max_examples=60, deadline=None)
def test_any_stamps_are_placed_in_order(steps, lost):
    stamps = [None if k in lost else t for k, t in enumerate(np.cumsum(steps).tolist())]
    placed, _, counts = _settle(stamps, accepts=lambda time: time < 1000)
    assert [p.block for p in placed] == sorted({p.block for p in placed})
    assert len(placed) + counts["misplaced"] == len(stamps)
    ends = [p.time + 0.02 for p in placed]
    assert all(end > before - GAP for before, end in pairwise(ends))


@pytest.mark.parametrize("rate", [1e-4, -1e-4, 0.02, -0.02])
def test_drift_is_made_up_for(rate):
    stamps = [0.02 * k * (1 + rate) for k in range(20_000)]
    placed, settling, counts = _settle(stamps)
    assert np.abs([p.time - s for p, s in zip(placed, stamps, strict=True)]).max() < 0.04
    assert settling.drift == pytest.approx(abs(stamps[-1] - 0.02 * 19_999), abs=0.05)
    assert counts == {"misplaced": 0, "restarted": 0}


def test_joints_of_interleaved_streams():
    """Two recordings of 3 s and 2.9 s; the second stream jumps a little before the first"""
    parts = Parts("mpegts")
    for part in range(2):
        for k in range(30):
            for index, late in ((0, 0.0), (1, 0.05)):
                time = 1.4 + 0.1 * k + late
                position = part * 10_000 + 100 * k + 10 * index
                parts.add(index, Packet(position, time, time, time + 0.1))
    found = parts.finish()
    assert found.joints == (Joint(10_000, pytest.approx(3.05)),)
    assert found.end == pytest.approx(1.4 + 6.1)


def test_one_odd_stamp_is_ignored():
    stamps = [0.02 * k + 100.0 * (k == 120) for k in range(300)]
    placed, settling, counts = _settle(stamps)
    assert [p.time for p in placed] == pytest.approx([0.02 * k for k in range(300)])
    assert settling.wobble == pytest.approx(100.0)
    assert counts == {"misplaced": 0, "restarted": 0}


@pytest.mark.parametrize("clock", [0.999, 0.99, 1.06])
def test_drifting_sound_keeps_its_times(tmp_path, clock):
    """Clicks every half second, made at their time by a clock that is too slow or too fast"""

    def clicks(t):
        return (0.5 * np.sin(2 * np.pi * 1000 * t) * (np.mod(t, 0.5) < 0.01)).astype(np.float32)

    path = tmp_path / "drift.mka"
    media.write_stamped(path, lambda t, k: t, duration=12.0, clock=clock, signal=clicks)
    problems = []
    waveform = Video().waveform(path, problems)[0].numpy()
    onsets = [
        k * 0.5 - 0.2 + np.argmax(np.abs(waveform[round((k * 0.5 - 0.2) * RATE) :]) > 0.2) / RATE
        for k in range(1, 23)
    ]
    assert np.abs(np.array(onsets) - 0.5 * np.arange(1, 23)).max() < 0.03
    assert not any("gap" in sentence or "timestamps" in sentence for sentence in problems)


def test_one_odd_stamp_is_no_joint():
    parts = Parts("mpegts")
    for k in range(30):
        time = -500.0 if k == 10 else 0.1 * k
        parts.add(0, Packet(100 * k, time, time, time + 0.1))
    assert parts.finish().joints == ()
