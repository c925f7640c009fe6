"""Work of other threads: order, exceptions, limits, and no thread that is left over."""

import threading
import time

import pytest
import torch

from pyannote_av.core.threads import Background, ahead, on_all_cores


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def test_items_are_taken_in_order_and_in_another_thread():
    where = []

    def items():
        for k in range(50):
            where.append(threading.get_ident())
            yield k

    assert list(ahead(items(), 3)) == list(range(50))
    assert list(ahead([], 3)) == []
    assert list(ahead([None, None], 1)) == [None, None]
    assert set(where) != {threading.get_ident()}
    assert len(set(where)) == 1


def test_no_more_than_a_few_are_taken_in_advance():
    taken = []
    items = ahead((taken.append(k) or k for k in range(100)), 4)
    assert next(items) == 0
    time.sleep(0.3)
    # four wait, and one more is ready
    assert len(taken) == 6
    items.close()
    assert len(taken) <= 7


def test_exceptions_come_after_the_items_before_them():
    def items():
        yield 1
        yield 2
        raise ValueError("broken at 2 s")

    seen = []
    with pytest.raises(ValueError, match="broken at 2 s"):
        seen.extend(ahead(items(), 8))
    assert seen == [1, 2]


def test_caller_that_stops():
    def endless():
        while True:
            yield 0

    with pytest.raises(ZeroDivisionError):
        sum(1 / item for item in ahead(endless(), 2))


def test_functions_run_in_order():
    background, seen = Background(10), []
    for k in range(20):
        background.submit(1, seen.append, k)
    background.finish()
    background.close()
    assert seen == list(range(20))


def test_what_waits_is_limited():
    background, go = Background(3), threading.Event()
    background.submit(1, go.wait)
    background.submit(2, int)
    threading.Timer(0.3, go.set).start()
    begin = time.monotonic()
    background.submit(1, int)
    assert time.monotonic() - begin > 0.2
    background.finish()
    background.close()


def test_exception_of_a_function():
    background = Background(10)
    background.submit(1, int, "x")
    with pytest.raises(ValueError, match="invalid literal"):
        background.finish()
    background.close()


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_on_all_cores_keeps_the_order_and_the_number_of_threads(two_threads):
    seen = []

    def function(k: int) -> int:
        seen.append((threading.get_ident(), torch.get_num_threads()))
        time.sleep(0.02 if k % 2 else 0.001)
        return k * k

    assert list(on_all_cores(function, range(20))) == [k * k for k in range(20)]
    assert {number for _, number in seen} == {1}
    assert len({thread for thread, _ in seen}) == 2
    # here, and in threads that begin later
    assert torch.get_num_threads() == 2
    later = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [2]


def test_on_all_cores_raises_and_stops(two_threads):
    done = []

    def function(k: int) -> int:
        if k == 3:
            raise ValueError("broken at 3 s")
        done.append(k)
        return k

    found = []
    with pytest.raises(ValueError, match="broken at 3 s"):
        found.extend(on_all_cores(function, range(1000)))
    assert found == [0, 1, 2]
    assert len(done) < 10
    endless = on_all_cores(function, iter(int, 1))
    assert next(endless) == 0
    endless.close()


def test_on_one_core_or_another_device_nothing_runs_elsewhere(two_threads):
    here = {threading.get_ident()}

    def function(_) -> int:
        return threading.get_ident()

    assert set(on_all_cores(function, range(5), torch.device("meta"))) == here
    torch.set_num_threads(1)
    assert set(on_all_cores(function, range(5), torch.device("cpu"))) == here
