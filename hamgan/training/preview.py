"""Draw sheets of fixed latents and evaluate a run, without changing its state."""

from typing import TYPE_CHECKING

import torch

from hamgan.checkpoint import Progress, generator_from_state
from hamgan.config import Config
from hamgan.data import ImageSource
from hamgan.files import JsonObject
from hamgan.networks.batch_norm import batch_norm_statistics
from hamgan.networks.inference import fold_spectral_norm
from hamgan.sampling import LoadedGenerator
from hamgan.sampling.sheets import draw_sheet
from hamgan.training.step import GanStep

if TYPE_CHECKING:
    from PIL import Image

    from hamgan.evaluation import FeatureExtractor


class Preview:
    """Sample from the current generator of a run."""

    def __init__(self, config: Config, source: ImageSource, step: GanStep, progress: Progress) -> None:
        self.config, self.source, self.step, self.progress = config, source, step, progress
        self._extractors = self._load_extractors()

    def _load_extractors(self) -> "list[FeatureExtractor]":
        """Load extractors before the first step, so that missing weights or references end the run at once."""
        if self.config.eval.every_kimg <= 0:
            return []
        # Imported here: training does not need torch-fidelity.
        from hamgan.evaluation import check_reference, load_extractor, make_protocol

        settings = self.config.eval
        check_reference(settings.reference or self.config.data.source, settings.metrics, self.config.resolution)
        parts = make_protocol(metrics=settings.metrics, features=settings.features).by_extractor()
        return [load_extractor(part.features, device=self.step.accelerator.device) for part in parts]

    def generator(self, running: bool = False) -> LoadedGenerator:
        """Return a folded copy of the network to sample from, with its class names.

        ``running`` uses the batch-norm statistics of G itself, even if there is an average of G.
        """
        state = self.step.sampler.state_dict()
        if running:
            state |= batch_norm_statistics(self.step.generator.state_dict())
        network = generator_from_state(self.config, state, self.config.folder)
        return LoadedGenerator(
            fold_spectral_norm(network.to(self.step.accelerator.device)),
            self.config,
            class_names=self.source.class_names,
            kimg=self.progress.images / 1000,
            source=str(self.config.folder),
            batch_norm="running" if running else None,
        )

    def draw_sheet(self) -> "tuple[Image.Image, float]":
        """Return the sample sheet and its diversity.

        The diversity is how much images of a class differ: the standard deviation of a pixel, in units of its range.
        """
        log, generator = self.config.log, self.generator()
        classes = range(min(log.sample_classes, generator.num_classes))
        # The same seeds in every row and every sheet: only the class and the weights change.
        seeds = range(log.samples_per_class)
        rows = [generator(seeds, [label], output="tensor") for label in classes]
        spreads = torch.stack([row.float().std(dim=0, correction=0).mean() for row in rows])
        titles, columns = [self.source.class_names[label] for label in classes], [f"seed {seed}" for seed in seeds]
        return draw_sheet(rows, titles, columns=columns), float(spreads.mean()) / 255

    def evaluate(self) -> JsonObject:
        """Evaluate on all processes; returns the row with its protocol."""
        from hamgan.evaluation import evaluate

        settings = self.config.eval
        return evaluate(
            self.generator(running=settings.batch_norm == "running"),
            settings.reference or self.config.data.source,
            settings.metrics,
            settings.features,
            num_samples=settings.num_samples,
            reference_samples=settings.reference_samples,
            batch_size=settings.batch_size,
            batch_norm=settings.batch_norm,
            extractor=self._extractors,
            progress=False,
        )


def evaluation_metrics(row: JsonObject, seconds: float, progress: Progress) -> dict[str, float]:
    """Return the numbers of an evaluation for a row of metrics.jsonl, with its duration and share of the time."""
    others = ("kimg", "truncation", "seconds", "images_per_second")
    kept = {name: value for name, value in row.items() if isinstance(value, float) and name not in others}
    return kept | {"evaluation_seconds": seconds, "evaluation_share": progress.evaluation_share}
