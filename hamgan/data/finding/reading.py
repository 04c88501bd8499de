"""Read the encoded bytes of a picture from a file, an archive or a table."""

import hashlib
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path

from hamgan.data.finding.folders import NOWHERE
from hamgan.data.finding.picture import Picture
from hamgan.data.finding.tables import read_row
from hamgan.errors import DataError
from hamgan.files import file_version

LARGEST_FILE = 1 << 30


@lru_cache(maxsize=4)
def _open_zip(path: str, version: tuple[int, ...]) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def read_bytes(picture: Picture) -> bytes:
    """Read the picture's encoded bytes; raises OSError or DataError when they cannot be read."""
    kind, path, *where, size = picture.place
    if kind == "row":
        return read_row(str(path), str(where[0]), int(size))
    if size == NOWHERE:
        raise DataError("is a symbolic link that leads nowhere")
    if int(size) > LARGEST_FILE:
        raise DataError(f"has {size:,} bytes; pictures have at most {LARGEST_FILE:,}")
    if kind == "file":
        return Path(str(path)).read_bytes()
    if kind == "range":
        with open(str(path), "rb") as file:
            file.seek(int(where[0]))
            return file.read(int(size))
    try:
        return _open_zip(str(path), file_version(str(path))).read(str(where[0]))
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, zlib.error) as error:
        raise DataError(f"cannot be read from the zip file ({error})") from error


def hash_bytes(picture: Picture) -> str:
    """Hash a picture's class and its encoded bytes; pictures that cannot be read are hashed as unreadable."""
    try:
        content = read_bytes(picture)
    except (DataError, OSError) as error:
        content = f"unreadable: {error}".encode("utf-8", "surrogateescape")
    return hashlib.sha256(f"{picture.label}:".encode() + content).hexdigest()
