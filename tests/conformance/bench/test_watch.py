"""The limit on a call breaks into it, and leaves the process's alarms as they were."""

from __future__ import annotations

import contextlib
import math
import signal
import threading

import pytest

from conformance.bench.watch import Overrun, limited


def test_a_call_that_never_ends_is_broken_off() -> None:
    def endless() -> None:
        with limited(0.01):
            while True:
                pass

    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(Overrun):
        endless()
    assert not issubclass(Overrun, Exception)  # which an engine may swallow
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_an_alarm_that_is_lost_in_a_destructor_rings_again() -> None:
    class Deaf:
        def __del__(self) -> None:
            with contextlib.suppress(Overrun):
                while True:
                    pass

    def work() -> None:
        with limited(0.01):
            Deaf()
            while True:
                pass

    with pytest.raises(Overrun):
        work()


@pytest.mark.parametrize("seconds", [100.0, math.inf])
def test_a_call_in_time_is_left_alone(seconds: float) -> None:
    with limited(seconds):
        done = True
    assert done
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_elsewhere_than_in_the_main_thread_nothing_is_limited() -> None:
    done = []

    def work() -> None:
        with limited(1e-3):
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]
