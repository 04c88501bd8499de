"""Walk folders, and recognise pictures and folders of splits."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from hamgan.data.decoding.kinds import ending_of, endings
from hamgan.data.finding.names import is_hidden
from hamgan.errors import DataError

NOWHERE = -1
SPLIT_FOLDERS = {
    "train": ("train", "training", "trainset"),
    "val": ("val", "valid", "validation", "dev", "test", "testing", "testset"),
}
"""Split -> names of its folder, in order of preference."""
FILLERS = {"", "set", "data", "dataset", "seg", "image", "images", "img", "imgs", "pictures", "photos"}
"""Words that may accompany these names: ``training_set``, ``seg_train``."""


def is_image_name(name: str) -> bool:
    """Return whether a path with slashes has a picture's extension, in any case, and no hidden part."""
    return ending_of(name) in endings() and not is_hidden_path(name)


def is_hidden_path(name: str) -> bool:
    """Return whether any part of a path with slashes is hidden."""
    return any(map(is_hidden, name.split("/")))


def _walk(folder: str, inside: str, parents: frozenset[str]) -> Iterator[tuple[str, int]]:
    real = os.path.realpath(folder)
    if real in parents:
        return
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if is_hidden(entry.name):
                continue
            relative = f"{inside}{entry.name}"
            if entry.is_symlink() and not os.path.exists(entry.path):
                yield relative, NOWHERE
            elif entry.is_dir():
                yield from _walk(entry.path, f"{relative}/", parents | {real})
            elif entry.is_file():
                yield relative, entry.stat().st_size


def walk_files(folder: Path) -> list[tuple[str, int]]:
    """Return (path relative to ``folder`` with slashes, size in bytes) for all files below it that are not hidden.

    Symbolic links are followed, without loops; a broken one has the size `NOWHERE`.
    """
    try:
        return list(_walk(str(folder), "", frozenset()))
    except OSError as error:
        raise DataError(f"cannot list {error.filename or folder}: {error.strerror}") from error


def folders_in(folder: Path) -> list[str]:
    """Return the names of the direct subfolders that are not hidden."""
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not is_hidden(entry.name))


def split_of(folder: str) -> tuple[str, int] | None:
    """Return the split that a folder's name means, and its rank among such names; None for any other name."""
    words = [word for word in re.split(r"[^a-z]+", folder.lower()) if word not in FILLERS]
    if len(words) != 1:
        return None
    return next(((split, known.index(words[0])) for split, known in SPLIT_FOLDERS.items() if words[0] in known), None)


def split_folders(root: Path) -> dict[str, Path]:
    """Return split -> folder for the subfolders named like splits, also without class folders.

    The root itself is train if no subfolder is.
    """
    ranked = sorted((*kind, name) for name in folders_in(root) if (kind := split_of(name)))
    folders = {split: root / name for split, _, name in reversed(ranked)}
    return folders if "train" in folders else {"train": root}
