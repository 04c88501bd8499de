"""Check that a signal stops all processes once, and that a later second one has its default effect."""

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.small_runs import forget_accelerator
from support.two_processes import in_two_processes, signalled_steps

from hamgan.distributed.stop_signals import SECONDS_BETWEEN, SIGNALS, StopSignals


@pytest.fixture
def signals() -> Iterator[StopSignals]:
    forget_accelerator()
    yield StopSignals()
    forget_accelerator()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_asks_and_the_handlers_return(signals: StopSignals, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with signals:
        assert signals.poll() == (False, False)
        signal.raise_signal(number)
        signal.raise_signal(number)  # a launcher passes on what its process group has got already
        assert signals.poll(write_failed=True) == (True, True)
    assert signal.getsignal(number) == before


def test_a_later_second_signal_acts_by_default(signals: StopSignals) -> None:
    with signals:
        signal.raise_signal(signal.SIGINT)
        signals.asked_at = time.monotonic() - SECONDS_BETWEEN
        signal.signal(signal.SIGINT, signals.ask)
        default = signal.SIG_DFL
        caught: list[int] = []
        # SIGINT by default ends the process: look at the moment before.
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
            signals.ask(signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) == default
            caught = [number for number in signal.sigpending() if number == signal.SIGINT]
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # which drops the pending one
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    assert caught == [signal.SIGINT]


def test_in_another_thread_it_asks_for_nothing(signals: StopSignals) -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def look() -> None:
        with signals:
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [before]


@pytest.mark.skipif(torch.accelerator.is_available(), reason="two processes of gloo, which takes CPU memory")
def test_two_processes_hear_of_a_signal_after_the_same_step(tmp_path: Path) -> None:
    """Check that both stop one step after the signal, since the sum of a step is read in the next one."""
    first, second = in_two_processes(signalled_steps)(tmp_path)
    assert first == second == [(False, False), (False, False), (True, False), (True, True)]
