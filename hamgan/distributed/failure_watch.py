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
"""Consecutive polls without a sign of life after which a process counts as lost, some 40 s. Polls are counted, not
seconds, since a whole job may be suspended."""
JOIN_SECONDS = 10.0
# torchrun keeps its store when it restarts a run: messages of the previous processes must be ignored.
_KEY = f"hamgan/failure/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"


class FailureWatch:
    """End all processes of a run within a minute when one fails, with that one's message instead of a timeout.

    Use it as a context manager around set-up and training. Without it the other processes wait in a collective (ten
    minutes with NCCL) and do not react to a launcher that asks them to stop. A process that fails writes its message
    into the launcher's key-value store, which a thread of every other process reads every `POLL_SECONDS` seconds. A
    process that is killed or stopped writes no message, but its signs of life end, which the main process checks. The
    store is kept by the main process or by the launcher: if it is gone, so is the run.

    A process whose main thread alone hangs is not detected, as it cannot be told from one that waits for the others.
    Then all end by the timeout of the collective: 10 minutes with NCCL, 30 with gloo.
    """

    def __init__(self) -> None:
        self.rank, self.processes = rank(), world_size()
        self._done = threading.Event()
        self._store: TCPStore | None = None
        self._thread: threading.Thread | None = None
        # By process: its last sign of life, and the number of consecutive polls without a new one.
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
            dist.barrier()  # while all still watch: the first to leave may be the one that keeps the store
        self._done.set()
        if self._thread is not None:
            # Python aborts if it ends while a thread is inside the store ("terminate called without ...").
            self._thread.join(JOIN_SECONDS)
        # Errors that all processes raise together leave no process waiting.
        if self._store is None or not isinstance(error, Exception) or isinstance(error, RaisedByAll):
            return
        first = self._report(f"process {self.rank}: {type(error).__name__}: {error}")
        # The error here is only a consequence of the other process's, unless it is a ConfigError, which all raise.
        if first is not None and not isinstance(error, ConfigError):
            raise OtherProcessFailed(first) from error

    def _report(self, message: str) -> str | None:
        """Write a message for the others; returns an earlier message of another process."""
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
                        self._check_heartbeats(self._store)
                    continue
                message = self._store.get(_KEY).decode(errors="replace")
            except RuntimeError:
                message = "the process that coordinates the others has ended"
            if not self._done.is_set():
                if self.rank == 0:
                    print(f"error: {message}; process {self.rank} ends as well", file=sys.stderr, flush=True)
                os._exit(1)

    def _check_heartbeats(self, store: TCPStore) -> None:
        for other, (before, silent) in self._seen.items():
            signs = store.add(f"{_KEY}/alive/{other}", 0)
            silent = 0 if signs != before else silent + 1
            self._seen[other] = signs, silent
            if silent == SILENT_POLLS:
                seconds = SILENT_POLLS * POLL_SECONDS
                self._report(f"process {other} has shown no sign of life for {seconds:g} s: it was killed or hangs")
