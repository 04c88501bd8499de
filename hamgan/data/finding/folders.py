"""Walk folders of class folders: which files are pictures, which folders are splits and classes."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from hamgan.data.decoding.kinds import ending_of, endings
from hamgan.errors import DataError

NOWHERE = -1
SPLIT_FOLDERS = {"train": ("train", "training"), "val": ("val", "valid", "validation", "test")}


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def is_image_name(name: str) -> bool:
    """Tell whether a path with / ends like a picture's, in any case, and no part of it is hidden."""
    return ending_of(name) in endings() and not is_hidden_path(name)


def is_hidden_path(name: str) -> bool:
    """Tell whether a part of a path with / is hidden."""
    return any(map(_is_hidden, name.split("/")))


def _walk(folder: str, inside: str, parents: frozenset[str]) -> Iterator[tuple[str, int]]:
    real = os.path.realpath(folder)
    if real in parents:
        return
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if _is_hidden(entry.name):
                continue
            relative = f"{inside}{entry.name}"
            if entry.is_symlink() and not os.path.exists(entry.path):
                yield relative, NOWHERE
            elif entry.is_dir():
                yield from _walk(entry.path, f"{relative}/", parents | {real})
            elif entry.is_file():
                yield relative, entry.stat().st_size


def walk_files(folder: Path) -> list[tuple[str, int]]:
    """List (path relative to ``folder`` with /, bytes) of every file below it that is not hidden.

    Symbolic links are followed, but not in circles; one that leads nowhere has `NOWHERE` bytes.
    """
    try:
        return list(_walk(str(folder), "", frozenset()))
    except OSError as error:
        raise DataError(f"cannot list {error.filename or folder}: {error.strerror}") from error


def split_names(below: Iterable[str]) -> dict[str, str]:
    """Map splits to those of the folder names that stand for them; none unless ``train`` is among them, in any case."""
    lower = {name.lower(): name for name in sorted(below)}
    found = {
        split: next((lower[name] for name in names if name in lower), None) for split, names in SPLIT_FOLDERS.items()
    }
    return {split: name for split, name in found.items() if name} if found["train"] else {}


def split_folders(root: Path) -> dict[str, Path]:
    """Return the folder of each split: ``train/``, ``val/`` (or ``test/``, ...) in any case, else the root as train."""
    names = split_names(entry.name for entry in root.iterdir() if entry.is_dir())
    return {split: root / name for split, name in names.items()} or {"train": root}


def class_folders(folder: Path) -> list[str]:
    """Name the folders directly below, sorted as torchvision's ImageFolder does; each is a class."""
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not _is_hidden(entry.name))
