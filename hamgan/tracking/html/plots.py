"""Draw the panels of a run for a page."""

import io
from collections.abc import Sequence
from typing import Any

from hamgan.tracking.panels import PANELS, panel_of

MOST_POINTS = 1000
"""Points of a line; longer ones show means of neighbours, which keeps a page of a long run small."""

Line = tuple[list[float], list[float]]


def lines_of(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Line]]:
    """Return panel -> number -> (kimg, values) of all rows of metrics.jsonl, panels and numbers in a fixed order."""
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


def draw_panel(title: str, lines: dict[str, Line], marks: Sequence[float] = ()) -> str:
    """Return one panel as an SVG element; ``marks`` (kimg) are dashed lines: where a run went back."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5.2, 2.9), layout="constrained")
    for name, line in lines.items():
        kimg, values = thinned(line)
        axes.plot(kimg, values, label=name, linewidth=1.2, marker="o" if len(kimg) < 30 else None, markersize=3)
    for kimg_mark in marks:
        axes.axvline(kimg_mark, color="black", linestyle="--", linewidth=0.8)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("thousand images", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    text = io.StringIO()
    # Names of the parts are random otherwise, and would meet those of other plots on the page.
    with matplotlib.rc_context({"svg.hashsalt": title}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    return text.getvalue()[text.getvalue().index("<svg") :]
