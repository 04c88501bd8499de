"""The collapse monitor: judges the rows of a run by what came before them.

Brock et al. 2018 (BigGAN), section 4, is the source of what is watched: a collapse shows in top singular values that
explode, in D's loss jumping and in spikes of G's gradient; single spikes belong to healthy runs, hence `patience`.
"""

import math
import statistics
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from hamgan.config import MonitorConfig

# Hinge losses are saturated beyond a margin of 2 between D's logits: below it a margin says nothing.
MARGIN_FLOOR = 2.0

# What must not fall; the other series must not rise.
WORDS = {
    "spread": "the spread of a batch of generated images over that of real ones",
    "diversity": "the spread of a class in the sample sheet",
}


class Alarm(NamedTuple):
    """What is wrong with a run."""

    reason: str
    broken: bool = False
    """Something is not finite: no going on from here."""


class Monitor:
    """Keeps what the rows of a run have been like and says when one of them is out of line.

    ``memory`` is all that it knows, as plain JSON values; it is saved with the run, so that a resumed run is judged as
    if it had not been interrupted. Nothing in it depends on a clock.
    """

    def __init__(self, config: MonitorConfig, memory: dict[str, Any]) -> None:
        self.config, self.memory = config, memory

    @property
    def suspicious(self) -> bool:
        """Whether the last row was out of line: a checkpoint taken now is no place to return to."""
        return bool(self.memory.get("streak"))

    def judge(self, row: Mapping[str, Any]) -> Alarm | None:
        """Take in a row of metrics; not finite is an alarm at once, the rest after `patience` rows in a row."""
        broken = sorted(name for name, value in _numbers(row).items() if not math.isfinite(value))
        if broken:
            more = f" and {len(broken) - 3} more are" if len(broken) > 3 else " is" if len(broken) == 1 else " are"
            return Alarm(f"{', '.join(broken[:3])}{more} not finite", broken=True)
        series = watched(row)
        reasons = ["G gets no gradient: D answers the same to all images"] if row.get("g_gradient_norm") == 0 else []
        reasons += [reason for name, value in series.items() if (reason := self._out_of_line(name, value))]
        if not reasons:
            self.memory["streak"] = 0
            for name, value in series.items():
                self._remember(name, value)
            return None
        self.memory["streak"] = self.memory.get("streak", 0) + 1
        if self.memory["streak"] < self.config.patience:
            return None
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        return Alarm(f"{reasons[0]}{more}, {self.memory['streak']} rows in a row")

    def judge_sheet(self, diversity: float) -> Alarm | None:
        """Take in the diversity of a sample sheet: how much images of one class differ."""
        reason = self._out_of_line("diversity", diversity)
        if reason is None:
            self._remember("diversity", diversity)
        return Alarm(reason) if reason else None

    def judge_fid(self, fid: float, earlier: Iterable[float]) -> Alarm | None:
        """Compare a FID with the lowest one before it."""
        if not math.isfinite(fid):
            return Alarm("the FID is not finite", broken=True)
        best = min(earlier, default=math.inf)
        if fid <= self.config.fid_jump * best:
            return None
        return Alarm(f"the FID is {fid:.4g}, more than {self.config.fid_jump:g} times the {best:.4g} it once was")

    def _out_of_line(self, name: str, value: float) -> str | None:
        history = self.memory.get("history", {}).get(name, [])
        if len(history) < self.config.window // 2:
            return None
        usual = statistics.median(history)
        if name in WORDS:
            fallen = value < self.config.diversity_floor * usual
            return f"{WORDS[name]} is {value:.3g}, usual is {usual:.3g}" if fallen else None
        jump = self.config.sigma_jump if name.startswith("sigma") else self.config.jump
        floor = MARGIN_FLOOR if name == "margin" else 0.0
        return f"{name} is {value:.4g}, usual is {usual:.4g}" if value > jump * max(usual, floor) else None

    def _remember(self, name: str, value: float) -> None:
        history = self.memory.setdefault("history", {}).setdefault(name, [])
        history.append(float(f"{value:.6g}"))
        del history[: -self.config.window]


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    flat = {key: value for key, value in row.items() if isinstance(value, float)}
    return flat | {f"sigma of {layer}": value for layer, value in row.get("sigmas", {}).items()}


def watched(row: Mapping[str, Any]) -> dict[str, float]:
    """The series of a row that have a usual value: D's margin, gradient norms, sigma per layer, spread of images."""
    found = {name: row[name] for name in ("g_gradient_norm", "d_gradient_norm") if name in row}
    if "logits_real" in row and "logits_fake" in row:
        found["margin"] = abs(row["logits_real"] - row["logits_fake"])
    if row.get("spread_real"):
        found["spread"] = row["spread_fake"] / row["spread_real"]
    return found | {f"sigma of {layer}": value for layer, value in row.get("sigmas", {}).items()}
