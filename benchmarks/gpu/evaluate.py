"""Measure what TF32 does to an evaluation: the difference of the FID, and the speed."""

import argparse
from functools import partial
from typing import Any

from benchmarks.gpu import Clock
from benchmarks.gpu.train import NAME
from benchmarks.report import Report, Table
from hamgan.errors import ConfigError
from hamgan.evaluation import evaluate

FEATURES, WARM_UP = "efficientnet-lite0", 256


def run(options: argparse.Namespace, clock: Clock) -> Report:
    """Evaluate the generator of ``train`` with TF32 off and on, on the same seeds; a short one before loads kernels."""
    folder = options.output / NAME
    if not (folder / "generator.safetensors").is_file():
        raise ConfigError(f"there is no generator in {folder}: run `python -m benchmarks gpu train` first")
    report = Report("Evaluation", f"{options.samples:,} samples and reference images, the run of `train`.")
    measure = partial(evaluate, folder, "photos", ("fid",), FEATURES, device=options.device, progress=False)
    short = min(WARM_UP, options.samples)
    measure(num_samples=short, reference_samples=short)
    rows: dict[bool, dict[str, Any]] = {}
    for tf32 in (False, True):
        if clock.allows(report, f"TF32 {'on' if tf32 else 'off'}"):
            rows[tf32] = measure(tf32=tf32, num_samples=options.samples, reference_samples=options.samples)
    fids = {tf32: next(v for key, v in row.items() if key.startswith("fid")) for tf32, row in rows.items()}
    table = [[tf32, row["feature_precision"], fids[tf32], row["images_per_second"]] for tf32, row in rows.items()]
    report.tables.append(Table(["TF32", "precision", "FID", "images/s"], table))
    if len(fids) == 2:
        ratio = rows[True]["images_per_second"] / rows[False]["images_per_second"]
        difference = fids[True] - fids[False]
        report.verdict.append(f"TF32 moves the FID by {difference:+.2g}, at {ratio:.2f} times the speed.")
    report.verdict += [row["protocol"] for row in rows.values()]
    report.figures |= {"tf32 on" if tf32 else "tf32 off": row for tf32, row in rows.items()}
    return report
