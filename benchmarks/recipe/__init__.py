"""Compare recipes on real data: train variants at equal time or equal images, with several seeds, and measure them.

`plan` fixes what is compared and how long each trains, `training` trains and measures one run, `features` is the second
extractor, `result` makes the tables, the picture and the place in the docs. Everything lies in ``--output``: the same
command goes on where a stopped one was, and one with more variants or seeds trains those that are missing.
"""

import argparse

from benchmarks.recipe.plan import Run, make_plan
from benchmarks.recipe.result import report_on, save_picture, write_into_page
from benchmarks.recipe.training import Trainer
from benchmarks.report import Report


def run(options: argparse.Namespace) -> Report:
    """Train and measure what is missing, seed by seed; write tables and picture after every run."""
    options.output.mkdir(parents=True, exist_ok=True)
    plan = make_plan(options)
    trainer = Trainer(plan, options.device)
    done: list[Run] = []
    for seed in plan.seeds:
        for variant in plan.variants:
            found = trainer.complete(plan.run(variant, seed))
            print(f"{found.variant} seed {found.seed}: {found.summary()}", flush=True)
            done.append(found)
            report = report_on(plan, done)
            report.save(options.output / "recipe.json")
            (options.output / "recipe.md").write_text(report.markdown() + "\n")
            save_picture(plan, done, options.output / "recipe.png")
    if options.docs:
        write_into_page(report, options.docs, options.output.resolve().name)
    return report
