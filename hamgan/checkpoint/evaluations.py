"""Find the evaluations of a run that belong to given weights, to store them in the same file."""

import contextlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path

from hamgan.checkpoint.choice import Choice, describe_choice, find_choice, was_chosen_by
from hamgan.config import Config
from hamgan.files import JsonObject


def read_evaluations(run: Path, kimg: float, *, ema: bool, batch_norm: str) -> list[JsonObject]:
    """Read the rows of RUN/results.jsonl about the weights at ``kimg``, one per protocol; newer numbers win.

    ``ema`` selects rows of the average of G, ``batch_norm`` those with these statistics. Lines that cannot be read,
    such as one that is being written, are skipped. If the run's other evaluations show that the checkpoint was chosen
    by its FID, every row has an entry ``chosen``.
    """
    rows = read_rows(run, lambda row: (row.get("ema"), row.get("batch_norm")) == (ema, batch_norm))
    choice = find_choice(rows, kimg)
    return [_mark(row, choice) for row in _merge(row for row in rows if row.get("kimg") == kimg)]


def select_evaluations(run: Path, wanted: Callable[[JsonObject], bool]) -> list[JsonObject]:
    """Read the wanted rows of RUN/results.jsonl, one per protocol; newer numbers win."""
    return _merge(read_rows(run, wanted))


def read_rows(run: Path, wanted: Callable[[JsonObject], bool]) -> list[JsonObject]:
    """Read the wanted rows of RUN/results.jsonl, oldest first; lines that cannot be read are skipped.

    A row has numbers by name, the entries of their protocol, and ``protocol``, the same in one line.
    """
    try:
        lines = (run / "results.jsonl").read_text(errors="replace").splitlines()
    except OSError:
        return []
    rows = []
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line)
            if is_evaluation(row) and wanted(row):
                rows.append(row)
    return rows


def _merge(rows: Iterable[JsonObject]) -> list[JsonObject]:
    """Return one row per protocol, without the tables of all classes, which may have thousands of lines."""
    found: dict[str, JsonObject] = {}
    for row in rows:
        numbers = {key: value for key, value in row.items() if not key.startswith("class_table")}
        found[row["protocol"]] = found.get(row["protocol"], {}) | numbers
    return list(found.values())


def _mark(row: JsonObject, choice: Choice | None) -> JsonObject:
    """Add to a row, and to its protocol, how its checkpoint was chosen."""
    if choice is None or row.get("chosen"):
        return row
    return row | {"chosen": choice, "protocol": f"{row['protocol']}; {describe_choice(choice)}"}


def largest_first(evaluations: Iterable[JsonObject]) -> list[JsonObject]:
    """Sort evaluations so that the one to quote comes first: not truncated, with most images on both sides.

    Those by which the checkpoint was chosen come last.
    """

    def weight(row: JsonObject) -> tuple[bool, bool, float]:
        counts = [row.get("num_samples"), row.get("reference_count")]
        numbers = [count for count in counts if isinstance(count, (int, float))]
        truncation = row.get("truncation")
        truncated = isinstance(truncation, (int, float)) and truncation < 1
        return not was_chosen_by(row), not truncated, min(numbers, default=0)

    return sorted(evaluations, key=weight, reverse=True)


def evaluations_of_run(config: Config, kimg: float) -> list[JsonObject]:
    """Read a run's own evaluations, at ``kimg``, of the network that it samples from."""
    ema = config.train.ema_decay > 0
    return read_evaluations(config.folder, kimg, ema=ema, batch_norm="ema" if ema else "running")


def is_evaluation(row: object) -> bool:
    """Return whether a value is an `JsonObject`, which needs a protocol."""
    return isinstance(row, dict) and isinstance(row.get("protocol"), str)
