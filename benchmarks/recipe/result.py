"""Show a comparison: a table of medians and spreads, a picture of all variants side by side, a place in the docs."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.recipe.plan import Plan, Run
from benchmarks.report import Report, Table, replace_block, spread
from hamgan.data import open_source
from hamgan.errors import ConfigError
from hamgan.files import write_atomically
from hamgan.sampling import load_generator
from hamgan.sampling.sheets import draw_sheet

COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "fid": ("FID", lambda value: f"{value:.1f}"),
    "fid random": ("FID, random weights", lambda value: f"{value:.3g}"),
    "class_accuracy": ("class right", lambda value: f"{value:.1%}"),
    "least diversity": ("least diversity of a class", lambda value: f"{value:.2f}"),
    "coverage": ("coverage", lambda value: f"{value:.2f}"),
}
"""Numbers of a run that the table shows, with their headings and how they are written."""
REAL_COLUMNS, GENERATED_COLUMNS = 3, 6
SECTION = "## Measured"


def report_on(plan: Plan, runs: Sequence[Run]) -> Report:
    """Return the table over the runs that are finished, seed by seed compared with the first variant."""
    headers = ["variant", "seeds", "kimg", "time per image", *(title for title, _ in COLUMNS.values())]
    headers.append(f"FID by that of {plan.base}")
    rows = [_row(plan, runs, name) for name in plan.variants]
    return Report(
        f"Recipes on {plan.config.data.source}",
        _protocol(plan),
        [Table(headers, [row for row in rows if row])],
        [f"{run.variant}, seed {run.seed}, failed: {run.failure}" for run in runs if run.failure],
        {
            "costs": plan.costs,
            "clock": plan.clock,
            "runs": [vars(run) | {"folder": run.folder.name} for run in runs],
        },
    )


def _protocol(plan: Plan) -> str:
    config, length = plan.config, f"{plan.kimg:.3g} kimg of {plan.base}"
    equal = f"as much {plan.clock} time as {length}" if plan.equal == "time" else f"as many images: {length}"
    settings = config.eval
    sides = f"{settings.num_samples:,} samples against {settings.reference_samples or 'all'} held-out images"
    seeds = ", ".join(map(str, plan.seeds))
    return (
        f"Configuration `{config.name}`, {equal}; seeds {seeds}. FID, classes and coverage by {settings.features}, "
        f"{sides}. Median (lowest to highest) over the seeds; the last column compares seed by seed."
    )


def _row(plan: Plan, runs: Sequence[Run], name: str) -> list[object]:
    """Return the row of a variant; an empty one where nothing of it is measured."""
    own = [run for run in runs if run.variant == name]
    measured = [run.numbers for run in own if run.numbers is not None]
    if not measured:
        return []
    cells = [spread([numbers[key] for numbers in measured], write) for key, (_, write) in COLUMNS.items()]
    pairs = _ratios(plan, runs, name) if name != plan.base else []
    compared = spread(pairs, lambda value: f"{value:.2f}") if pairs else None
    return [name, len(measured), f"{own[0].kimg:.4g}", f"{plan.costs[name]:.2f}", *cells, compared]


def _ratios(plan: Plan, runs: Sequence[Run], name: str) -> list[float]:
    """Return the FID of a variant divided by that of the first one, for every seed that both have."""
    fids = {(run.variant, run.seed): run.numbers["fid"] for run in runs if run.numbers is not None}
    pairs = [(fids.get((name, seed)), fids.get((plan.base, seed))) for seed in plan.seeds]
    return [one / other for one, other in pairs if one is not None and other is not None]


def save_picture(plan: Plan, runs: Sequence[Run], file: Path) -> None:
    """Draw a row per class: real held-out images, then the same latents by every variant, of its first seed."""
    first = {run.variant: run for run in reversed(runs) if run.numbers is not None}
    if not first:
        return
    source = open_source(plan.config.data.source, "val", plan.config.resolution)
    generators = {name: load_generator(first[name].folder) for name in plan.variants if name in first}
    rows = []
    for label in range(len(source.class_names)):
        real = source.read(np.flatnonzero(source.labels == label)[:REAL_COLUMNS])
        drawn = [one(range(GENERATED_COLUMNS), [label], output="tensor") for one in generators.values()]
        rows.append(torch.cat([torch.from_numpy(real).permute(0, 3, 1, 2), *drawn]))
    groups = [("real", REAL_COLUMNS), *((name, GENERATED_COLUMNS) for name in generators)]
    draw_sheet(rows, source.class_names, groups=groups, scale=2 if plan.config.resolution < 64 else 1).save(file)


def write_into_page(report: Report, page: Path, name: str) -> None:
    """Put a report below ``## Measured`` of a page, in the place of an earlier one of the same name."""
    if not page.is_file() or f"\n{SECTION}\n" not in (text := page.read_text()):
        raise ConfigError(f"--docs {page} is no page with the heading {SECTION}")
    begin, end = f"<!-- measured: {name} -->", f"<!-- end of {name} -->"
    if begin not in text:
        before, heading, after = text.partition(f"\n{SECTION}\n")
        text = f"{before}{heading}\n{begin}\n{end}\n{after}"
    write_atomically(page, replace_block(text, begin, end, report.markdown().replace("# ", "### ", 1)))
