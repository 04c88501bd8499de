"""End a command on Ctrl-C with one line and exit code 130, whatever it is doing. Imports no torch."""

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import threading
from types import FrameType, TracebackType
from typing import NoReturn

from hamgan.errors import INTERRUPTED

SECONDS_TO_TIDY = 1.5
"""Time after Ctrl-C for removing temporary files and ending child processes."""
_ENDING = threading.Lock()


class CtrlC:
    """Turn the first Ctrl-C into KeyboardInterrupt, and end the process if that does not end it in time.

    A context manager around a command that restores the previous handler. A second Ctrl-C ends the process at once. If
    Ctrl-C is ignored (``nohup``) or handled elsewhere, and in other threads than the main one, where Python allows no
    handlers, it changes nothing.
    """

    def __init__(self) -> None:
        self._asked = False
        self._hooks = sys.unraisablehook, threading.excepthook

    def __enter__(self) -> "CtrlC":
        main = threading.current_thread() is threading.main_thread()
        self._installed = main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if self._installed:
            # Python's handlers run between two instructions, but the main thread may be inside a library for long. The
            # interpreter writes the number of a signal into a socket at once, which a thread reads.
            self._reader, self._writer = socket.socketpair()
            self._writer.setblocking(False)
            signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
            signal.signal(signal.SIGINT, self._interrupt)
            threading.Thread(target=self._watch, name="ctrl-c", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._installed:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            sys.unraisablehook, threading.excepthook = self._hooks
            self._writer.close()

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if not self._asked:  # the thread acts on a second one
            self._asked = True
            # Messages of threads and finalisers about being interrupted are not interesting.
            sys.unraisablehook = lambda _: None
            threading.excepthook = lambda _: None
            raise KeyboardInterrupt

    def _watch(self) -> None:
        try:
            while numbers := self._reader.recv(16):
                if signal.SIGINT in numbers and signal.getsignal(signal.SIGINT) == self._interrupt:
                    if self._reader.gettimeout() is not None:
                        end_interrupted()
                    self._reader.settimeout(SECONDS_TO_TIDY)
        except TimeoutError:
            end_interrupted()
        self._reader.close()  # the command has ended


def end_interrupted() -> NoReturn:
    """End this process and its children at once; the main process prints a line."""
    _ENDING.acquire()  # never released: the main thread and its watcher may both come here
    for child in multiprocessing.active_children():
        child.kill()
    end_now(INTERRUPTED, "stopped by Ctrl-C" if os.environ.get("RANK", "0") == "0" else "")


def end_now(code: int, message: str = "") -> NoReturn:
    """Print a line and exit without Python's clean-up, which may wait for threads or other processes."""
    with contextlib.suppress(OSError, ValueError):
        print(message, file=sys.stderr, end="\n" if message else "")
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)
