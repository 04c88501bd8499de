"""Write files whole or not at all, with their content on the disk; hash them; lock files and folders."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Read once, for it can only be read by setting it, and files that other threads make meanwhile would show that.
_UMASK = os.umask(0o022)
os.umask(_UMASK)


def fsync(path: Path) -> None:
    """Have a file's or a folder's content on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def share_as_usual(path: Path) -> None:
    """Give a file the mode that new files have here: safetensors makes its own readable by their owner alone."""
    path.chmod(0o666 & ~_UMASK)


def sha256(path: Path) -> str:
    """Return the hash of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def temporary_name(path: Path) -> Path:
    """Return where to write what will be renamed to ``path``; `remove_leftovers` finds it after a crash."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def remove_leftovers(folder: Path) -> None:
    """Delete what a process that was killed while writing left in a folder under a `temporary_name`."""
    for path in folder.glob(".*.tmp"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader or a crash sees the old or the new one, never a part."""
    temporary = temporary_name(path)
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        fsync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def lock(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Keep other processes out of what a file or folder stands for; the lock ends with the process, however it ends.

    A missing file is created. Raises BlockingIOError when another process holds the lock and ``wait`` is false. On a
    file system that knows no locks nothing is kept out.
    """
    # A folder cannot be opened for writing; a file must be, for network file systems lock nothing else.
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:  # no locks here
            pass
        yield
    finally:
        os.close(descriptor)


def make_once(path: Path, make: Callable[[Path], object]) -> None:
    """Have ``make`` write a file, under another name until it is whole, unless it is there already.

    Other processes of this machine that want the same file wait for it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with lock(path.with_name(f".{path.name}.lock")):
        if path.exists():
            return
        partial = path.with_name(f".{path.name}.partial")
        try:
            make(partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
