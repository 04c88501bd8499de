"""The evaluations of a run that belong to given weights: what stands beside them in a file that is passed on."""

import contextlib
import json
from pathlib import Path
from typing import Any

from hamgan.config import Config

Evaluation = dict[str, Any]
"""A row of results.jsonl: numbers by name, the protocol behind them in pieces and, as ``protocol``, in one line."""


def read_evaluations(run: Path, kimg: float, *, ema: bool, batch_norm: str) -> list[Evaluation]:
    """Rows of RUN/results.jsonl about the weights at ``kimg``: one per protocol, newer numbers in place of older ones.

    ``ema``: of the average of G; ``batch_norm``: the statistics that stand in the file. Lines that cannot be read,
    such as one that is being written, are passed over: weights are worth more than their figures.
    """
    try:
        lines = (run / "results.jsonl").read_text(errors="replace").splitlines()
    except OSError:
        return []
    found: dict[str, Evaluation] = {}
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line)
            if is_evaluation(row) and _is_about(row, kimg, ema, batch_norm):
                found[row["protocol"]] = found.get(row["protocol"], {}) | _without_tables(row)
    return list(found.values())


def evaluations_of_run(config: Config, kimg: float) -> list[Evaluation]:
    """What the run itself has measured of the network that it samples from, at ``kimg``."""
    ema = config.train.ema_decay > 0
    return read_evaluations(config.folder, kimg, ema=ema, batch_norm="ema" if ema else "running")


def is_evaluation(row: Any) -> bool:
    """Whether a value can be an `Evaluation`: numbers without their protocol are none."""
    return isinstance(row, dict) and isinstance(row.get("protocol"), str)


def _is_about(row: Evaluation, kimg: float, ema: bool, batch_norm: str) -> bool:
    return (row.get("kimg"), row.get("ema"), row.get("batch_norm")) == (kimg, ema, batch_norm)


def _without_tables(row: Evaluation) -> Evaluation:
    """A row without its table of all classes, which may have thousands of lines."""
    return {key: value for key, value in row.items() if not key.startswith("class_table")}
