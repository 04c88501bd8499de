"""What a benchmark says: tables in Markdown, a verdict in plain words, and every figure as JSON."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hamgan.machine import describe_machine


@dataclass
class Table:
    """A table; numbers are shown with three significant digits, everything else as it is."""

    headers: Sequence[str]
    rows: Sequence[Sequence[object]]
    title: str = ""

    def markdown(self) -> str:
        """The table with aligned columns."""
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
    """The outcome of one benchmark. ``protocol`` says how it was measured, ``figures`` holds all numbers for JSON."""

    title: str
    protocol: str
    tables: list[Table] = field(default_factory=list)
    verdict: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=describe_machine)

    def markdown(self) -> str:
        """Title, machine, protocol, tables and verdict."""
        machine = f"Machine: {self.machine['summary']}."
        verdict = "\n".join(f"- {sentence}" for sentence in self.verdict)
        parts = [f"# {self.title}", f"{machine} {self.protocol}", *(table.markdown() for table in self.tables), verdict]
        return "\n\n".join(part for part in parts if part)

    def save(self, path: Path) -> None:
        """Everything as one JSON object."""
        values = {name: getattr(self, name) for name in ("title", "machine", "protocol", "figures", "verdict")}
        values["tables"] = [
            {"title": t.title, "headers": list(t.headers), "rows": [list(r) for r in t.rows]} for t in self.tables
        ]
        path.write_text(json.dumps(values, indent=1, default=str) + "\n")


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "-" if value is None else str(value)
