"""Print rows of numbers, append them to results.jsonl, and write tables."""

import csv
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, get_args

from hamgan.config import FEATURES, Resizer
from hamgan.files import JsonObject

NAMES = {
    "fid": "FID",
    "inception_score": "Inception Score",
    "sfid": "sFID",
    "fd_dinov2": "FD-DINOv2",
    "clip_fid": "CLIP-FID",
    "cmmd": "CMMD",
    "fid_inf": "FID at infinitely many samples",
    "kid": "KID",
    "mind": "MIND",
    "precision": "Precision",
    "recall": "Recall",
    "density": "Density",
    "coverage": "Coverage",
    "class_accuracy": "Class right (nearest class mean)",
    "class_accuracy_real": "Class right, real held-out images",
    "class_distance": "Squared distance of class means, average over classes",
    "class_diversity": "Diversity within a class, of that of real images",
    "class_leakage": "Samples taken for another class (nearest class mean)",
    "class_leakage_real": "Real images taken for another class",
}
"""Prefix of a number's key -> its name, the most important first."""
HIGHER_IS_BETTER = {"inception_score", "precision", "recall", "density", "coverage", "class_accuracy"}
LOWER_IS_BETTER = {"fid", "sfid", "fd_dinov2", "clip_fid", "cmmd", "fid_inf", "kid", "mind", "class_distance"}
LOWER_IS_BETTER |= {"class_leakage"}
_SUFFIX = re.compile(
    f"(_({'|'.join(name.replace('-', '_') for name in FEATURES)}))?"
    f"(_(?P<resizer>{'|'.join(get_args(Resizer))}))?(_[0-9a-f]{{8}})?(_tf32)?"
)
"""Suffix of the key of an unusual number: its extractor, resizer, hash of other weights, TF32."""
EXTREMES = {
    "best_classes": "best classes",
    "worst_classes": "worst classes",
    "least_diverse_classes": "least diverse classes",
    "most_confused_classes": "taken for another class",
}
NOTES = {
    "classes_left_out": "left out of the averages over classes",
    "class_accuracy_left_out": "left out of the classifier of class_accuracy",
    "samples_left_out": "left out of the samples",
    "reference_left_out": "left out of the reference",
}
TABLES = ("class_table", "class_confusions")
"""Entries that are too long for results.jsonl and are written to separate files on request."""


class Number(NamedTuple):
    """Hold a measured number: its key in a row, and its title, with its extractor if that is not the usual one."""

    key: str
    title: str
    value: float
    spread: float | None
    """Standard deviation over subsets or splits."""
    standard_error: float | None
    """Estimated standard deviation over other sets of as many samples."""
    seeds_spread: float | None
    """Standard deviation over the seeds of repeated evaluations."""
    seeds: int

    def __str__(self) -> str:
        text = f"{self.value:.5g}" + (f" ± {self.spread:.2g}" if self.spread is not None else "")
        text += f" (standard error {self.standard_error:.2g})" if self.standard_error is not None else ""
        return text + (f" (± {self.seeds_spread:.2g} over {self.seeds} seeds)" if self.seeds_spread is not None else "")


def numbers_of(row: JsonObject) -> list[Number]:
    """Return the measured numbers of a row, in the order of `NAMES`."""
    numbers: dict[str, list[Number]] = {name: [] for name in NAMES}
    for key, value in row.items():
        name, suffix = split_key(key)
        if name is None or not isinstance(value, float):
            continue
        extractor = name_network(row["extractor"], suffix)
        spread, error, over_seeds = (
            row.get(f"{name}_{what}{suffix}") for what in ("std", "standard_error", "seeds_std")
        )
        title, seeds = NAMES[name] + extractor, row.get("repeats", 1)
        numbers[name].append(Number(key, title, value, spread, error, over_seeds, seeds))
    return [number for name in NAMES for number in numbers[name]]


def describe_numbers(row: JsonObject) -> list[str]:
    """Return one line per number of a row, with its spread."""
    return [f"{number.title}: {number}" for number in numbers_of(row)]


def split_key(key: str) -> tuple[str | None, str]:
    """Split ``fid_efficientnet_lite0`` into ``fid`` and the rest; (None, "") for a key that is no number."""
    for name in sorted(NAMES, key=len, reverse=True):
        suffix = key[len(name) :]
        if key.startswith(name) and (not suffix or _SUFFIX.fullmatch(suffix)):
            return name, suffix
    return None, ""


def name_network(network: str, suffix: str) -> str:
    """Return the text after a number's name: network and resizer, or an empty string for the usual ones."""
    found = _SUFFIX.fullmatch(suffix)
    resizer = f", {found['resizer']}" if found and found["resizer"] else ""
    return f" ({network}{resizer})" if suffix else ""


def protocol_of(row: JsonObject, key: str) -> str:
    """Return the protocol of a number, which differs from the row's if it has its own extractor."""
    return str(row.get("protocols", {}).get(key, row["protocol"]))


def other_protocols(row: JsonObject) -> dict[str, str]:
    """Return title -> protocol for numbers with their own extractor."""
    return {NAMES.get(key, key): line for key, line in row.get("protocols", {}).items()}


def print_row(row: JsonObject) -> None:
    """Print the numbers, the protocol that belongs to them, and the warnings."""
    for line in describe_numbers(row):
        print(line)
    for name, title in EXTREMES.items():
        classes = next((value for key, value in row.items() if key.startswith(name)), None)
        if classes:
            print(f"{title}: {', '.join(classes)}")
    for name, title in NOTES.items():
        if note := next((value for key, value in row.items() if key.startswith(name)), None):
            print(f"{title}: {note}")
    print(f"protocol: {row['protocol']}")
    for title, line in other_protocols(row).items():
        print(f"protocol of {title}: {line}")
    print(f"{row['seconds']:.1f} s, {row['images_per_second']:.1f} images/s on {row['device']}")
    print_remarks([row])


def print_remarks(rows: Sequence[JsonObject]) -> None:
    """Print the notes and warnings of rows, each once."""
    for entry, title in (("notes", "note"), ("warnings", "warning")):
        for text in dict.fromkeys(text for row in rows for text in row.get(entry, [])):
            print(f"{title}: {text}")


def append_row(row: JsonObject, file: str | Path) -> Path:
    """Append a row, without its tables, as a new line of a JSON-lines file, also after an incomplete line."""
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps({key: value for key, value in row.items() if not key.startswith(TABLES)}) + "\n"
    with file.open("a+b") as stream:
        if stream.tell():
            stream.seek(-1, os.SEEK_END)
            line = line if stream.read(1) == b"\n" else f"\n{line}"  # a full disk leaves an incomplete line
        stream.write(line.encode())
    return file


def save_table(rows: Sequence[JsonObject], file: str | Path) -> Path:
    """Write rows with the same keys as CSV."""
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file
