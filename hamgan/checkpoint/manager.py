"""Write a run's state to disk in the background, and report failures to all processes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import torch
from torch import Tensor

from hamgan.checkpoint.evaluations import evaluations_of_run
from hamgan.checkpoint.generator import load_generator_file, save_generator
from hamgan.checkpoint.power_averages import is_due, keep_averages
from hamgan.checkpoint.progress import Progress
from hamgan.checkpoint.rotation import rotate
from hamgan.checkpoint.state import Snapshot, TrainingState, take_snapshot
from hamgan.config import Config, RunConfig
from hamgan.distributed.group import from_main
from hamgan.errors import CheckpointError, Collapse
from hamgan.networks import Generator


class RunCheckpoints(ABC):
    """Write the checkpoints of a run and a file of its weights; all processes call every method.

    The main process writes in a background thread, so training waits only for a copy in memory. ``warn`` is called with
    the message of a failure after which the run goes on, ``written`` with the images seen by a new file of weights.
    """

    def __init__(
        self,
        config: RunConfig,
        step: TrainingState,
        progress: Progress,
        warn: Callable[[str], None],
        written: Callable[[int], None] = lambda images: None,
    ) -> None:
        self.step, self.progress, self.warn, self.written = step, progress, warn, written
        self._folder, self._settings, self._images_per_step = config.folder, config.checkpoint, config.images_per_step
        self._saved: tuple[int, int] | None = None
        """Stream and images of the last checkpoint."""
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None

    @abstractmethod
    def write_weights(self, weights: Mapping[str, Tensor], images: int) -> None:
        """Write the final file of weights, after ``images`` images."""

    @abstractmethod
    def weights_kimg(self) -> float | None:
        """Return the position of the file of weights in kimg, None if there is none; CheckpointError if unreadable."""

    def save(self) -> None:
        """Start to write a checkpoint, unless this step has been saved already; waits for the previous one.

        Raises Collapse for weights that are not finite, which must never be saved.
        """
        position = self.progress.stream, self.progress.images
        if self._saved == position:
            return
        self._saved = position
        for name, network in self.step.networks.items():
            if not torch.stack(torch._foreach_norm(list(network.parameters()))).isfinite().all():
                raise Collapse(f"weights of the {name} are not finite")
        self.step.share_sums()
        self.wait_until_written(strict=False)
        self._saved = position  # a failure of the previous one has reset it
        if self.step.accelerator.is_main_process:
            self._writing = self._thread.submit(self._write, take_snapshot(self.step, self.progress))

    def _write(self, snapshot: Snapshot) -> None:
        checkpoints, progress = self._folder / "checkpoints", Progress(**snapshot.state["progress"])
        snapshot.write(checkpoints)
        try:
            rotate(checkpoints, self._settings, progress.ranking, self._images_per_step, newest=snapshot.name)
        except OSError as error:
            raise CheckpointError(f"could not delete old checkpoints: {error}") from error
        self.write_weights(snapshot.weights(), progress.images)
        self.written(progress.images)

    @property
    def failed(self) -> bool:
        """Return whether writing the last checkpoint has failed, without waiting."""
        return self._writing is not None and self._writing.done() and self._writing.exception() is not None

    def wait_until_written(self, strict: bool) -> None:
        """Wait until the last checkpoint is on disk.

        If it could not be written, all processes raise CheckpointError; they only warn if ``strict`` is false and
        ``checkpoint.on_full_disk`` is continue.
        """
        problem = None
        writing, self._writing = self._writing, None
        try:
            if writing is not None:
                writing.result()
        except CheckpointError as error:
            problem = str(error)
        problem = from_main(problem)
        if problem:
            self._saved = None  # the end of a run at this position has to try again
        if problem and (strict or self._settings.on_full_disk == "stop"):
            raise CheckpointError(problem)
        if problem:
            self.warn(f"warning: {problem}; the run goes on and tries again at the next checkpoint")

    def renew_weights(self) -> None:
        """Write the file of weights again if it does not belong to the current position.

        That happens if the run was killed after a checkpoint and before this file, and after a rollback.
        """
        try:
            kimg = self.weights_kimg()
        except CheckpointError:
            kimg = None
        if kimg != self.progress.images / 1000:
            self.write_weights(self.step.sampler.state_dict(), self.progress.images)

    def close(self) -> None:
        """Stop the writing thread after its current work."""
        self._thread.shutdown()


class GanState(TrainingState, Protocol):
    """Describe a GAN in training."""

    @property
    def sampler(self) -> Generator:
        """Return the generator to write: its average, if one is kept."""


class CheckpointManager(RunCheckpoints):
    """Write the checkpoints of a GAN's run and its generator.safetensors."""

    step: GanState

    def __init__(
        self,
        config: Config,
        class_names: list[str],
        step: GanState,
        progress: Progress,
        warn: Callable[[str], None],
        written: Callable[[int], None] = lambda images: None,
    ) -> None:
        super().__init__(config, step, progress, warn, written)
        self.config, self.class_names = config, class_names
        self._path = config.folder / "generator.safetensors"

    def _write(self, snapshot: Snapshot) -> None:
        super()._write(snapshot)
        train, settings = self.config.train, self.config.checkpoint
        folder, images = self.config.folder / "averages", Progress(**snapshot.state["progress"]).images
        interval = round(1000 * (settings.averages_every_kimg or train.total_kimg / 64))
        # The default of `hamgan average`.
        ended = images >= round(1000 * train.total_kimg)
        if train.power_averages and (ended or is_due(folder, images, max(1, interval))):
            keep_averages(folder, snapshot.tensors, train.power_averages, images)

    def write_weights(self, weights: Mapping[str, Tensor], images: int) -> None:
        """Write generator.safetensors, with its evaluations."""
        kimg = images / 1000
        extra = {"evaluations": evaluations_of_run(self.config, kimg)}
        save_generator(self._path, weights, self.config, class_names=self.class_names, kimg=kimg, extra=extra)

    def weights_kimg(self) -> float | None:
        """Return the position of generator.safetensors in kimg, None if there is none."""
        return load_generator_file(self._path)[2].get("kimg")
