"""Read files with the classes of pictures: ImageNet's ground truth, text tables, JSON, NVIDIA's dataset.json."""

import io
import json
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hamgan.data.finding.folders import is_image_name
from hamgan.data.finding.matching import LabelFile, Line
from hamgan.data.finding.text_tables import CLASS_COLUMNS, TableRow, choose_columns, first_of, plain, read_rows
from hamgan.errors import DataError

TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
FOUND_BY_NAME = ("dataset.json", "val_annotations.txt")
"""Label files of NVIDIA and Tiny ImageNet, which are used without --labels."""


def _imagenet_labels(path: Path, truth: bytes, meta: bytes) -> LabelFile:
    """Read synsets by file name; the ground truth has numbers, which meta.mat maps to synsets."""
    from scipy.io import loadmat

    synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
    wordnet = {int(row[0]): str(row[1]) for row in synsets}
    lines = [
        Line(f"line {i}", f"ILSVRC2012_val_{i:08d}", wordnet[int(number)]) for i, number in enumerate(truth.split(), 1)
    ]
    return LabelFile(str(path), lines, may_exceed=True)


def _devkit_labels(path: Path) -> LabelFile:
    """Read ImageNet's ILSVRC2012_devkit_t12.tar.gz."""
    with tarfile.open(path) as archive:
        names = {Path(info.name).name: info for info in archive if info.isfile()}
        files = [archive.extractfile(names[name]) if name in names else None for name in (TRUTH, META)]
        if files[0] is None or files[1] is None:
            raise DataError(f"{path} is not ImageNet's devkit: it lacks {TRUTH} or {META}")
        return _imagenet_labels(path, files[0].read(), files[1].read())


def read_label_file(path: Path, names: Sequence[str]) -> LabelFile:
    """Read a label file of any kind that `parse_labels` reads, or of ImageNet.

    The latter is the devkit (``ILSVRC2012_devkit_t12.tar.gz``) or its ground truth with meta.mat next to it. ``names``
    are the pictures of the source, which identify the column of names. Raises DataError.
    """
    if not path.is_file():
        raise DataError(f"no label file at {path}")
    if tarfile.is_tarfile(path):
        return _devkit_labels(path)
    data = path.read_bytes()
    if (lines := data.split()) and all(line.isdigit() for line in data.splitlines() if line.strip()):
        meta = path.with_name(META)
        if not meta.is_file():
            raise DataError(
                f"{path} holds ImageNet's class numbers without their synsets; give the devkit archive "
                f"(ILSVRC2012_devkit_t12.tar.gz), put its {META} next to the file, or give lines `NAME SYNSET`"
            )
        return _imagenet_labels(path, b"\n".join(lines), meta.read_bytes())
    found = parse_labels(str(path), data, names)
    if found is None:
        raise DataError(
            f"{path} says that its pictures have no classes (`labels` is null); a conditional model needs them"
        )
    return found


def is_label_file(name: str, data: bytes) -> bool:
    """Return whether a file named as in `FOUND_BY_NAME` has the expected content."""
    if not name.endswith(".json"):
        return True
    try:
        values = json.loads(_decode(data))
    except (json.JSONDecodeError, RecursionError):
        return False
    labels = values.get("labels", 0) if isinstance(values, dict) else 0
    return labels is None or (isinstance(labels, (list, dict)) and bool(labels))


def parse_labels(path: str, data: bytes, names: Sequence[str]) -> LabelFile | None:
    """Read a text table or JSON; None if NVIDIA's dataset.json states that there are no labels.

    Text: lines ``NAME CLASS``, or columns between commas, semicolons, tabs or bars, with or without a header, including
    Kaggle's ``LOC_val_solution.csv`` and Tiny ImageNet's ``val_annotations.txt``. JSON: a map of names to classes or
    of classes to names, pairs, records, records line by line, ``{"labels": [[name, class], ...]}``.
    """
    text = _decode(data)
    if text.lstrip()[:1] in ("{", "["):
        found = _json_lines(path, text, names)
        if found is None:
            return None
    else:
        found = _table_lines(path, read_rows(text), names, "line")
    if not found.lines:
        raise DataError(f"{path} names no classes; its lines must be `NAME CLASS` or `NAME,CLASS`")
    return found


def _decode(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):  # Excel's "Unicode text"
        return data.decode("utf-16", "replace")
    for encoding in ("utf-8-sig", "gbk"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("cp1252", "replace")


def _table_lines(path: str, tables: Sequence[Sequence[TableRow]], names: Sequence[str], what: str) -> LabelFile:
    """Return picture and class of every row; ``tables`` are the table cut by different delimiters."""
    for rows in tables:
        if columns := choose_columns(path, rows, names):
            break
    else:  # no column names a picture: take the first two columns, so that the error can show them
        rows = next((rows for rows in tables if rows), [])
        lines = [Line(f"{what} {number}", cells[0], _class_of(cells[1])) for number, cells in rows if len(cells) > 1]
        return LabelFile(path, [line for line in lines if line.label])
    lines = []
    for number, cells in rows[columns.header :]:
        label = _class_of(columns.label_of(cells))
        if columns.path < len(cells) and cells[columns.path] and label:
            lines.append(Line(f"{what} {number}", cells[columns.path], label))
    return LabelFile(path, lines, columns.text)


def _class_of(value: object) -> str:
    """Return a class as text: the first word of Kaggle's ``SYNSET x y x y ...``, and pandas' 3.0 as 3."""
    text = str(value).strip()
    if re.match(r"n\d{8}(\s|$)", text):
        return text.split()[0]
    return text.removesuffix(".0") if re.fullmatch(r"\d+\.0", text) else text


def _json_lines(path: str, text: str, names: Sequence[str]) -> LabelFile | None:
    try:
        values = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        try:  # records line by line, like the Hugging Face hub's metadata.jsonl
            values = [json.loads(line) for line in text.splitlines() if line.strip()]
        except (json.JSONDecodeError, RecursionError):
            raise DataError(f"{path} is not valid JSON ({error})") from error
    if isinstance(values, dict) and "labels" in values and not isinstance(values["labels"], (str, int)):
        values = values["labels"]
    if values is None:
        return None
    if isinstance(values, list) and values and all(isinstance(value, dict) for value in values):
        return _table_lines(path, [_records(values)], names, "entry")
    pairs = [pair for entry in _pairs(path, values) for pair in _flat(entry)]
    lines = [Line(f"entry {number}", str(name), _label(path, name, label)) for number, (name, label) in pairs]
    return LabelFile(path, lines)


def _pairs(path: str, values: Any) -> list[tuple[int, Any, Any]]:
    """Return (number, name, class) of a map or a list of pairs."""
    if isinstance(values, dict):
        return [(number, name, label) for number, (name, label) in enumerate(values.items(), 1)]
    if isinstance(values, list) and all(isinstance(value, list) and len(value) == 2 for value in values):
        return [(number, name, label) for number, (name, label) in enumerate(values, 1)]
    raise DataError(f'{path} gives no classes; it must be a map {{name: class}} or {{"labels": [[name, class], ...]}}')


def _flat(entry: tuple[int, Any, Any]) -> list[tuple[int, tuple[Any, Any]]]:
    """Return pairs of name and class for an entry that may be a class with a list of names, or a record."""
    number, name, label = entry
    if isinstance(label, list) and len(label) == 1 and is_image_name(str(name)):
        label = label[0]
    elif isinstance(label, list) and label and all(isinstance(item, str) and is_image_name(item) for item in label):
        return [(number, (item, name)) for item in label]
    if isinstance(label, dict):
        keys = {plain(key): key for key in label}
        label = label.get(keys.get(first_of(CLASS_COLUMNS, keys) or ""))
    return [] if label is None else [(number, (name, label))]


def _label(path: str, name: object, label: object) -> str:
    if isinstance(label, (str, int)) or (isinstance(label, float) and label.is_integer()):
        return _class_of(label)
    raise DataError(f"{path}: the class of `{name}` is {json.dumps(label)[:60]}; it must be a name or a whole number")


def _records(values: Sequence[dict[str, Any]]) -> list[TableRow]:
    """Turn records into rows under a header."""
    keys = list(dict.fromkeys(key for record in values for key in record))
    rows = [[str(record.get(key, "")) for key in keys] for record in values]
    return [TableRow(0, keys), *(TableRow(number, cells) for number, cells in enumerate(rows, 1))]
