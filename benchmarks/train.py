"""Measure the training step in its forms, where its time goes, and how long a run takes on this machine."""

import argparse
from functools import partial
from typing import get_args

import torch

from benchmarks.profiling import normalised_layers, profile_kinds, run_unnormalised
from benchmarks.report import Report, Table, cost_table
from benchmarks.steps import Form, Workload, benchmark_accelerator, make_workload, read_config
from benchmarks.timing import Costs, Work, measure_costs, measure_matmul, time_in_turn
from hamgan.config import Config
from hamgan.errors import ConfigError

FORMS: tuple[Form, ...] = get_args(Form)
STEP, WITHOUT_NORM = "whole step", "whole step without spectral norm"


def run(options: argparse.Namespace) -> Report:
    """Measure every batch size; the first form is the one whose spectral norm is measured."""
    forms = check_forms(options.forms)
    config = read_config(options.config, options.set)
    accelerator = benchmark_accelerator(config, options.device)
    precision = {"no": "fp32"}.get(accelerator.mixed_precision, accelerator.mixed_precision)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    ceiling = measure_matmul(options.device, dtype)
    threads = "" if options.device.type != "cpu" else f", {torch.get_num_threads()} CPU thread(s)"
    report = Report(
        f"Training step of {config.name}",
        f"{config.resolution} px, widths {config.generator.channels} and {config.discriminator.channels}, {precision}"
        f"{threads}; medians of {options.rounds} rounds in turn. A large matrix product in {precision} reaches "
        f"{ceiling / 1e12:.3g} TFLOP/s in the same run.",
        figures={"matmul_flops_per_s": ceiling},
    )
    speeds: dict[tuple[int, str], float] = {}
    for batch in options.batches:
        works = {str(form): make_workload(config, form, batch, accelerator) for form in forms}
        costs = _measure_forms(report, works, batch, ceiling, options)
        speeds |= {(batch, form): batch / costs.timings.median(form) for form in works}
        if not options.no_profile:
            for form, work in works.items():
                _profile(report, form, work, batch, options.device)
            _measure_spectral_norm(report, next(iter(works.values())), batch, options)
    report.verdict.append(_length_of_run(config, speeds))
    return report


def check_forms(text: str) -> list[Form]:
    """Return the forms that ``--forms`` names; ConfigError for an unknown one."""
    names = dict.fromkeys(text.split(","))
    for name in names:
        if name not in FORMS:
            raise ConfigError(f"--forms has {name!r}; allowed: {', '.join(FORMS)}")
    return [form for name in names for form in FORMS if form == name]


def _measure_forms(
    report: Report, works: dict[str, Workload], batch: int, ceiling: float, options: argparse.Namespace
) -> Costs:
    """Measure time, memory and FLOPs of every form at one batch size."""
    # Compiled work is not seen operator by operator.
    costs = measure_costs(works, options.rounds, options.device, warmup=2, uncounted=["compiled"])
    timings, memory = costs.timings, costs.memory
    shares = {form: f"{flops / timings.median(form) / ceiling:.0%}" for form, flops in costs.flops.items()}
    title = f"Step at batch {batch}"
    report.tables.append(cost_table(title, costs, batch, "plain", {"of the matrix product's FLOP/s": shares}))
    report.figures[str(batch)] = costs.to_json()
    report.verdict += [
        f"Batch {batch}: the {form} form takes {timings.ratio(form, 'plain'):.2f} of the plain form's time and "
        f"{memory[form] / memory['plain']:.2f} of its memory."
        for form in works
        if form != "plain" and "plain" in works
    ]
    return costs


def _profile(report: Report, form: str, work: Work, batch: int, device: torch.device) -> None:
    """Measure time by kind of operator."""
    profile = profile_kinds(work, device)
    total = sum(profile.values())
    rows = [[kind, 1e3 * seconds, f"{seconds / total:.1%}"] for kind, seconds in profile.items()]
    title = f"Profile of the {form} form at batch {batch}"
    report.tables.append(Table(["kind of operator", "ms", "share"], rows, title))
    report.figures[str(batch)].setdefault("profile", {})[form] = profile


def _measure_spectral_norm(report: Report, workload: Workload, batch: int, options: argparse.Namespace) -> None:
    """Measure what spectral normalisation adds to a step."""
    layers = normalised_layers(workload)
    if layers:
        # A difference of a few percent: in three times the rounds, and on the same networks, for two copies of one
        # differ by half a percent of a step, by where their memory lies.
        pair: dict[str, Work] = {STEP: workload, WITHOUT_NORM: partial(run_unnormalised, workload, layers)}
        timings = time_in_turn(pair, 3 * options.rounds, warmup=2, device=options.device)
        report.figures[str(batch)]["spectral norm"] = timings.to_json()
        share = 1 - timings.ratio(WITHOUT_NORM, STEP)
        report.verdict.append(f"Batch {batch}: spectral normalisation is {share:.1%} of the step.")


def _length_of_run(config: Config, speeds: dict[tuple[int, str], float]) -> str:
    """Tell the hours to see ``total_kimg`` at the best speed measured."""
    (batch, form), speed = max(speeds.items(), key=lambda item: item[1])
    images = config.train.total_kimg * 1000
    return (
        f"At {speed:,.1f} images/s ({form}, batch {batch}), the {images:,.0f} images of {config.name} take "
        f"{images / speed / 3600:,.1f} h on this device, if data, sheets and evaluation cost nothing; N such devices "
        f"would take an Nth of it if they scaled perfectly."
    )
