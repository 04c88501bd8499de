"""Prepare the line plots of a report, sorted into panels."""

import math
from collections.abc import Sequence

from hamgan.files import JsonObject
from hamgan.tracking.panels import NOTES, PANELS, panel_of

MOST_POINTS = 1000
"""Largest number of points of a line; longer ones show means of neighbours, to keep pages small."""

Line = tuple[list[float], list[float]]


def lines_of(rows: Sequence[JsonObject]) -> dict[str, dict[str, Line]]:
    """Return panel -> number -> (kimg, values) for the rows of metrics.jsonl, in a fixed order."""
    found: dict[str, dict[str, Line]] = {title: {} for title in PANELS}
    for row in rows:
        for name, value in row.items():
            title = panel_of(name)
            if title is not None and isinstance(value, (int, float)):
                kimg, values = found[title].setdefault(name, ([], []))
                kimg.append(float(row["kimg"]))
                values.append(float(value))
    return {title: dict(sorted(lines.items())) for title, lines in found.items() if lines}


def thinned(line: Line) -> Line:
    """Return at most `MOST_POINTS` points: means over stretches of equal length."""
    step = -(-len(line[0]) // MOST_POINTS)
    kimg, values = (
        [sum(part[start : start + step]) / len(part[start : start + step]) for start in range(0, len(part), step)]
        for part in line
    )
    return kimg, values


def panel_data(title: str, lines: dict[str, Line]) -> JsonObject:
    """Return the data of a panel for the page's script: title, note, names, and rows of kimg and of each number.

    Numbers that are missing at a position are None.
    """
    found = {name: dict(zip(*thinned(line), strict=True)) for name, line in lines.items()}
    kimg = sorted(set().union(*found.values()))
    rows = [kimg, *([_short(values.get(position)) for position in kimg] for values in found.values())]
    return {"title": title, "note": NOTES.get(title, ""), "names": list(found), "rows": rows}


def _short(value: float | None) -> float | None:
    """Round to the precision of a plot; None for NaN and infinity, which JSON lacks."""
    return float(f"{value:.5g}") if value is not None and math.isfinite(value) else None
