"""Tell whether a checkpoint was chosen by a number, for such a number flatters: it is the lowest of several draws."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict, cast

Evaluation = Mapping[str, Any]
SAME = ("num_samples", "seed", "repeats", "truncation", "labels", "reference_hash", "reference_count")
"""Entries that must be equal in evaluations whose FIDs are compared; only the checkpoint differs."""


class Choice(TypedDict):
    """Hold by what a checkpoint was chosen, in plain values."""

    by: str
    """Key of the FID in results.jsonl."""
    network: str
    """Its feature extractor."""
    among: int
    """Number of checkpoints that were compared."""
    samples: list[int]
    """First number of the samples behind the FIDs, and the one after the last."""


def find_choice(rows: Iterable[Evaluation], kimg: float) -> Choice | None:
    """Return by what the checkpoint at ``kimg`` was chosen: the lowest FID of several, with a later one left aside.

    ``rows`` are evaluations of one run's network. Of several choices the one among most checkpoints is returned.
    """
    groups: dict[str, dict[float, tuple[float, Evaluation]]] = {}
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


def fid_key(row: Evaluation) -> str | None:
    """Return the key of the FID by which a run keeps its best checkpoints, None where a row has none."""
    return next((key for key, value in row.items() if key.startswith("fid") and isinstance(value, float)), None)


def way_of_measuring(row: Evaluation) -> str:
    """Say how a run measured its FID or mIoU: scores can be compared where this is the same."""
    if "miou" in row:
        return str(row["protocol"])  # that of a segmenter does not name the checkpoint
    return json.dumps([fid_key(row), *map(row.get, (*SAME, "ema", "batch_norm"))])


def sample_numbers(row: Evaluation) -> list[int]:
    """Return the first number of a row's samples and the one after the last; a number is a latent's seed."""
    count, seed = int(row.get("num_samples") or 0), int(row.get("seed") or 0)
    return [seed * count, (seed + int(row.get("repeats") or 1)) * count]


def was_chosen_by(row: Evaluation) -> bool:
    """Return whether a row is about a chosen checkpoint and shares samples with the FID that chose it."""
    choice = cast(Choice | None, row.get("chosen"))
    if not choice:
        return False
    (first, last), (start, stop) = sample_numbers(row), choice["samples"]
    return first < stop and start < last


def independent_seed(choice: Choice, num_samples: int) -> int:
    """Return the first seed of an evaluation that shares no sample with those of a choice."""
    return -(-choice["samples"][1] // num_samples)


def describe_choice(choice: Choice) -> str:
    """Word a choice for a protocol."""
    return f"checkpoint chosen among {choice['among']} for its {choice['by']}"
