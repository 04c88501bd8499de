"""Find the evaluations of a run that belong to given weights, to stand beside them in a file that is passed on."""

import contextlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from hamgan.config import Config

Evaluation = dict[str, Any]
"""A row of results.jsonl: numbers by name, the protocol behind them in pieces and, as ``protocol``, in one line."""


def read_evaluations(run: Path, kimg: float, *, ema: bool, batch_norm: str) -> list[Evaluation]:
    """Read the rows of RUN/results.jsonl about the weights at ``kimg``: one per protocol, newer numbers over older.

    ``ema``: of the average of G; ``batch_norm``: the statistics that stand in the file. Lines that cannot be read,
    such as one that is being written, are passed over: weights are worth more than their figures.
    """
    wanted = kimg, ema, batch_norm
    return select_evaluations(run, lambda row: (row.get("kimg"), row.get("ema"), row.get("batch_norm")) == wanted)


def select_evaluations(run: Path, wanted: Callable[[Evaluation], bool]) -> list[Evaluation]:
    """Read the rows of RUN/results.jsonl that are wanted: one per protocol, newer numbers over older."""
    try:
        lines = (run / "results.jsonl").read_text(errors="replace").splitlines()
    except OSError:
        return []
    found: dict[str, Evaluation] = {}
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line)
            if is_evaluation(row) and wanted(row):
                # Without the table of all classes, which may have thousands of lines.
                numbers = {key: value for key, value in row.items() if not key.startswith("class_table")}
                found[row["protocol"]] = found.get(row["protocol"], {}) | numbers
    return list(found.values())


def largest_first(evaluations: Iterable[Evaluation]) -> list[Evaluation]:
    """Order evaluations so that the one to quote comes first: not truncated, of most images on both sides."""

    def weight(row: Evaluation) -> tuple[bool, float]:
        counts = [row.get("num_samples"), row.get("reference_count")]
        numbers = [count for count in counts if isinstance(count, (int, float))]
        truncation = row.get("truncation")
        return not (isinstance(truncation, (int, float)) and truncation < 1), min(numbers, default=0)

    return sorted(evaluations, key=weight, reverse=True)


def evaluations_of_run(config: Config, kimg: float) -> list[Evaluation]:
    """Read what the run itself has measured of the network that it samples from, at ``kimg``."""
    ema = config.train.ema_decay > 0
    return read_evaluations(config.folder, kimg, ema=ema, batch_norm="ema" if ema else "running")


def is_evaluation(row: object) -> bool:
    """Return whether a value can be an `Evaluation`: numbers without their protocol are none."""
    return isinstance(row, dict) and isinstance(row.get("protocol"), str)
