"""Look at a run from outside: sheets of fixed latents, and evaluations by all processes together."""

from typing import TYPE_CHECKING

import torch

from hamgan.checkpoint import Evaluation, Progress, generator_from_state
from hamgan.config import Config
from hamgan.data import ImageSource
from hamgan.networks.batch_norm import batch_norm_statistics
from hamgan.networks.inference import fold_spectral_norm
from hamgan.sampling import LoadedGenerator
from hamgan.sampling.sheets import draw_sheet
from hamgan.training.step import GanStep

if TYPE_CHECKING:
    from PIL import Image

    from hamgan.evaluation import FeatureExtractor


class Preview:
    """Sample from a run's generator as it stands."""

    def __init__(self, config: Config, source: ImageSource, step: GanStep, progress: Progress) -> None:
        self.config, self.source, self.step, self.progress = config, source, step, progress
        self._extractors = self._load_extractors()

    def _load_extractors(self) -> "list[FeatureExtractor]":
        """Load before the first step: missing weights or reference images should end a run now, not hours later."""
        if self.config.eval.every_kimg <= 0:
            return []
        # torch-fidelity is not needed to train.
        from hamgan.evaluation import check_reference, load_extractor, make_protocol

        settings = self.config.eval
        check_reference(settings.reference or self.config.data.source, settings.metrics, self.config.resolution)
        parts = make_protocol(metrics=settings.metrics, features=settings.features).by_extractor()
        return [load_extractor(part.features, device=self.step.accelerator.device) for part in parts]

    def generator(self, running: bool = False) -> LoadedGenerator:
        """Return a folded copy of the network to sample from, with its class names.

        ``running`` takes the batch-norm statistics of G itself, also where an average of G is kept.
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
        """Draw the sample sheet; return it with its diversity.

        That is how much images of a class differ: the standard deviation of a pixel, 1 for its whole range.
        """
        log, generator = self.config.log, self.generator()
        classes = range(min(log.sample_classes, generator.num_classes))
        # The same seeds in every row and at every time: only the class and the weights change.
        seeds = range(log.samples_per_class)
        rows = [generator(seeds, [label], output="tensor") for label in classes]
        spreads = torch.stack([row.float().std(dim=0, correction=0).mean() for row in rows])
        titles, columns = [self.source.class_names[label] for label in classes], [f"seed {seed}" for seed in seeds]
        return draw_sheet(rows, titles, columns=columns), float(spreads.mean()) / 255

    def evaluate(self) -> Evaluation:
        """Measure FID and the like on all processes; return a row with its protocol."""
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


def evaluation_metrics(row: Evaluation, seconds: float, progress: Progress) -> dict[str, float]:
    """Return the numbers of an evaluation for a row of metrics.jsonl, with what it cost."""
    others = ("kimg", "truncation", "seconds", "images_per_second")
    kept = {name: value for name, value in row.items() if isinstance(value, float) and name not in others}
    return kept | {"evaluation_seconds": seconds, "evaluation_share": progress.evaluation_share}
