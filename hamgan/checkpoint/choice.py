"""Detect that a checkpoint was chosen by its FID, which is then too low: the lowest of several draws."""

import json
from collections.abc import Iterable
from typing import TypedDict, cast

from hamgan.files import JsonObject

SAME = ("num_samples", "seed", "repeats", "truncation", "labels", "reference_hash", "reference_count")
"""Entries of a row that must be equal to compare FIDs of different checkpoints."""


class Choice(TypedDict):
    """Describe how a checkpoint was chosen, in plain values."""

    by: str
    """Key of the FID in results.jsonl."""
    network: str
    """Feature extractor of the FID."""
    among: int
    """Number of checkpoints that were compared."""
    samples: list[int]
    """Range of the sample numbers behind the FIDs: first, and one past the last."""


def find_choice(rows: Iterable[JsonObject], kimg: float) -> Choice | None:
    """Return how the checkpoint at ``kimg`` was chosen: by the lowest FID of several, with a later one passed over.

    ``rows`` are evaluations of one run's network. None if it was not. Of several choices, the one among most
    checkpoints.
    """
    groups: dict[str, dict[float, tuple[float, JsonObject]]] = {}
    for row in rows:
        if (key := fid_key(row)) and isinstance(row.get("kimg"), (int, float)):
            groups.setdefault(way_of_measuring(row), {})[row["kimg"]] = row[key], row
    found = []
    for by_kimg in groups.values():
        lowest = min(by_kimg, key=lambda position: by_kimg[position][0])
        if lowest == kimg < max(by_kimg):
            row = by_kimg[kimg][1]
            by, network = fid_key(row) or "", str(row.get("extractor"))
            found.append(Choice(by=by, network=network, among=len(by_kimg), samples=sample_numbers(row)))
    return max(found, key=lambda choice: choice["among"], default=None)


def fid_key(row: JsonObject) -> str | None:
    """Return the key of the FID by which a run keeps its best checkpoints, None if the row has none."""
    return next((key for key, value in row.items() if key.startswith("fid") and isinstance(value, float)), None)


def way_of_measuring(row: JsonObject) -> str:
    """Return a text that identifies the protocol of a FID or mIoU; scores with the same text are comparable."""
    if "miou" in row:
        return str(row["protocol"])  # a segmenter's protocol does not name the checkpoint
    return json.dumps([fid_key(row), *map(row.get, (*SAME, "ema", "batch_norm"))])


def sample_numbers(row: JsonObject) -> list[int]:
    """Return the range of a row's sample numbers, which are seeds: first, and one past the last."""
    count, seed = int(row.get("num_samples") or 0), int(row.get("seed") or 0)
    return [seed * count, (seed + int(row.get("repeats") or 1)) * count]


def was_chosen_by(row: JsonObject) -> bool:
    """Return whether a row shares samples with the FID that chose its checkpoint."""
    choice = cast(Choice | None, row.get("chosen"))
    if not choice:
        return False
    (first, last), (start, stop) = sample_numbers(row), choice["samples"]
    return first < stop and start < last


def independent_seed(choice: Choice, num_samples: int) -> int:
    """Return the smallest seed of an evaluation that shares no sample with a choice."""
    return -(-choice["samples"][1] // num_samples)


def describe_choice(choice: Choice) -> str:
    """Describe a choice for a protocol."""
    return f"checkpoint chosen among {choice['among']} for its {choice['by']}"
