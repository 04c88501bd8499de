"""Decide which folders above pictures are wrappers, splits or classes."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hamgan.data.finding.folders import split_of
from hamgan.data.finding.names import fold
from hamgan.data.source import name_some
from hamgan.errors import DataError

FOLDER_OF_NVIDIA = 1000
"""Number of pictures per folder in data sets of dataset_tool.py and FFHQ, whose folders are no classes."""

_Prefix = tuple[str, ...]
_Group = tuple[str, _Prefix, list[int]]
"""(split, folder whose subfolders are its classes, indices of its pictures)."""


@dataclass
class Arrangement:
    """Hold the class and split of every picture, with notes to print."""

    classes: list[str | None]
    """None: no class."""
    splits: list[str | None]
    """None: outside the splits, left out."""
    has_splits: bool = False
    class_roots: list[str] = field(default_factory=list)
    """Folders whose subfolders are the classes, ending in a slash except for the source itself."""
    notes: list[str] = field(default_factory=list)


def arrange(names: Sequence[str], labels: Sequence[str | None], source: str) -> Arrangement:
    """Find classes and splits of pictures from their paths; ``labels`` are classes that are known already.

    A folder around everything is skipped. A folder named like a split is one only if another split with the same
    classes is next to it: PASCAL VOC has a class called train.
    """
    parts = [tuple(name.split("/")) for name in names]
    every = list(range(len(parts)))
    found = Arrangement([None] * len(parts), [None] * len(parts))
    top = _unwrap(parts, every, (), set())
    groups = _find_splits(parts, labels, top, source, found.notes)
    found.has_splits = bool(groups)
    for split, prefix, members in groups or [("train", top, every)]:
        found.class_roots.append("".join(f"{part}/" for part in prefix))
        for i in members:
            found.splits[i] = split
            found.classes[i] = labels[i] if labels[i] is not None else _folder_below(parts[i], prefix)
    if not groups and all(label is None for label in labels):
        found.notes += _notes_on_doubtful_classes(parts, found.classes, len(top))
    return found


def _folder_below(path: _Prefix, prefix: _Prefix) -> str | None:
    """Return the folder directly below ``prefix`` that contains a picture."""
    depth = len(prefix)
    return path[depth] if len(path) > depth + 1 and path[:depth] == prefix else None


def _folders(parts: Sequence[_Prefix], members: Iterable[int], prefix: _Prefix) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for i in members:
        if (folder := _folder_below(parts[i], prefix)) is not None:
            found[folder].append(i)
    return dict(found)


def _unwrap(parts: Sequence[_Prefix], members: Sequence[int], prefix: _Prefix, known: set[str]) -> _Prefix:
    """Descend through wrapper folders, as in archives and Kaggle's data sets; a known class is no wrapper."""
    while True:
        folders = _folders(parts, members, prefix)
        if len(folders) != 1:
            return prefix
        ((folder, inside),) = folders.items()
        below = _folders(parts, inside, (*prefix, folder))
        count_below = sum(map(len, below.values()))
        if fold(folder) in known or not (len(below) > 1 or 2 * count_below > len(inside)):
            return prefix
        prefix = (*prefix, folder)


def _find_splits(
    parts: Sequence[_Prefix], labels: Sequence[str | None], top: _Prefix, source: str, notes: list[str]
) -> list[_Group]:
    """Return the splits among the folders below ``top``; empty if these names mean something else."""
    folders = _folders(parts, range(len(parts)), top)
    named = {folder: found for folder in folders if (found := split_of(folder))}
    ranked = sorted(named, key=lambda folder: (named[folder], folder))
    train = next((folder for folder in ranked if named[folder][0] == "train"), None)
    held_out = [folder for folder in ranked if named[folder][0] == "val"]
    if train is None:
        return []
    start = _unwrap(parts, folders[train], (*top, train), set())
    classes = _classes(parts, labels, folders[train], start)
    if not held_out:
        if (
            len(classes) > 1
            and len(folders) > 1
            and not _has_folders(parts, {name: folders[name] for name in folders if name != train}, top)
        ):
            notes.append(f"`{train}` is taken for a class: no val or test stands beside it; its folders are none")
        return []
    groups: list[_Group] = [("train", start, folders[train])]
    if not classes and len(folders) == len(named):  # pictures directly in splits have no classes
        return [*groups, ("val", (*top, held_out[0]), folders[held_out[0]])]
    without_classes = []
    for folder in held_out:
        prefix = _unwrap(parts, folders[folder], (*top, folder), classes)
        theirs = _classes(parts, labels, folders[folder], prefix, known=classes)
        if theirs & classes and len(groups) == 1:
            groups.append(("val", prefix, folders[folder]))
        without_classes += [folder] if not theirs else []
    alone = not _has_folders(parts, {name: folders[name] for name in folders.keys() - named.keys()}, top)
    if len(groups) == 1 and not (len(classes) > 1 and without_classes == held_out and alone):
        if classes and len(folders) == len(named):
            raise DataError(
                f"{source}: `{train}` and `{held_out[0]}` hold no class in common ({name_some(sorted(classes), 3)}); "
                "a held-out split needs the classes of train"
            )
        return []
    taken = {prefix[len(top)] for _, prefix, _ in groups}
    for folder in sorted(folders.keys() - taken):
        why = "it has no classes" if folder in without_classes else f"beside `{'` and `'.join(sorted(taken))}`"
        notes.append(f"{len(folders[folder]):,} pictures in `{'/'.join((*top, folder))}` are left out: {why}")
    return groups


def _classes(
    parts: Sequence[_Prefix],
    labels: Sequence[str | None],
    members: Sequence[int],
    prefix: _Prefix,
    known: set[str] | None = None,
) -> set[str]:
    """Return the classes in a split, case-folded; a single folder that is not ``known`` is no class."""
    folders = _folders(parts, [i for i in members if labels[i] is None], prefix)
    named = {fold(folder) for folder in folders}
    if known is not None and len(named) == 1 and not named & known:
        named = set()
    return named | {fold(label) for i in members if (label := labels[i]) is not None}


def _has_folders(parts: Sequence[_Prefix], folders: Mapping[str, Sequence[int]], top: _Prefix) -> bool:
    return any(_folders(parts, members, (*top, folder)) for folder, members in folders.items())


def _notes_on_doubtful_classes(parts: Sequence[_Prefix], classes: Sequence[str | None], depth: int) -> list[str]:
    """Return notes about folders that are taken for classes but may be something else."""
    below: dict[str, set[str | None]] = defaultdict(set)
    for path, name in zip(parts, classes, strict=True):
        if name is not None:
            below[name].add(fold(path[depth + 1]) if len(path) > depth + 2 else None)
    counts = Counter(name for name in classes if name is not None)
    names, first = sorted(counts), next(iter(below.values()), set())
    if len(names) > 1 and len(first) > 1 and None not in first and all(folders == first for folders in below.values()):
        inner = name_some(sorted(map(str, first)), 3)
        return [
            f"the {len(names):,} classes ({name_some(names, 3)}) all hold the same folders ({inner}); if these are the "
            "classes, put them on top, or name the classes of the pictures in a file with --labels"
        ]
    sizes = [counts[name] for name in sorted(names, key=lambda name: (len(name), name))]
    numbered = len(names) > 1 and all(name.isdecimal() for name in names)
    if numbered and set(sizes[:-1]) == {FOLDER_OF_NVIDIA} and sizes[-1] <= FOLDER_OF_NVIDIA:
        return [
            f"the folders {name_some(names, 3)} hold {FOLDER_OF_NVIDIA:,} pictures each, as tools cut large sets into "
            "parts: these may be no classes; name the classes of the pictures in a file with --labels"
        ]
    return []
