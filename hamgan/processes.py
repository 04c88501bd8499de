"""What the processes of a run tell each other besides tensors: one decision for all, and that one has failed."""

import os
import sys
import threading
from datetime import timedelta
from types import TracebackType
from typing import TypeVar

import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from hamgan.messages import one_line

T = TypeVar("T")

POLL_SECONDS = 2.0
_KEY = "hamgan/failure"


class OtherProcessFailed(RuntimeError):
    """Another process of this run has failed; the message is that process's own."""


def from_main(accelerator: Accelerator, value: T) -> T:
    """The main process's value, on all processes."""
    values = [value]
    if accelerator.num_processes > 1:
        broadcast_object_list(values)
    return values[0]


class FailureWatch:
    """Ends all processes of a run within seconds when one fails, with that one's message instead of a timeout.

    A context manager around training. Without it the others wait in a collective, ten minutes with NCCL, and a launcher
    that asks them to stop is not heard. A process that fails leaves its message in the launcher's key-value store; a
    thread of every other one looks there every `POLL_SECONDS` seconds.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.rank, self.processes = accelerator.process_index, accelerator.num_processes
        self._done = threading.Event()
        self._store: dist.TCPStore | None = None

    def __enter__(self) -> "FailureWatch":
        if self.processes > 1:
            address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
            self._store = dist.TCPStore(address, port, is_master=False, timeout=timedelta(seconds=30))
            threading.Thread(target=self._watch, name="failure-watch", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._done.set()
        if self._store is None or error is None or not isinstance(error, Exception) or not ends_others(error):
            return
        first = self._report(f"process {self.rank}: {type(error).__name__}: {error}")
        if first is not None:  # what has been raised here is only the echo of it
            raise OtherProcessFailed(first) from error

    def _report(self, message: str) -> str | None:
        """Leave a message for the others; returns another process's that was there before."""
        assert self._store is not None
        try:
            if self._store.add(f"{_KEY}/count", 1) == 1:
                self._store.set(_KEY, message)
                return None
            return self._store.get(_KEY).decode(errors="replace")
        except RuntimeError as error:  # the process that keeps the store has gone
            return f"the connection to the other processes is lost ({one_line(error)})"

    def _watch(self) -> None:
        assert self._store is not None
        while not self._done.wait(POLL_SECONDS):
            try:
                if not self._store.check([_KEY]):
                    continue
                message = self._store.get(_KEY).decode(errors="replace")
            except RuntimeError:
                message = "the process that keeps the others together has ended"
            if not self._done.is_set():
                if self.rank == 0:
                    print(f"error: {message}; process {self.rank} ends as well", file=sys.stderr, flush=True)
                os._exit(1)


def ends_others(error: Exception) -> bool:
    """Whether an error of one process leaves the others waiting: all but those that all processes raise together."""
    return not getattr(error, "agreed", False)
