"""Stop a run on signals, at the same step on all processes and without making the device wait."""

import contextlib
import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

import torch
import torch.distributed as dist

from hamgan.distributed.group import rank, world_size
from hamgan.errors import RaisedByAll

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

SECONDS_BETWEEN = 2.0
"""Time within which a second signal counts as the first one: a launcher forwards signals that its process group has
received already, so one Ctrl-C or scancel arrives twice."""
SECONDS_BETWEEN_ALONE = 0.2
"""The same without a launcher, where a second Ctrl-C is meant; ``timeout`` sends its signal twice at once."""


class StopSignals:
    """Stop a run after its step on SIGTERM, SIGINT or SIGUSR1 (SLURM's warning); a second signal ends it at once.

    A context manager that restores the previous handlers at the end. Outside the main thread, where Python allows no
    handlers, it does nothing.
    """

    def __init__(self) -> None:
        self.asked_at: float | None = None
        self._handlers: dict[int, Any] = {}
        self._pending: tuple[torch.Tensor, dist.Work] | None = None

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self.ask) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        # Python aborts if it ends during a collective, which others never join after an error of one process.
        if self._pending is not None and (error is None or isinstance(error, RaisedByAll)):
            self._pending[1].wait()

    def ask(self, number: int, _frame: FrameType | None = None) -> None:
        """Handle a signal: announce the stop on the first one, exit with 128 + its number on a later one."""
        now = time.monotonic()
        if self.asked_at is None:
            self.asked_at = now
            if rank() == 0:
                # Not by print, which the signal may have interrupted. After a progress bar the message needs its own
                # line.
                start = "\n" if os.isatty(2) else ""
                line = f"{signal.Signals(number).name}: stopping after this step; a second one ends the run at once"
                with contextlib.suppress(OSError):
                    os.write(2, f"{start}{line}\n".encode())
        elif now - self.asked_at >= (SECONDS_BETWEEN if "WORLD_SIZE" in os.environ else SECONDS_BETWEEN_ALONE):
            os._exit(128 + number)

    def poll(self, write_failed: bool = False) -> tuple[bool, bool]:
        """Return whether to stop now, and whether writing has failed on some process; the same on all of them.

        With several processes the answer is that of the previous step, summed on the CPUs in the meantime: no device
        waits for it, and a process waits only if another one is more than a step behind.
        """
        asked = self.asked_at is not None
        if world_size() == 1:
            return asked, write_failed
        before = self._pending
        answers = torch.tensor([float(asked), float(write_failed)])
        self._pending = answers, dist.all_reduce(answers, async_op=True)
        if before is None:
            return False, False
        answers, work = before
        work.wait()
        stop, failed = answers.tolist()
        return stop > 0, failed > 0
