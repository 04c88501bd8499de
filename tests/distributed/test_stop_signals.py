"""Check that a signal stops all processes once, and that a later second one ends the process."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.small_runs import environment, forget_accelerator
from support.two_processes import in_two_processes, signalled_steps

from hamgan.distributed.stop_signals import SIGNALS, StopSignals


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


@pytest.mark.parametrize(("launched", "pause", "code"), [("", 0.5, 130), ("", 0.0, 0), ("2", 0.5, 0), ("2", 2.2, 130)])
def test_a_later_second_signal_ends_the_process(launched: str, pause: float, code: int) -> None:
    """Send two: a launcher's pair within two seconds counts as one, without a launcher only what comes at once does."""
    program = f"""if True:
        import signal, time
        from hamgan.distributed.stop_signals import StopSignals
        with StopSignals():
            signal.raise_signal(signal.SIGINT)
            time.sleep({pause})
            signal.raise_signal(signal.SIGINT)
    """
    variables = environment() | ({"WORLD_SIZE": launched} if launched else {})
    done = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (
        code,
        "SIGINT: stopping after this step; a second one ends the run at once\n",
    )


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
