"""One visitor at a time, and a line of limited length."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from hamgan.errors import ConfigError


class Turnstile:
    """Lets one thread through at a time, while at most ``places`` others wait.

    Gradio's own queue keeps the answers of visitors who never come for them.
    """

    def __init__(self, places: int) -> None:
        self._turn = threading.Lock()
        self._places = threading.Semaphore(places + 1)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for one's turn; ConfigError where the line is full."""
        if not self._places.acquire(blocking=False):
            raise ConfigError("too many others are drawing just now; try again in a moment")
        try:
            with self._turn:
                yield
        finally:
            self._places.release()
