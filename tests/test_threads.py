"""Work of other threads: order, exceptions, limits, and no thread that is left over."""

import threading
import time

import pytest

from pyannote_av.core.threads import Background, ahead


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
