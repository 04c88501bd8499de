"""Write files atomically and synced to disk; hash, lock and recognise files."""

import difflib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

JsonObject = dict[str, Any]
"""Plain values by name, as JSON holds them: a row of results, the header of a file, a description."""

# Read once at import, because reading the umask means setting it, which affects files made by other threads.
_UMASK = os.umask(0o022)
os.umask(_UMASK)


def fsync(path: Path) -> None:
    """Sync the content of a file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def nearest_path(path: Path) -> Path | None:
    """Return the existing path that is most similar, part by part; None if a part is similar to none."""
    found = Path(path.anchor) if path.is_absolute() else Path()
    for part in path.parts[1:] if path.is_absolute() else path.parts:
        if not (found / part).exists():
            names = [item.name for item in found.iterdir()] if found.is_dir() else []
            near = difflib.get_close_matches(part, names, n=1, cutoff=0.7)
            if not near:
                return None
            part = near[0]
        found /= part
    return found


def share_as_usual(path: Path) -> None:
    """Give a file the usual mode of new files, since safetensors makes its files readable by their owner only."""
    path.chmod(0o666 & ~_UMASK)


def sha256(path: Path) -> str:
    """Return the hash of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_version(path: str | Path) -> tuple[int, ...]:
    """Return numbers that change when a file is replaced or written to: part of the key of what is kept about it."""
    found = os.stat(path)
    return found.st_ino, found.st_size, found.st_mtime_ns


def temporary_name(path: Path) -> Path:
    """Return a temporary path to write before renaming it to ``path``; `remove_leftovers` finds it after a crash."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def remove_leftovers(folder: Path) -> None:
    """Delete the files and folders with a `temporary_name` that a killed process left in a folder."""
    for path in folder.glob(".*.tmp"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that readers see the old or the new one, never a part, also after a crash."""
    temporary = temporary_name(path)
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        fsync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def lock(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold an exclusive lock on a file or folder, which also ends with the process.

    A missing file is created. Raises BlockingIOError if another process holds the lock and ``wait`` is false. On a file
    system without locks this does nothing.
    """
    # A file must be opened for writing, as network file systems require; a folder cannot be.
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(descriptor)


def make_once(path: Path, make: Callable[[Path], object]) -> None:
    """Call ``make`` to write a file, under a temporary name until it is complete, unless it exists.

    Other processes of this machine that need the same file wait for it.
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


RECOGNISED_BYTES = 4096
"""Number of first bytes of a file that `recognise` needs."""


def recognise(start: bytes) -> str | None:
    """Describe a file of another program by its first bytes, with a remedy; None for unknown files.

    The text completes "FILE is ...". Nothing is unpickled, as a pickle may run code.
    """
    if start.startswith(b"version https://git-lfs.github.com/"):
        return "a Git LFS pointer, not the file itself; fetch it with `git lfs pull`"
    if start.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        return "a web page, as a failed download leaves it; fetch the file again"
    if start[:2] == b"\x80\x02" and b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19" in start[:16]:
        return _PYTORCH
    if start[:4] == b"PK\x03\x04" and b"/data.pkl" in start[30:300]:
        return _PYTORCH
    # The length of a safetensors header may begin with the same bytes, but a brace follows.
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05") and start[8:9] != b"{":
        return _describe_pickle(start)
    if start[4:8] == b"ftyp" and start[8:12] in (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"):
        return "a HEIC picture; reading it takes `pip install pillow-heif`"
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return "an HDF5 file; one of images is a source of data (--data.source, --source, --reference)"
    if start.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")):
        return "a JPEG XL picture; reading it takes `pip install pillow-jxl-plugin`"
    if start[16:20] == b"\xde\xc0\xef\xbe":
        return LMDB
    return None


def recognise_file(path: Path) -> str | None:
    """Describe a file of another program, see `recognise`; None for a folder."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return recognise(file.read(RECOGNISED_BYTES))


_PYTORCH = (
    "a PyTorch file, which is opened by `hamgan convert` alone; weights of BigGAN-PyTorch become a generator file by "
    "`hamgan convert G_ema.pth --output generator.safetensors`"
)
LMDB = (
    "an LMDB database, which is not read; write its pictures into class folders first "
    "(LSUN: `python data.py export FOLDER --out_dir PICTURES` of its own repository)"
)


STATISTICS_PICKLE = "a pickle of statistics, as EDM2 writes them; it is a reference: `hamgan evaluate --reference FILE`"


def _describe_pickle(start: bytes) -> str:
    if b"torch_utils" in start or b"dnnlib" in start:
        return (
            "a pickle of StyleGAN or EDM, whose networks are not part of this project; draw images with its own "
            "repository and measure their folder: `hamgan evaluate --checkpoint FOLDER`"
        )
    if b"\x02mu" in start or b"\x02\0\0\0mu" in start:
        return STATISTICS_PICKLE
    return "a pickle, which may run code and is not opened"
