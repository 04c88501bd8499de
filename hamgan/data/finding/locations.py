"""Locate a source: paths, ``*`` and ``{000..099}`` patterns, shards at URLs (downloaded once per machine)."""

import glob
import hashlib
import os
import re
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hamgan.errors import DataError, did_you_mean, hint_at, one_line
from hamgan.files import make_once, nearest_path
from hamgan.progress import ProgressBar

DATA_SETS = ("photos", "fashion", "cifar10", "cifar100")
"""Names that are data sets even if a path of that name exists."""
DOWNLOADED = ("cifar10", "cifar100")
"""Data sets that are downloaded; the others are in a package and need no preparation."""

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


def download_folder() -> Path:
    """Return the folder for downloads: ``$HAMGAN_DATA``, else ``~/.cache/hamgan``."""
    return Path(os.environ.get("HAMGAN_DATA") or Path.home() / ".cache" / "hamgan")


def is_remote(source: str) -> bool:
    """Return whether a source is a URL such as ``s3://bucket/train-{000..146}.tar``."""
    return "://" in source


def check_location(source: str, names: Iterable[str] = DATA_SETS) -> None:
    """Raise DataError, with the nearest name or path, if a source is neither in ``names`` nor an existing path.

    URLs, hub names and patterns are not checked. Nothing is read and torch is not imported, so that a typing error is
    answered at once.
    """
    path = Path(source).expanduser()
    is_elsewhere = source.startswith("hf:") or is_remote(source) or re.search(r"[*?\[{]", source)
    if source in names or is_elsewhere or path.exists():
        return
    near = nearest_path(path)
    hint = hint_at(near) if near else did_you_mean(source, names)
    hint = hint or f"; give {', '.join(names)} or the path of a data set"
    raise DataError(f"no data source `{source}`: it is neither a known name nor an existing path{hint}")


def namesake_notes(source: str) -> list[str]:
    """Return a note if a data set's name such as ``photos`` is also a path in the working directory, else nothing."""
    if not os.path.lexists(source):
        return []
    return [f"`{source}` is the data set of that name, not the file or folder here: for that, write ./{source}"]


def _expand_braces(source: str) -> list[str]:
    match = _BRACES.search(source)
    if match is None:
        return [source]
    width, numbers = len(match[1]), range(int(match[1]), int(match[2]) + 1)
    before, after = source[: match.start()], source[match.end() :]
    return [name for i in numbers for name in _expand_braces(f"{before}{i:0{width}d}{after}")]


def expand(source: str) -> list[Path]:
    """Return the existing files or folders of a path, ``*`` pattern or ``{00..12}`` pattern, in order.

    URLs are downloaded first, see `fetch`. Raises DataError for a place that does not exist.
    """
    names = _expand_braces(source)
    if is_remote(source):
        return fetch(names)
    paths: list[Path] = []
    for name in map(os.path.expanduser, names):
        is_pattern = re.search(r"[*?\[]", name) and not os.path.exists(name)
        paths += map(Path, sorted(glob.glob(name)) if is_pattern else [name])
    missing = [path for path in paths if not path.exists()]
    if missing or not paths:
        raise DataError(f"no file or folder at {missing[0] if missing else source}")
    return paths


def fetch(addresses: list[str]) -> list[Path]:
    """Download URLs that fsspec supports (https://, s3://, gs://, ...) to `download_folder`; returns the copies.

    The processes of a machine share one copy. Raises DataError if a URL cannot be read or the disk is too small.
    """
    import fsspec

    try:
        system, _ = fsspec.core.url_to_fs(addresses[0])
        if any(re.search(r"[*?\[]", address) for address in addresses):
            found = [name for address in addresses for name in sorted(system.glob(address))]
            addresses = [system.unstrip_protocol(name) for name in found]
        sizes = [int(size or 0) for size in system.sizes(addresses)] if addresses else []
    except Exception as error:  # every file system has its own
        raise DataError(f"{addresses[0]} cannot be read: {one_line(error)}") from error
    if not addresses:
        raise DataError("no file matches the pattern of the URL")
    copies = [_local_copy(address, size) for address, size in zip(addresses, sizes, strict=True)]
    folder = download_folder() / "shards"
    folder.mkdir(parents=True, exist_ok=True)
    missing = sum(size for size, copy in zip(sizes, copies, strict=True) if not copy.exists())
    if missing > shutil.disk_usage(folder).free:
        raise DataError(f"{folder} has no room for {missing / 1e9:.1f} GB of shards; set HAMGAN_DATA to a larger disk")

    def fetch_one(address: str, copy: Path) -> None:
        try:
            make_once(copy, lambda partial: system.get_file(address, str(partial)))
        except Exception as error:
            raise DataError(f"{address} cannot be fetched: {one_line(error)}") from error

    with ThreadPoolExecutor(8) as pool, ProgressBar(len(copies), "fetch", "shards") as bar:
        for _ in pool.map(fetch_one, addresses, copies):
            bar.update()
    return copies


def _local_copy(address: str, size: int) -> Path:
    digest = hashlib.sha256(f"{address}\0{size}".encode()).hexdigest()[:16]
    return download_folder() / "shards" / digest / address.split("?")[0].rsplit("/", 1)[-1]
