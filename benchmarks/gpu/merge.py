"""Put what the parts have written into ``docs/gpu.md``, below the line that marks the place."""

import json
from pathlib import Path

from benchmarks.gpu import PARTS
from benchmarks.report import Report
from hamgan.errors import ConfigError
from hamgan.files import write_atomically

MARK = "<!-- measured: python -m benchmarks gpu report writes below this line -->"


def merge(folder: Path, page: Path) -> Report:
    """Replace what stands below the mark of a page by the tables in a folder, with the machine they come from."""
    if not page.is_file() or MARK not in (text := page.read_text()):
        raise ConfigError(f"--docs {page} is no page with the line {MARK}")
    found = [part for part in PARTS if (folder / f"{part}.json").is_file()]
    if not found:
        raise ConfigError(f"--output {folder} holds no results of {', '.join(PARTS)}")
    machines = {json.loads((folder / f"{part}.json").read_text())["machine"]["summary"] for part in found}
    parts = [(folder / f"{part}.md").read_text().strip().replace("# ", "### ", 1) for part in found]
    section = "\n\n".join([f"## Measured on {'; '.join(sorted(machines))}", *parts])
    write_atomically(page, f"{text.partition(MARK)[0]}{MARK}\n\n{section}\n")
    return Report("Merged", "", verdict=[f"{page} has {', '.join(found)}."])
