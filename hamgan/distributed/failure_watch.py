"""End all processes of a run when one of them has failed."""

import os
import sys
import threading
from datetime import timedelta
from types import TracebackType

import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore

from hamgan.distributed.group import rank, world_size
from hamgan.errors import ConfigError, OtherProcessFailed, RaisedByAll, one_line

POLL_SECONDS = 2.0
SILENT_POLLS = 20
"""Polls in a row without a sign of life after which a process counts as lost, some 40 s; counted, since a whole job may
be suspended."""
JOIN_SECONDS = 10.0
# torchrun keeps its store when it starts a run again: what the processes before had said is no news to the new ones.
_KEY = f"hamgan/failure/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"


class FailureWatch:
    """End all processes of a run within a minute when one fails, with that one's message instead of a timeout.

    A context manager around set-up and training. Without it the others wait in a collective, ten minutes with NCCL, and
    a launcher that asks them to stop is not heard. A process that fails leaves its message in the launcher's key-value
    store; a thread of every other one looks there every `POLL_SECONDS` seconds. One that is killed or stopped leaves no
    message, but no signs of life either, which the main process looks for. It keeps the store itself, or the launcher
    does: where the store is gone, so is the run.

    Not caught is a process whose main thread alone is stuck, as its signs of life go on: nothing tells it from one that
    waits for the others. The collective in which these wait ends all by its own timeout: 10 minutes with NCCL, 30 with
    gloo.
    """

    def __init__(self) -> None:
        self.rank, self.processes = rank(), world_size()
        self._done = threading.Event()
        self._store: TCPStore | None = None
        self._thread: threading.Thread | None = None
        # By process: its signs of life, and how often in a row there was no new one.
        self._seen = dict.fromkeys(range(1, self.processes), (0, 0))

    def __enter__(self) -> "FailureWatch":
        if self.processes > 1:
            address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
            self._store = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=30))
            self._thread = threading.Thread(target=self._watch, name="failure-watch", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None and self.processes > 1:
            dist.barrier()  # while all still watch: who leaves first may be the one that keeps the store
        self._done.set()
        if self._thread is not None:
            # Python that ends while a thread is inside the store aborts ("terminate called without ...").
            self._thread.join(JOIN_SECONDS)
        # Errors that all processes raise together leave none of them waiting.
        if self._store is None or not isinstance(error, Exception) or isinstance(error, RaisedByAll):
            return
        first = self._report(f"process {self.rank}: {type(error).__name__}: {error}")
        # What has been raised here is only the echo of it; but a ConfigError is most likely everybody's own.
        if first is not None and not isinstance(error, ConfigError):
            raise OtherProcessFailed(first) from error

    def _report(self, message: str) -> str | None:
        """Leave a message for the others; return another process's that was there before."""
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
                    self._store.add(f"{_KEY}/alive/{self.rank}", 1)
                    if self.rank == 0:
                        self._look_for_life(self._store)
                    continue
                message = self._store.get(_KEY).decode(errors="replace")
            except RuntimeError:
                message = "the process that keeps the others together has ended"
            if not self._done.is_set():
                if self.rank == 0:
                    print(f"error: {message}; process {self.rank} ends as well", file=sys.stderr, flush=True)
                os._exit(1)

    def _look_for_life(self, store: TCPStore) -> None:
        for other, (before, silent) in self._seen.items():
            signs = store.add(f"{_KEY}/alive/{other}", 0)
            silent = 0 if signs != before else silent + 1
            self._seen[other] = signs, silent
            if silent == SILENT_POLLS:
                seconds = SILENT_POLLS * POLL_SECONDS
                self._report(f"process {other} has shown no sign of life for {seconds:g} s: it was killed or hangs")
