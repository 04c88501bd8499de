"""Run the demo: train on photographs in the package, compare with the untrained generator, and draw a sheet."""

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hamgan.checkpoint import record_evaluations
from hamgan.config import Config
from hamgan.data import ImageSource, open_source
from hamgan.evaluation import FeatureExtractor, evaluate, load_extractor
from hamgan.evaluation.report import append_row
from hamgan.files import JsonObject
from hamgan.networks import build_networks
from hamgan.progress import duration
from hamgan.sampling import LoadedGenerator, load_generator
from hamgan.sampling.sheets import draw_sheet
from hamgan.training.loop import train

REAL_COLUMNS, GENERATED_COLUMNS = 6, 10
SHOWN = ("fid", "class_accuracy", "per_class")
"""Metrics in the summary."""


@dataclass
class Figures:
    """Hold what the demo measured."""

    fid: float
    fid_untrained: float
    class_accuracy: float
    class_accuracy_real: float
    diversity: list[str]
    """Least diverse classes, each with its diversity."""
    classes: int


def demo(config: Config) -> Figures:
    """Train, evaluate on held-out images, draw ``demo.png`` in the run folder and print a summary."""
    start = time.perf_counter()
    train(config)
    trained = time.perf_counter()
    print(f"\nEvaluating {config.eval.num_samples:,} generated images against held-out photographs ...", flush=True)
    generator = load_generator(config.folder)
    figures = _measure(generator, config)
    evaluated = time.perf_counter()
    sheet_path = config.folder / "demo.png"
    sheet(generator, open_source(config.data.source, "val", config.resolution)).save(sheet_path)
    print(_summary(figures, config, trained - start, evaluated - trained, sheet_path))
    return figures


def untrained(config: Config, classes: int, class_names: list[str] | None) -> LoadedGenerator:
    """Return the generator before the first step, whose initial weights are a function of the seed."""
    config = replace(config, data=replace(config.data, num_classes=classes))
    network = build_networks(config)[0].eval().requires_grad_(False)
    return LoadedGenerator(network, config, class_names=class_names, kimg=0.0, source="untrained")


def _measure(generator: LoadedGenerator, config: Config) -> Figures:
    extractor = load_extractor(config.eval.features)
    trained = _evaluate(generator, config, extractor, list(dict.fromkeys([*config.eval.metrics, *SHOWN])))
    append_row(trained, config.folder / "results.jsonl")
    record_evaluations(config)
    before = untrained(config, generator.num_classes, generator.class_names)
    fid = extractor.key("fid")
    return Figures(
        fid=trained[fid],
        fid_untrained=_evaluate(before, config, extractor, ["fid"])[fid],
        class_accuracy=trained[extractor.key("class_accuracy")],
        class_accuracy_real=trained[extractor.key("class_accuracy_real")],
        diversity=trained[extractor.key("least_diverse_classes")],
        classes=generator.num_classes,
    )


def _evaluate(samples: LoadedGenerator, config: Config, extractor: FeatureExtractor, metrics: list[str]) -> JsonObject:
    return evaluate(
        samples,
        config.data.source,
        metrics,
        config.eval.features,
        num_samples=config.eval.num_samples,
        reference_samples=config.eval.reference_samples,
        batch_size=config.eval.batch_size,
        extractor=extractor,
        progress=sys.stderr.isatty(),
    )


def sheet(generator: LoadedGenerator, source: ImageSource) -> Image.Image:
    """Draw a labelled sheet, a row per class: held-out real images on the left, generated ones on the right."""
    rows = []
    for label in range(generator.num_classes):
        indices = np.flatnonzero(source.labels == label)[:REAL_COLUMNS]
        real = torch.from_numpy(source.read(indices)).permute(0, 3, 1, 2)
        generated: Tensor = generator(range(GENERATED_COLUMNS), [label], output="tensor")
        rows.append(torch.cat([real, generated]))
    groups = [("real (held out)", REAL_COLUMNS), ("generated", GENERATED_COLUMNS)]
    return draw_sheet(rows, source.class_names, groups=groups)


def _summary(figures: Figures, config: Config, training: float, evaluation: float, sheet_path: Path) -> str:
    ratio = figures.fid / figures.fid_untrained
    features, count = config.eval.features, config.eval.num_samples
    return f"""
training {duration(training)}, evaluation {duration(evaluation)}

FID ({features} features, {count:,} samples, held-out photographs; not comparable with Inception FIDs)
  untrained generator  {figures.fid_untrained:9.2f}
  trained generator    {figures.fid:9.2f}   ({ratio:.2f} of the untrained)
class recognised by a nearest-class-mean classifier on the same features, fitted on training photographs
  held-out photographs {figures.class_accuracy_real:8.1%}
  generated images     {figures.class_accuracy:8.1%}   (chance {1 / figures.classes:.1%})
diversity within a class, of that of real images, on the same features
  least diverse classes  {", ".join(figures.diversity[:3])}

Look at
  {sheet_path}   real and generated images of every class
  {config.folder / "samples"}/   the sheets drawn during training
Go on with
  .venv/bin/hamgan sample --checkpoint {config.folder} --classes 0-3 --seeds 0-15 --output grid.png
  .venv/bin/hamgan report {config.folder} --preset configs/fashion.yaml     # one page about the run
  .venv/bin/pip install -q -r requirements-sharing.txt \\
    && .venv/bin/hamgan app --checkpoint {config.folder}     # a page to play with the generator
"""
