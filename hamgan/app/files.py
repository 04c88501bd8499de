"""The pictures and films that the page made, in memory: there is nothing on disk that a visitor could reach."""

import secrets
import threading


class MadeFiles:
    """Files by a name that cannot be guessed; beyond ``most_bytes`` in all, the oldest are forgotten."""

    def __init__(self, most_bytes: int = 128 * 2**20) -> None:
        self.most_bytes = most_bytes
        self._files: dict[str, bytes] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def add(self, content: bytes, kind: str) -> str:
        """Keep a file; returns its new name, which ends in ``.kind``."""
        name = f"{secrets.token_urlsafe(16)}.{kind}"
        with self._lock:
            self._files[name] = content
            self._bytes += len(content)
            while self._bytes > self.most_bytes and len(self._files) > 1:
                oldest = next(iter(self._files))
                self._bytes -= len(self._files.pop(oldest))
        return name

    def get(self, name: str) -> bytes | None:
        """What a file holds; None for one that was never made or is forgotten."""
        return self._files.get(name)
