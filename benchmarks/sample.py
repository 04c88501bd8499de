"""Measure drawing images: the form that draws beside the forms that train, the whole command beside bare forwards."""

import argparse
import copy
import tempfile
from itertools import count
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.plain import plain_form
from benchmarks.report import Report, cost_table, time_table
from benchmarks.steps import read_config
from benchmarks.timing import Work, measure_costs, time_in_turn
from hamgan.networks import Generator, build_networks
from hamgan.networks.inference import InferenceGenerator, fold_spectral_norm
from hamgan.sampling import LoadedGenerator, plan_samples
from hamgan.sampling.plan import Plan, inputs
from hamgan.sampling.writing import BATCH_SIZE, Output, write_plan

PLAIN, TRAINED, DRAWING = "plain", "trained", "drawing"
BARE, WHOLE = "bare forward", "hamgan sample to PNGs"


def run(options: argparse.Namespace) -> Report:
    """Measure time, memory and differences of the forms, then the whole command."""
    config = read_config(options.config, options.set)
    network = build_networks(config)[0].to(options.device).eval().requires_grad_(False)
    forms = make_forms(network)
    generator = LoadedGenerator(fold_spectral_norm(network), config)
    report = Report(
        f"Drawing from {config.name}",
        f"{config.resolution} px, width {config.generator.channels}, float32, {torch.get_num_threads()} thread(s); "
        f"medians of {options.rounds} rounds in turn.",
    )
    _measure_forms(report, forms, generator, options)
    _measure_command(report, generator, options)
    return report


def make_forms(network: Generator) -> dict[str, nn.Module]:
    """Make the generator in every form; ``network``, in evaluation mode, stays as it is."""
    folded = fold_spectral_norm(copy.deepcopy(network))
    return {
        PLAIN: plain_form(network).eval(),
        TRAINED: copy.deepcopy(network),
        "folded": folded,
        DRAWING: InferenceGenerator(folded),
    }


def _draw_inputs(generator: LoadedGenerator, images: int, device: torch.device) -> tuple[Plan, Tensor, Tensor]:
    plan = plan_samples([0], range(images), [1.0], generator.titles)
    z, labels = inputs(plan.images, generator)
    return plan, z.to(device), labels.to(device)


def _measure_forms(
    report: Report, forms: dict[str, nn.Module], generator: LoadedGenerator, options: argparse.Namespace
) -> None:
    _, z, labels = _draw_inputs(generator, options.batch, options.device)

    def make_work(form: nn.Module) -> Work:
        return lambda: form(z, labels)

    with torch.no_grad():
        images: dict[str, Tensor] = {name: form(z, labels) for name, form in forms.items()}
        costs = measure_costs({name: make_work(form) for name, form in forms.items()}, options.rounds, options.device)
    differences = {name: float((image - images[PLAIN]).abs().max()) for name, image in images.items()}
    title = f"Forward of {options.batch} images, values from -1 to 1"
    report.tables.append(cost_table(title, costs, options.batch, PLAIN, {"largest difference": differences}))
    report.figures["forms"] = costs.to_json()
    report.verdict.append(
        f"The drawing form gives {costs.timings.ratio(PLAIN, DRAWING):.2f} times the images/s of the plain form, "
        f"{costs.timings.ratio(TRAINED, DRAWING):.2f} times those of the form that trains."
    )


def _measure_command(report: Report, generator: LoadedGenerator, options: argparse.Namespace) -> None:
    """Measure latents, forwards, conversion and PNG files beside nothing but the forwards of the same batches."""
    plan, z, labels = _draw_inputs(generator, options.images, options.device)

    def draw() -> None:
        for part in zip(z.split(BATCH_SIZE), labels.split(BATCH_SIZE), strict=True):
            generator.inference(*part)

    with tempfile.TemporaryDirectory() as folder:
        numbers = count()

        def draw_and_write() -> None:
            write_plan(generator, plan, Output(Path(folder) / str(next(numbers))))

        works = {BARE: draw, WHOLE: draw_and_write}
        timings = time_in_turn(works, options.rounds, device=options.device, clock="wall")
    title = f"{options.images} images in batches of {BATCH_SIZE}, wall time"
    report.tables.append(time_table(title, timings, BARE))
    report.figures["command"] = timings.to_json()
    report.verdict.append(
        f"The whole command reaches {timings.ratio(BARE, WHOLE):.0%} of the bare forward's throughput."
    )
