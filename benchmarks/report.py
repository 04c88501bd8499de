"""Report what a benchmark found: tables in Markdown, a verdict in plain words, and every figure as JSON."""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.timing import Costs, Timings
from hamgan.errors import ConfigError
from hamgan.files import write_atomically
from hamgan.machine import describe_machine


@dataclass
class Table:
    """Hold a table; numbers are shown with three significant digits, everything else as it is."""

    headers: Sequence[str]
    rows: Sequence[Sequence[object]]
    title: str = ""

    def markdown(self) -> str:
        """Return the table with aligned columns."""
        lines = [[str(header) for header in self.headers], *([_cell(value) for value in row] for row in self.rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.headers))]
        text = [
            "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
            for line in lines
        ]
        text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
        return "\n".join([f"{self.title}\n", *text] if self.title else text)


@dataclass
class Report:
    """Hold the outcome of a benchmark: ``protocol`` says how it was measured, ``figures`` has all numbers for JSON."""

    title: str
    protocol: str
    tables: list[Table] = field(default_factory=list)
    verdict: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=describe_machine)

    def markdown(self) -> str:
        """Return title, machine, protocol, tables and verdict."""
        machine = f"Machine: {self.machine['summary']}."
        verdict = "\n".join(f"- {sentence}" for sentence in self.verdict)
        parts = [f"# {self.title}", f"{machine} {self.protocol}", *(table.markdown() for table in self.tables), verdict]
        return "\n\n".join(part for part in parts if part)

    def save(self, path: Path) -> None:
        """Write everything as one JSON object."""
        path.write_text(json.dumps(vars(self), indent=1, default=vars) + "\n")


def write_tables_into_page(report: Report, page: Path, name: str) -> None:
    """Put what a report says between the marks of its name in a page of docs/; ConfigError where it has none."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    text = page.read_text()
    if begin not in text or end not in text:
        raise ConfigError(f"{page} has no place for the tables: it must hold `{begin}` and `{end}`")
    tables = "\n\n".join(table.markdown() for table in report.tables)
    content = f"{report.protocol}\n\n{tables}\n\n{' '.join(report.verdict)} {report.machine['summary']}."
    write_atomically(page, replace_block(text, begin, end, content))


def replace_block(text: str, begin: str, end: str, content: str) -> str:
    """Return a text with other content between two marks that are in it."""
    before, _, rest = text.partition(begin)
    return f"{before}{begin}\n\n{content}\n\n{end}{rest.partition(end)[2]}"


def cost_table(
    title: str, costs: Costs, images: int, base: str, more: Mapping[str, Mapping[str, object]] | None = None
) -> Table:
    """Return a table with a row per alternative, where each call makes ``images`` images; "-" stands for unknown.

    Times and memory are also given as parts of those of ``base``, where that took part. ``more`` has further columns:
    header -> name -> value.
    """
    timings, memory, more = costs.timings, costs.memory, more or {}
    rows: list[Sequence[object]] = [
        [
            name,
            1e3 * timings.median(name),
            images / timings.median(name),
            timings.ratio(name, base) if base in memory else None,
            memory[name] / 2**20,
            memory[name] / memory[base] if base in memory else None,
            costs.flops[name] / images / 1e9 if name in costs.flops else None,
            f"{timings.spread(name):.0%}",
            *(column.get(name) for column in more.values()),
        ]
        for name in memory
    ]
    headers = ["form", "ms", "images/s", f"/ {base}", "peak MiB", f"/ {base}", "GFLOP / image", "spread", *more]
    return Table(headers, rows, title)


def time_table(title: str, timings: Timings, base: str) -> Table:
    """Return a table with a row per alternative, with its time as a part of that of ``base``."""
    rows = [[name, timings.median(name), f"{timings.ratio(name, base):.1%}"] for name in timings.seconds]
    return Table(["what", "s", f"/ {base}"], rows, title)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "-" if value is None else str(value)


def spread(values: Sequence[float], write: Callable[[float], str]) -> str:
    """Write the median of values, with the lowest and the highest where there are several; ``-`` for none."""
    if not values:
        return "-"
    middle = write(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({write(min(values))} to {write(max(values))})"
