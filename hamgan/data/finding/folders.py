"""Walk folders: which files are pictures, which folders hold them."""

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
"""Split -> the words that stand for it, the first is taken where there are several."""
FILLERS = {"", "set", "data", "dataset", "seg", "image", "images", "img", "imgs", "pictures", "photos"}
"""Words that may stand beside them: ``training_set``, ``seg_train``, ``val2017``."""


def is_image_name(name: str) -> bool:
    """Tell whether a path with / ends like a picture's, in any case, and no part of it is hidden."""
    return ending_of(name) in endings() and not is_hidden_path(name)


def is_hidden_path(name: str) -> bool:
    """Tell whether a part of a path with / is hidden."""
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
    """List (path relative to ``folder`` with /, bytes) of every file below it that is not hidden.

    Symbolic links are followed, but not in circles; one that leads nowhere has `NOWHERE` bytes.
    """
    try:
        return list(_walk(str(folder), "", frozenset()))
    except OSError as error:
        raise DataError(f"cannot list {error.filename or folder}: {error.strerror}") from error


def folders_in(folder: Path) -> list[str]:
    """Name the folders directly below one that are not hidden."""
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not is_hidden(entry.name))


def split_of(folder: str) -> tuple[str, int] | None:
    """Return the split that a folder's name stands for, and its rank among such names; None for any other name."""
    words = [word for word in re.split(r"[^a-z]+", folder.lower()) if word not in FILLERS]
    if len(words) != 1:
        return None
    return next(((split, known.index(words[0])) for split, known in SPLIT_FOLDERS.items() if words[0] in known), None)


def split_folders(root: Path) -> dict[str, Path]:
    """Return the folders below the root that are called like splits, of pictures without classes too.

    The root as train where none is called train.
    """
    ranked = sorted((*kind, name) for name in folders_in(root) if (kind := split_of(name)))
    folders = {split: root / name for split, _, name in reversed(ranked)}
    return folders if "train" in folders else {"train": root}
