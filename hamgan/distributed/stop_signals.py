"""Let signals ask a run to stop, with one answer for all processes and without making the device wait."""

import contextlib
import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

import torch

from hamgan.distributed.group import Processes

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

SECONDS_BETWEEN = 2.0
"""Time within which a second signal counts as the first one: a launcher passes on what its whole process group has got
already, so one Ctrl-C or scancel arrives twice within a moment."""
SECONDS_BETWEEN_ALONE = 0.2
"""The same without a launcher, for a person who presses Ctrl-C twice; ``timeout`` sends its signal twice at once."""


class StopSignals:
    """Take SIGTERM, SIGINT and SIGUSR1 (SLURM's warning) as a wish to stop after the step; a second one ends at once.

    A context manager: the handlers that were there return at the end. In other threads than the main one Python allows
    no handlers, so there it asks for nothing.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.processes = device, Processes.current()
        self.asked_at: float | None = None
        self._handlers: dict[int, Any] = {}
        self._pending: torch.Tensor | None = None

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self.ask) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def ask(self, number: int, _frame: FrameType | None = None) -> None:
        """Handle a signal: note the first one and say so, end the process on a later one with 128 + its number."""
        now = time.monotonic()
        if self.asked_at is None:
            self.asked_at = now
            if self.processes.is_main:
                # Not by print: the signal may have interrupted one. After a progress bar the line needs one of its own.
                start = "\n" if os.isatty(2) else ""
                line = f"{signal.Signals(number).name}: stopping after this step; a second one ends the run at once"
                with contextlib.suppress(OSError):
                    os.write(2, f"{start}{line}\n".encode())
        elif now - self.asked_at >= (SECONDS_BETWEEN if "WORLD_SIZE" in os.environ else SECONDS_BETWEEN_ALONE):
            os._exit(128 + number)

    def poll(self, write_failed: bool = False) -> tuple[bool, bool]:
        """Return whether to stop now, and whether writing has failed on some process; the same on all of them.

        With several processes the answer is that of the step before: its sum has arrived by now, while waiting for this
        step's would leave the device without work.
        """
        asked = self.asked_at is not None
        if self.processes.size == 1:
            return asked, write_failed
        before = self._pending
        self._pending = torch.tensor([float(asked), float(write_failed)], device=self.device)
        self.processes.sum_(self._pending)
        stop, failed = before.tolist() if before is not None else (0.0, 0.0)
        return stop > 0, failed > 0
