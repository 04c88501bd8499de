"""When a run's state goes to disk, and what all its processes do when the disk does not take it."""

from collections.abc import Callable
from pathlib import Path

import torch

from hamgan.checkpoint.evaluations import evaluations_of_run
from hamgan.checkpoint.generator import load_generator_file, save_generator
from hamgan.checkpoint.progress import Progress
from hamgan.checkpoint.state import TrainingState, take_snapshot
from hamgan.checkpoint.writer import CheckpointWriter
from hamgan.config import Config
from hamgan.distributed.group import from_main
from hamgan.errors import CheckpointError, Collapse


class Saving:
    """Checkpoints of a run, written in the background by the main process; all processes call every method.

    ``say`` takes the sentence of a failure after which the run goes on.
    """

    def __init__(self, config: Config, class_names: list[str], step: TrainingState, say: Callable[[str], None]) -> None:
        self.config, self.class_names, self.step, self.say = config, class_names, step, say
        self.images = -1
        """Where the last checkpoint stands."""
        images_per_step = config.train.batch_size * config.train.discriminator_steps
        self._writer = CheckpointWriter(config.folder, config, class_names, images_per_step)

    def save(self, progress: Progress) -> None:
        """Have the main process write a checkpoint; what was saved after this step already is not written again.

        Raises Collapse for weights that are not finite: they must never be resumed from.
        """
        if self.images == progress.images:
            return
        self.images = progress.images
        for name, network in self.step.networks.items():
            if not torch.stack(torch._foreach_norm(list(network.parameters()))).isfinite().all():
                raise Collapse(f"weights of the {name} are not finite")
        self.step.share_sums()
        self.settle(strict=False)
        if self.step.accelerator.is_main_process:
            self._writer.submit(take_snapshot(self.step, progress))

    def settle(self, strict: bool) -> None:
        """Wait until the last checkpoint is on disk; all processes hear of it if the main one could not write it."""
        problem = None
        try:
            self._writer.wait()
        except CheckpointError as error:
            problem = str(error)
        problem = from_main(problem)
        if problem and (strict or self.config.checkpoint.on_full_disk == "stop"):
            raise CheckpointError(problem)
        if problem:
            self.say(f"warning: {problem}; the run goes on and tries again at the next checkpoint")

    def renew_generator(self, progress: Progress) -> None:
        """Write generator.safetensors where it is not of the weights that a run resumes from: a kill came between."""
        try:
            kimg = load_generator_file(self._generator_file)[2].get("kimg")
        except CheckpointError:
            kimg = None
        if kimg != progress.images / 1000:
            self.images = progress.images
            self.write_generator()

    @property
    def _generator_file(self) -> Path:
        return self.config.folder / "generator.safetensors"

    def write_generator(self) -> None:
        """Renew generator.safetensors from the weights as they are, after a return to an older checkpoint."""
        kimg = self.images / 1000
        save_generator(
            self._generator_file,
            self.step.sampler,
            self.config,
            class_names=self.class_names,
            kimg=kimg,
            extra={"evaluations": evaluations_of_run(self.config, kimg)},
        )

    @property
    def failed(self) -> bool:
        """Whether the last checkpoint has turned out not to be writable; never waits."""
        return self._writer.failed

    def close(self) -> None:
        """End the writing thread, after what it is writing."""
        self._writer.close()
