"""Match the lines of a label file with the pictures of a source, by path."""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple

from hamgan.data.finding.names import fold, normalise_path
from hamgan.errors import DataError


class Line(NamedTuple):
    """Hold one line or entry of a label file: the class of one picture."""

    where: str
    """"line 7" or "entry 7"."""
    name: str
    """The picture's path as written in the file."""
    label: str

    def __str__(self) -> str:
        return f"{self.where} `{self.name}` `{self.label}`"


@dataclass(frozen=True)
class LabelFile:
    """Hold the lines of a label file; ``may_exceed`` allows it to name missing pictures (ImageNet's devkit)."""

    path: str
    lines: list[Line]
    columns: str = ""
    """Description of the columns that were used."""
    may_exceed: bool = False

    def describe(self) -> str:
        """Return a line with the numbers of lines and classes, and the columns that were used."""
        classes = len({line.label for line in self.lines})
        return f"{len(self.lines):,} lines, {classes:,} classes" + (f", {self.columns}" if self.columns else "")


class _Path(NamedTuple):
    """Hold the parts of a path, case-folded for comparison."""

    parts: tuple[str, ...]
    exact: str

    @classmethod
    def of(cls, name: str) -> "_Path":
        exact = normalise_path(name)
        return cls(tuple(fold(exact).split("/")), exact)


def spellings(base: str) -> set[str]:
    """Return a file's name with and without its extension, case-folded."""
    return {fold(base), fold(os.path.splitext(base)[0])}


def match(file: LabelFile, names: Sequence[str], roots: Sequence[tuple[str, ...]], source: str) -> list[str | None]:
    """Return a class per picture, None for pictures without a line.

    A line names a picture if one path is the end of the other, with or without the picture's extension; of several
    lines the one with most folders in common. ``names`` are paths inside the source, ``roots`` the folders above each
    of them, outside the source. Raises DataError if no line names a picture, a line names two or none, or a picture has
    two classes.
    """
    lines = [_Path.of(line.name) for line in file.lines]
    index: dict[tuple[str, ...], list[int]] = defaultdict(list)  # last two parts, or the last one -> lines
    for number, path in enumerate(lines):
        index[path.parts[-2:]].append(number)
        if len(path.parts) > 1:
            index["", path.parts[-1]].append(number)  # for pictures without a folder
    chosen: list[int | None] = []
    pictures: dict[int, list[int]] = defaultdict(list)
    clashes: list[tuple[str, Line, Line]] = []
    for name, above in zip(names, roots, strict=True):
        best = _best_lines(name, above, lines, index)
        other = next((line for line in best[1:] if file.lines[line].label != file.lines[best[0]].label), None)
        if other is not None:
            clashes.append((name, file.lines[best[0]], file.lines[other]))
        chosen.append(best[0] if best else None)
        for line in best:
            pictures[line].append(len(chosen) - 1)
    _check(file, names, source, pictures, clashes)
    labels = [None if line is None else file.lines[line].label for line in chosen]
    for line, of_line in pictures.items():
        for picture in _inexact_matches(lines[line], of_line, names):
            labels[picture] = None if chosen[picture] == line else labels[picture]
    return labels


def _best_lines(
    name: str, above: tuple[str, ...], lines: Sequence[_Path], index: dict[tuple[str, ...], list[int]]
) -> list[int]:
    """Return the lines that can mean a picture and have most of their path in common with it."""
    *folders, base = name.split("/")
    inside = tuple(map(fold, folders))
    found: dict[int, tuple[bool, int, bool]] = {}
    for spelling in spellings(base):
        full, depth = (*map(fold, above), *inside, spelling), len(folders) + 1
        keys = [(spelling,), full[-2:], *([] if folders else [("", spelling)])]
        for line in (line for key in keys for line in index.get(key, ())):
            parts = lines[line].parts
            pairs = zip(reversed(parts), reversed(full), strict=False)
            common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            if common >= min(len(parts), depth):
                whole = (
                    depth <= len(parts) == common
                )  # the whole path inside the source, and nothing different above it
                exact = os.path.basename(lines[line].exact) in (base, os.path.splitext(base)[0])
                score = (whole, 0 if whole else common, exact)
                found[line] = max(found.get(line, score), score)
    most = max(found.values(), default=None)
    return [line for line, score in sorted(found.items()) if score == most]


def _inexact_matches(line: _Path, pictures: Sequence[int], names: Sequence[str]) -> list[int]:
    """Return the pictures that a line does not mean if it gives the whole path of one."""
    exact = [picture for picture in pictures if names[picture] == line.exact]
    return [picture for picture in pictures if picture not in exact] if exact else []


def _check(
    file: LabelFile,
    names: Sequence[str],
    source: str,
    pictures: dict[int, list[int]],
    clashes: Sequence[tuple[str, Line, Line]],
) -> None:
    lines, count = file.lines, len(file.lines)
    if not pictures:
        raise DataError(
            f"{file.path}: none of its {count:,} lines names one of the {len(names):,} pictures of {source}: "
            f"{lines[0]}, picture `{names[0] if names else ''}`"
        )
    if clashes:
        name, first, second = clashes[0]
        raise DataError(
            f"{file.path} gives two classes to {len(clashes):,} of the {len(names):,} pictures of {source}, "
            f"e.g. `{name}`: {first}, {second}; give paths from {source} on, one line each"
        )
    doubtful = [(line, found) for line, found in pictures.items() if len(found) > 1]
    doubtful = [(line, found) for line, found in doubtful if not _names_one(_Path.of(lines[line].name), found, names)]
    if doubtful:
        line, found = doubtful[0]
        raise DataError(
            f"{file.path}: {len(doubtful):,} of its {count:,} lines name several pictures of {source}, e.g. "
            f"{lines[line]}: `{names[found[0]]}`, `{names[found[1]]}`; give their paths"
        )
    useless = [line for number, line in enumerate(lines) if number not in pictures]
    if useless and not file.may_exceed:
        unnamed = sorted(set(range(len(names))) - {picture for found in pictures.values() for picture in found})
        example = f"a picture without a line is `{names[unnamed[0]]}`" if unnamed else f"a picture is `{names[0]}`"
        raise DataError(
            f"{file.path}: {len(useless):,} of its {count:,} lines name no picture of {source}, e.g. {useless[0]}; "
            f"{example}; correct these lines or leave them out"
        )


def _names_one(line: _Path, pictures: Sequence[int], names: Sequence[str]) -> bool:
    return sum(names[picture] == line.exact for picture in pictures) == 1


def check_coverage(file: LabelFile, source: str, unnamed: Sequence[str], count: int) -> None:
    """Raise DataError if any of the ``count`` pictures of a source have no line."""
    if unnamed:
        raise DataError(
            f"{file.path}: {len(unnamed):,} of {count:,} pictures of {source} have no line, e.g. `{unnamed[0]}`; "
            f"{file.lines[0]}; add their lines or remove the pictures"
        )


def names_of_pictures(cells: Iterable[str], names: Iterable[str]) -> set[str]:
    """Return the cells (case-folded base names) that name a picture, with or without its extension."""
    wanted = set(cells)
    return {spelling for name in names for spelling in spellings(name.rpartition("/")[2]) if spelling in wanted}
