"""Read a file of classes: names, and optionally colours and label values."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from hamgan.errors import DataError, one_line
from hamgan.files import JsonObject
from hamgan.segmentation.data.source import IGNORED, MOST_CLASSES, Classes, make_palette
from hamgan.segmentation.schema import DataConfig

EXAMPLE = "`- water` or `- {name: water, color: [0, 0, 255], values: [0, 11]}`"
FILES = ("classes.yaml", "classes.yml", "classes.txt")


def find_class_file(given: str | None, root: Path) -> Path | None:
    """Return the given file of classes, or the one in the data set's folder; None if there is none."""
    if given is not None:
        if not Path(given).is_file():
            raise DataError(f"data.classes: there is no file {given}")
        return Path(given)
    return next((root / name for name in FILES if (root / name).is_file()), None)


def read_classes(path: Path, *, reduce_zero_label: bool = False) -> Classes:
    """Read a YAML list of names or of ``{name, color, values}``, or a text file with one name per line.

    Without ``values`` the value of a class is its position in the list, counted from 0, or from 1 with
    ``reduce_zero_label``. Raises DataError for anything else, naming the entry.
    """
    entries = [_entry(entry, number, path) for number, entry in enumerate(_entries(path))]
    names = [entry["name"] for entry in entries]
    if not 0 < len(names) <= MOST_CLASSES:
        raise DataError(f"{path} has {len(names)} classes; allowed: 1 to {MOST_CLASSES}")
    if doubles := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{path} names {len(doubles)} classes twice, such as `{doubles[0]}`")
    first = int(reduce_zero_label)
    values: dict[int, int] = {}
    for number, entry in enumerate(entries):
        for value in entry.get("values", [number + first]):
            if values.setdefault(value, number) != number:
                raise DataError(f"{path}: the value {value} is both `{names[values[value]]}` and `{names[number]}`")
    colours = make_palette(len(names))
    for number, entry in enumerate(entries):
        colours[number] = entry.get("color", colours[number])
    return Classes(names, colours, values, by_colour=all("color" in entry for entry in entries))


def ignore_values(classes: Classes, data: DataConfig, where: str) -> Classes:
    """Return the classes with the values of ``data.ignore_label`` and ``data.reduce_zero_label`` ignored.

    Raises DataError if such a value is a class, except 255, which a file may define as a class: masks of 0 and 255 are
    common.
    """
    values = dict(classes.values)
    keys = {data.ignore_label: f"data.ignore_label {data.ignore_label}"}
    if data.reduce_zero_label:
        keys[0] = "data.reduce_zero_label"
    for value, key in keys.items():
        if values.setdefault(value, IGNORED) != IGNORED and value != IGNORED:
            raise DataError(
                f"{key}: the value {value} is the class `{classes.names[values[value]]}` of {where}; leave that class "
                "out of a file of classes that names the values of the others"
            )
    return replace(classes, values=values)


def _entries(path: Path) -> list[Any]:
    try:
        if path.suffix == ".txt":
            return [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
        entries = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {one_line(error)}") from error
    if isinstance(entries, dict):
        entries = entries.get("classes")
    if not isinstance(entries, list):
        raise DataError(f"{path} must hold a list of classes, each {EXAMPLE}")
    return entries


def _entry(entry: Any, number: int, path: Path) -> JsonObject:
    found = entry if isinstance(entry, dict) else {"name": entry}
    found = {str(key).replace("colour", "color"): value for key, value in found.items()}
    if "value" in found:
        found["values"] = [found.pop("value")]
    name, color, values = found.get("name"), found.get("color", [0, 0, 0]), found.get("values", [])
    fits = isinstance(name, (str, int)) and set(found) <= {"name", "color", "values"}
    fits &= isinstance(color, list) and len(color) == 3 and all(_is_in(part, 255) for part in color)
    if not (fits and isinstance(values, list) and all(_is_in(value, 65535) for value in values)):
        raise DataError(f"{path}: entry {number + 1}, {str(entry)[:60]!r}, is no class; allowed are {EXAMPLE}")
    return found | {"name": str(name)}


def _is_in(value: Any, largest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= largest
