"""Detect divergence and collapse by comparing each row of a run with the previous ones.

The signs are those of Brock et al. 2018 (BigGAN), section 4: before a collapse top singular values explode, D's loss
jumps and G's gradient spikes. Healthy runs have single spikes too, hence `patience`.
"""

import math
import statistics
from collections.abc import Mapping
from typing import NamedTuple

from hamgan.checkpoint import Progress
from hamgan.config import MonitorConfig
from hamgan.config.runs import MonitorSettings
from hamgan.tracking.network_metrics import Metrics

# Hinge losses saturate beyond a margin of 2 between D's logits; smaller margins are no sign of divergence.
MARGIN_FLOOR = 2.0

# Series that must not fall; the others must not rise.
FALLING = {
    "spread": "the spread of a batch of generated images over that of real ones",
    "diversity": "the spread of a class in the sample sheet",
}


class Alarm(NamedTuple):
    """Describe what is wrong with a run."""

    reason: str
    broken: bool = False
    """Whether a value is not finite, so that the run cannot go on from here."""


class RowMonitor:
    """Raise an alarm when a row differs too much from the previous ones: loss or gradient norm many times the usual.

    Its state is in ``progress.monitor``, which is saved and restored with the run, so a resumed run is monitored as if
    it had not been interrupted. Nothing depends on a clock.
    """

    def __init__(self, config: MonitorSettings, progress: Progress) -> None:
        self.settings, self.progress = config, progress

    def check_row(self, row: Metrics) -> Alarm | None:
        """Check a row of metrics: an alarm at once if a value is not finite, else after `patience` unusual rows."""
        numbers, memory = _numbers(row), self.progress.monitor
        broken = sorted(name for name, value in numbers.items() if not math.isfinite(value))
        if broken:
            more = f" and {len(broken) - 3} more are" if len(broken) > 3 else " is" if len(broken) == 1 else " are"
            return Alarm(f"{', '.join(broken[:3])}{more} not finite", broken=True)
        series = self.series(numbers)
        reasons = self.alarms_of_one_row(numbers)
        reasons += [reason for name, value in series.items() if (reason := self._out_of_line(name, value))]
        if not reasons:
            memory["streak"] = 0
            for name, value in series.items():
                self._remember(name, value)
            return None
        memory["streak"] = memory.get("streak", 0) + 1
        if memory["streak"] < self.settings.patience:
            return None
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        return Alarm(f"{reasons[0]}{more}, {memory['streak']} rows in a row")

    def series(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """Return the numbers to compare with their usual values, by name."""
        return {name: numbers[name] for name in ("loss", "gradient_norm") if name in numbers}

    def alarms_of_one_row(self, numbers: Mapping[str, float]) -> list[str]:
        """Return reasons for an alarm that do not depend on previous rows."""
        return []

    def describe_outlier(self, name: str, value: float, usual: float) -> str | None:
        """Return in what way a value is unusual, or None."""
        return f"{name} is {value:.4g}, usual is {usual:.4g}" if value > self.settings.jump * usual else None

    def _out_of_line(self, name: str, value: float) -> str | None:
        history = self.progress.monitor.get("history", {}).get(name, [])
        if len(history) < self.settings.window // 2:
            return None
        return self.describe_outlier(name, value, statistics.median(history))

    def _remember(self, name: str, value: float) -> None:
        history = self.progress.monitor.setdefault("history", {}).setdefault(name, [])
        history.append(float(f"{value:.6g}"))
        del history[: -self.settings.window]


class Monitor(RowMonitor):
    """Raise an alarm when a row, a sheet or a FID of a GAN's run differs too much from the previous ones."""

    def __init__(self, config: MonitorConfig, progress: Progress) -> None:
        super().__init__(config, progress)
        self.config = config

    def series(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """Return the numbers to compare: gradient norms, D's margin, spread of images, sigma per layer."""
        found = {name: numbers[name] for name in ("g_gradient_norm", "d_gradient_norm") if name in numbers}
        if "logits_real" in numbers and "logits_fake" in numbers:
            found["margin"] = abs(numbers["logits_real"] - numbers["logits_fake"])
        if numbers.get("spread_real"):
            found["spread"] = numbers["spread_fake"] / numbers["spread_real"]
        return found | {name: value for name, value in numbers.items() if name.startswith("sigma of ")}

    def alarms_of_one_row(self, numbers: Mapping[str, float]) -> list[str]:
        """Return an alarm's reason if G gets no gradient."""
        return ["G gets no gradient: D answers the same to all images"] if numbers.get("g_gradient_norm") == 0 else []

    def check_sheet(self, diversity: float) -> Alarm | None:
        """Check the diversity of a sample sheet, which is how much images of one class differ."""
        reason = self._out_of_line("diversity", diversity)
        if reason is None:
            self._remember("diversity", diversity)
        return Alarm(reason) if reason else None

    def check_fid(self, fid: float) -> Alarm | None:
        """Compare a FID with the lowest one in the run's progress."""
        if not math.isfinite(fid):
            return Alarm("the FID is not finite", broken=True)
        best = min(self.progress.fid.values(), default=math.inf)
        if fid <= self.config.fid_jump * best:
            return None
        return Alarm(f"the FID is {fid:.4g}, more than {self.config.fid_jump:g} times the {best:.4g} it once was")

    def describe_outlier(self, name: str, value: float, usual: float) -> str | None:
        """Return in what way a value is unusual: a spread that has fallen, or another value that has jumped."""
        if name in FALLING:
            fallen = value < self.config.diversity_floor * usual
            return f"{FALLING[name]} is {value:.3g}, usual is {usual:.3g}" if fallen else None
        jump = self.config.sigma_jump if name.startswith("sigma") else self.config.jump
        floor = MARGIN_FLOOR if name == "margin" else 0.0
        return f"{name} is {value:.4g}, usual is {usual:.4g}" if value > jump * max(usual, floor) else None


def _numbers(row: Metrics) -> dict[str, float]:
    """Return all numbers of a row, those of layers as ``sigma of LAYER``."""
    numbers: dict[str, float] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            numbers |= {f"sigma of {layer}": sigma for layer, sigma in value.items()}
        elif isinstance(value, float):
            numbers[key] = value
    return numbers
