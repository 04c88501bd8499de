"""Split a text into columns, and find the columns of pictures and classes."""

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hamgan.data.finding.folders import is_image_name
from hamgan.data.finding.matching import names_of_pictures
from hamgan.data.finding.names import fold, normalise_path
from hamgan.errors import DataError

PATH_COLUMNS = (
    *("filepath", "path", "file", "filename", "filenames", "filepaths", "image", "imagepath", "imagefile", "imagename"),
    *("imageid", "img", "imgpath", "imgname", "imgid", "fname", "name", "id", "picture", "photo", "key"),
)
"""Headers of the column of pictures, in lower-case letters and digits."""
CLASS_COLUMNS = (
    *("label", "classname", "labelname", "class", "category", "categoryname", "labels", "target", "species", "breed"),
    *("diagnosis", "dx", "synset", "wnid", "predictionstring", "type", "classid", "labelid", "categoryid"),
    *("classlabel", "y"),
)
"""Headers of the column of classes, names before numbers."""
INDEX_COLUMNS = ("", "index", "unnamed0")
SAMPLE = 300
"""Number of rows that are examined to find the columns."""


class TableRow(NamedTuple):
    """Hold the cells of a line and its number."""

    number: int
    cells: list[str]


@dataclass(frozen=True)
class Columns:
    """Hold the columns of pictures and classes; one-hot classes have several columns, of which one is 1."""

    path: int
    labels: dict[int, str]
    """Column -> its header; several for one-hot classes."""
    header: int
    """Number of header rows, 0 or 1."""
    text: str = ""

    def label_of(self, cells: Sequence[str]) -> str:
        """Return the class of a row, an empty string if there is none."""
        if len(self.labels) > 1:
            return next((name for column, name in self.labels.items() if _is_one(cells, column)), "")
        (column,) = self.labels
        return cells[column] if column < len(cells) else ""


def plain(header: str) -> str:
    """Return a header's letters and digits, in lower case."""
    return re.sub(r"[^a-z0-9]", "", header.casefold())


def first_of(wanted: Iterable[str], found: Iterable[str]) -> str | None:
    """Return the first wanted value that is among the found ones, or None."""
    present = set(found)
    return next((value for value in wanted if value in present), None)


def read_rows(text: str) -> list[list[TableRow]]:
    """Return the rows of a text for every delimiter that gives at least two columns per line, the likeliest first."""
    lines = text.splitlines(keepends=True)
    start = 1 if lines and re.fullmatch(r"sep=.\s*", lines[0]) else 0  # for Excel
    found = []
    for delimiter in "\t;,|":
        try:
            widths = {len(row.cells) for row in _split(lines[: start + SAMPLE], start, delimiter)}
            if widths and min(widths) > 1:
                found.append((len(widths) > 1, _split(lines, start, delimiter)))
        except csv.Error:
            continue
    cut = [rows for _, rows in sorted(found, key=lambda item: item[0])]
    words = [TableRow(number, line.split(maxsplit=1)) for number, line in enumerate(lines, 1) if line.strip()]
    return [*cut, [TableRow(number, [cell.strip() for cell in cells]) for number, cells in words[start:]]]


def _split(lines: Sequence[str], start: int, delimiter: str) -> list[TableRow]:
    reader = csv.reader(lines[start:], delimiter=delimiter, skipinitialspace=delimiter != "\t")
    return [
        TableRow(start + reader.line_num, [cell.strip() for cell in cells])
        for cells in reader
        if any(cell.strip() for cell in cells)
    ]


def choose_columns(path: str, rows: Sequence[TableRow], names: Sequence[str]) -> Columns | None:
    """Find the columns of pictures and classes, by the names of the pictures and the header; None if there are none.

    Raises DataError if several columns may be the class.
    """
    width = max((len(row.cells) for row in rows[:SAMPLE]), default=0)
    if width < 2:
        return None
    head = [plain(cell) for cell in rows[0].cells] + [""] * (width - len(rows[0].cells))
    body = [row.cells + [""] * (width - len(row.cells)) for row in rows[:SAMPLE]]
    known = names_of_pictures({_base(cell) for cells in body for cell in cells}, names)
    column = _path_column(head, body, known)
    if column is None:
        return None
    labels = _label_columns(path, rows[0].cells, head, body, column)
    first = body[0]
    is_header = _base(first[column]) not in known and not is_image_name(normalise_path(first[column]))
    if is_header and len(labels) == 1 and len(body) > 1:  # or the line of a missing picture, whose class recurs
        (label,) = labels
        is_header = first[label] not in {cells[label] for cells in body[1:]}
    text = ""
    if is_header:
        classes = f"classes in column `{rows[0].cells[next(iter(labels))]}`" if len(labels) == 1 else "one-hot classes"
        text = f"pictures in column `{rows[0].cells[column]}`, {classes}"
    return Columns(column, labels, int(is_header), text)


def _base(cell: str) -> str:
    return fold(normalise_path(cell).rpartition("/")[2])


def _path_column(head: Sequence[str], body: Sequence[Sequence[str]], known: set[str]) -> int | None:
    """Return the column whose cells name pictures; columns of an index or of class numbers may look similar."""
    scores = []
    for column, title in enumerate(head):
        cells = [row[column] for row in body]
        named = sum(_base(cell) in known for cell in cells)
        if named and title not in CLASS_COLUMNS:
            with_ending = sum(is_image_name(normalise_path(cell)) for cell in cells) > len(cells) / 2
            scores.append((with_ending, title in PATH_COLUMNS, len(set(cells)), named, -column))
    return -max(scores)[-1] if scores else None


def _label_columns(
    path: str, titles: Sequence[str], head: Sequence[str], body: Sequence[Sequence[str]], taken: int
) -> dict[int, str]:
    """Return column -> title of the column of classes, or of several one-hot columns."""
    found = first_of(CLASS_COLUMNS, (title for column, title in enumerate(head) if column != taken))
    if found is not None:
        column = next(column for column, title in enumerate(head) if title == found and column != taken)
        return {column: titles[column]}
    others = [column for column in range(len(head)) if column != taken and head[column] not in INDEX_COLUMNS]
    if not others:
        raise DataError(f"{path} has no column of classes next to `{titles[taken]}`")
    if len(others) == 1 or not _has_titles(head, body):
        column = next((column for column in others if column > taken), others[0])
        return {column: titles[column] if column < len(titles) else ""}
    numbers = all(_is_number(row[c]) for row in body[1:] for c in others)
    if numbers and all(sum(_is_one(row, c) for c in others) == 1 for row in body[1:]):
        return {column: titles[column] for column in others}
    repeated = [c for c in others if len({row[c] for row in body[1:]}) < len(body) - 1]
    if len(repeated) == 1:
        return {repeated[0]: titles[repeated[0]]}
    listed = ", ".join(f"`{titles[column]}`" for column in others[:8])
    raise DataError(f"{path}: any of {listed} could be the class; name its column `label`, or remove the others")


def _has_titles(head: Sequence[str], body: Sequence[Sequence[str]]) -> bool:
    """Return whether the first row is a header: words above numbers, or usual names of headers."""
    if any(title in PATH_COLUMNS for title in head):
        return True
    rest = body[1:]
    return bool(rest) and any(
        not _is_number(body[0][c]) and all(_is_number(row[c]) for row in rest) for c in range(len(head))
    )


def _is_number(cell: str) -> bool:
    return bool(re.fullmatch(r"[+-]?\d+([.,]\d+)?", cell))


def _is_one(cells: Sequence[str], column: int) -> bool:
    return column < len(cells) and bool(re.fullmatch(r"1([.,]0+)?", cells[column]))
