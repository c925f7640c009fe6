"""Caching of steps: computed once, for the same inputs only, and never in a file of the caller."""

import copy
import os
import pickle
import threading
import time

import numpy as np
import pytest
import torch

from pyannote_av.core.caching import (
    CachedFile,
    Entry,
    MemoryCache,
    Session,
    cached,
    checksum,
    current_session,
    for_pipeline,
    media_checksum,
    use,
)
from pyannote_av.pipelines.active_speaker_detection import ActiveSpeakerDetection
from pyannote_av.tuning.cache import Cache


def counted():
    """Something to compute, and how often it was"""
    calls = []

    def compute():
        calls.append(1)
        return np.arange(3) + len(calls)

    return calls, compute


def open_file(cache, media="media", pipeline="pipeline", **content) -> CachedFile:
    return CachedFile({"uri": "x", **content}, Session(cache), media, pipeline)


@pytest.fixture(params=["memory", "folder"])
def cache(request, tmp_path):
    return MemoryCache() if request.param == "memory" else Cache(tmp_path)


def test_sets_are_told_apart_whatever_their_order():
    assert checksum({"a", "b"}) == checksum({"b", "a"}) != checksum({"a", "c"})


def test_steps_are_computed_once_per_input(cache):
    calls, compute = counted()
    first = cached(open_file(cache), "step", ("a", 1.0), compute)
    cached(open_file(cache), "step", ("b", 1.0), compute)
    assert len(calls) == 2
    for key in ("a", "b", "a"):
        found = cached(open_file(cache), "step", (key, 1.0), compute)
        np.testing.assert_array_equal(found, first if key == "a" else first + 1)
    assert len(calls) == 2
    cached(open_file(cache, media="other"), "step", ("a", 1.0), compute)
    cached(open_file(cache), "other step", ("a", 1.0), compute)
    assert len(calls) == 4


def test_without_a_cache_nothing_is_kept():
    calls, compute = counted()
    file = {"uri": "x"}
    for _ in range(2):
        cached(file, "step", None, compute)
    assert len(calls) == 2
    assert file == {"uri": "x"}
    assert for_pipeline(file, None) is file


def test_another_process_finds_them(tmp_path):
    calls, compute = counted()
    for _ in range(2):  # each with a memory of its own
        cached(open_file(Cache(tmp_path)), "step", None, compute)
    assert len(calls) == 1


def test_networks_are_told_apart_by_their_weights():
    torch.manual_seed(0)
    one, other = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
    assert checksum(one) == checksum(copy.deepcopy(one)) != checksum(other)
    before = checksum(one)
    with torch.no_grad():
        one.weight[0, 0] += 1e-3
    changed = checksum(one)
    assert changed != before
    one.load_state_dict(other.state_dict())
    assert checksum(one) == checksum(other)
    with torch.inference_mode():
        frozen = torch.nn.Linear(3, 3)
        frozen.load_state_dict(other.state_dict())
        assert checksum(frozen) == checksum(other)


def test_what_is_computed_on_first_use_changes_nothing():
    pipeline = ActiveSpeakerDetection(scorer="synchrony")
    before = checksum(pipeline)
    assert pipeline._faces.instantiated
    assert checksum(pipeline) == before


def test_media_are_told_apart_by_their_content(tmp_path):
    one, other = tmp_path / "one.wav", tmp_path / "other.wav"
    for path in (one, other):
        path.write_bytes(b"sound" * 1000)
    first = media_checksum({"uri": "a", "audio": str(one)})
    assert media_checksum({"uri": "b", "audio": str(other)}) == first
    assert media_checksum({"uri": "a", "video": str(one)}) != first
    # the same size: only the content and the time of the change tell
    one.write_bytes(b"other" * 1000)
    os.utime(one, ns=(0, 0))
    assert media_checksum({"uri": "a", "audio": str(one)}) != first

    waveform = torch.zeros(1, 1000)
    in_memory = {"uri": "a", "waveform": waveform, "sample_rate": 16000}
    first = media_checksum(in_memory)
    assert media_checksum({**in_memory, "waveform": waveform.clone()}) == first
    waveform[0, 500] = 1e-6
    assert media_checksum(in_memory) != first


def test_steps_of_pyannote_are_cached_per_pipeline(cache):
    """They look whether there is something in the file, and put it there if not"""
    name = "training_cache/segmentation"
    # what another pipeline left in a mapping is not used
    one = open_file(cache, **{name: "stale"})
    assert name not in one
    assert set(one) == {"uri"}
    one[name] = np.arange(3)
    assert open_file(cache).get(name).tolist() == [0, 1, 2]
    assert for_pipeline(open_file(cache), "pipeline").get(name).tolist() == [0, 1, 2]
    assert name not in for_pipeline(open_file(cache), "other pipeline")
    assert name not in open_file(cache, media="other")
    # everything else stays in the file
    one["other"] = 1
    assert set(one) == {"uri", "other"}
    assert "other" not in open_file(cache)


def test_who_gives_up_does_not_keep_others_waiting(tmp_path):
    name = "training_cache/segmentation"
    with use(Cache(tmp_path)) as session:
        assert name not in CachedFile({}, session, "media", "pipeline")
    with use(Cache(tmp_path)) as session:
        assert name not in CachedFile({}, session, "media", "pipeline")


def test_seconds_that_steps_took_are_known(cache):
    with use(cache) as session:
        file = CachedFile({}, session, "media", None)
        cached(file, "step", None, lambda: time.sleep(0.05))
        assert sum(session.borrowed.values()) == 0.0
    with use(cache) as session:
        file = CachedFile({}, session, "media", None)
        for _ in range(2):
            cached(file, "step", None, lambda: None)
        assert 0.05 <= sum(session.borrowed.values()) < 1


def test_who_needs_what_another_one_computes_waits(tmp_path):
    begun, calls = threading.Event(), []

    def slowly():
        calls.append(1)
        begun.set()
        time.sleep(0.3)
        return 5

    one, two = Session(Cache(tmp_path)), Session(Cache(tmp_path))
    thread = threading.Thread(target=one.cached, args=("ab12", "step", slowly))
    thread.start()
    begun.wait()
    assert two.cached("ab12", "step", slowly) == 5
    thread.join()
    assert len(calls) == 1
    assert two.waited > 0.1


def test_a_step_within_a_step(cache):
    file = open_file(cache)
    inner_calls, inner = counted()
    outer = cached(file, "outer", None, lambda: cached(file, "inner", None, inner) + 1)
    assert outer.tolist() == [2, 3, 4]
    assert cached(file, "inner", None, inner).tolist() == [1, 2, 3]
    assert len(inner_calls) == 1


def test_others_wait_while_a_step_within_a_step_is_stored(tmp_path):
    stored, calls = threading.Event(), []
    one, two = Session(Cache(tmp_path)), Session(Cache(tmp_path))

    def slowly():
        calls.append(1)
        assert one.look_up("cd34") is None
        one.store("cd34", "inner", 3)
        stored.set()
        time.sleep(0.3)
        return 5

    thread = threading.Thread(target=one.cached, args=("ab12", "step", slowly))
    thread.start()
    stored.wait()
    assert two.cached("ab12", "step", lambda: calls.append(2)) == 5
    thread.join()
    assert calls == [1]


def test_a_step_that_fails_is_computed_again(cache):
    def fail():
        raise ValueError("no")

    file = open_file(cache)
    with pytest.raises(ValueError, match="no"):
        cached(file, "step", None, fail)
    assert cached(file, "step", None, lambda: 1) == 1


def test_damaged_entries_are_reported_and_computed_again(tmp_path, caplog):
    calls, compute = counted()
    cached(open_file(Cache(tmp_path)), "step", None, compute)
    (path,) = tmp_path.glob("??/*.entry")
    path.write_bytes(path.read_bytes()[:50])
    for _ in range(2):
        cached(open_file(Cache(tmp_path)), "step", None, compute)
    assert len(calls) == 2
    (warning,) = caplog.messages
    assert "cannot be read (it is damaged): it is computed again" in warning


def test_what_cannot_be_kept_is_reported(tmp_path, caplog):
    strange = object()
    assert cached(open_file(Cache(tmp_path)), "step", None, lambda: strange) is strange
    assert "step could not be kept" in caplog.text


def test_sound_is_kept_in_memory_only(tmp_path):
    cache = Cache(tmp_path)
    for _ in range(2):
        sound = Session(cache).cached("ab12", "sound", lambda: torch.zeros(1, 5), in_memory=True)
        assert sound.shape == (1, 5)
    assert cache.size() == (0, 0)
    assert len(cache.memory) == 1


def test_memory_is_limited_and_the_largest_values_go_first():
    cache = MemoryCache(max_bytes=1000)
    for name, size in (("sound", 600), ("scores", 100), ("embeddings", 200)):
        cache.write(name, Entry(name, 1.0, {"values": [np.zeros(size, np.uint8)]}))
    cache.write("more", Entry("more", 1.0, (torch.zeros(200, dtype=torch.uint8), "text")))
    assert cache.read("sound") is None
    assert all(cache.read(name) for name in ("scores", "embeddings", "more"))
    cache.write("too much", Entry("too much", 1.0, np.zeros(2000)))
    assert cache.read("too much") is None
    assert len(cache) == 3


def test_copies_of_a_memory_start_empty():
    cache = MemoryCache(max_bytes=1000)
    cache.write("a", Entry("a", 1.0, 1))
    for other in (copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))):
        assert (len(other), other.max_bytes) == (0, 1000)


def test_a_cache_is_used_in_its_own_thread_only():
    found = []
    with use(MemoryCache()) as outer:
        with use(MemoryCache()) as inner:
            assert current_session() is inner
        thread = threading.Thread(target=lambda: found.append(current_session()))
        thread.start()
        thread.join()
        assert current_session() is outer
    assert found == [None]
    assert current_session() is None
