"""Show progress with one kind of bar for all commands, which drops less important parts on narrow terminals."""

import math
import sys
from typing import Any

from tqdm import tqdm
from tqdm.utils import disp_len

SECONDS_BETWEEN_LINES = 30.0
"""Least time between two lines of progress in a file or pipe."""
SMALLEST_BAR, LARGEST_BAR = 6, 30


def duration(seconds: float) -> str:
    """Return ``3725`` seconds as ``1:02:05``."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


class ProgressBar(tqdm):  # type: ignore[misc, unused-ignore]  # has no types
    """Count images, or what ``unit`` names, towards ``total``; the unit ``kimg`` shows images in thousands.

    ``set_postfix_str`` adds a remark, such as losses.
    """

    def __init__(self, total: int, title: str, unit: str = "images", **options: Any) -> None:
        on_terminal = sys.stderr.isatty()
        between = 0.2 if on_terminal else SECONDS_BETWEEN_LINES
        settings: dict[str, Any] = {"mininterval": between, "maxinterval": math.inf, "smoothing": 0.05}
        settings |= {"dynamic_ncols": on_terminal, "ncols": None if on_terminal else 120, "leave": on_terminal}
        self.on_terminal = on_terminal
        super().__init__(total=total, desc=title, unit=unit, file=sys.stderr, **settings | options)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Redraw the bar on a terminal; elsewhere print a line, once there is a speed."""
        if self.on_terminal:
            super().display(msg, pos)
        elif msg is None and self.n > self.initial:  # at the end tqdm passes an empty text
            print(str(self), file=self.fp, flush=True)

    @staticmethod
    def format_meter(n: float, total: float, elapsed: float, **values: Any) -> str:
        """Return the line: title, position, share, bar, speed, time to finish, remark."""
        unit, done = values["unit"], n - values.get("initial", 0)
        rate = values.get("rate") or (done / elapsed if elapsed and done else 0.0)
        scale, digits = (1000, ",.1f") if unit == "kimg" else (1, ",.0f")
        parts = {
            "title": str(values.get("prefix") or "").removesuffix(": "),
            "position": f"{n / scale:{digits}}/{total / scale:{digits}} {unit}",
            "share": f"{n / total:.0%}" if total else "",
            "speed": _speed(rate, "images" if unit == "kimg" else unit),
            "left": f"{duration((total - n) / rate)} left" if rate else "",
            "remark": values.get("postfix") or "",
        }
        return _fit(parts, n / total if total else 0.0, (values.get("ncols") or 80) - 1, bool(values.get("ascii")))


def _speed(rate: float, unit: str) -> str:
    if not rate:
        return ""
    return f"{rate:,.{0 if rate >= 10 else 1 if rate >= 1 else 2}f} {unit}/s"


def _fit(parts: dict[str, str], share: float, width: int, ascii_only: bool) -> str:
    """Join as many parts as fit, by importance, and a bar if there is room; the title has the lowest priority."""
    kept: dict[str, str] = {}
    for name in (name for name in ("position", "left", "speed", "remark", "share", "title") if parts[name]):
        bar = SMALLEST_BAR + 2 if name == "title" else 0
        if disp_len("  ".join([*kept.values(), parts[name]])) > width - bar:
            break
        kept[name] = parts[name]
    room = width - disp_len("  ".join(kept.values())) - 2
    if room >= SMALLEST_BAR:
        cells = min(room, LARGEST_BAR)
        filled = int(min(max(share, 0.0), 1.0) * cells)
        kept["bar"] = ("#" if ascii_only else "━") * filled + ("." if ascii_only else "╌") * (cells - filled)
    order = ("title", "position", "share", "bar", "speed", "left", "remark")
    return "  ".join(kept[name] for name in order if name in kept)
