"""Define the interface that the configurations of all kinds of runs share, for the training loop around their steps."""

from pathlib import Path
from typing import Any, Literal, Protocol

from hamgan.config.schema import CheckpointConfig


class TrainSettings(Protocol):
    """Say how long a run is."""

    @property
    def total_kimg(self) -> float:
        """Return its length, in thousands of images."""


class LogSettings(Protocol):
    """Say what is written while training."""

    @property
    def every_kimg(self) -> float:
        """Return the interval of rows."""

    @property
    def samples_every_kimg(self) -> float:
        """Return the interval of sheets."""

    @property
    def tracker(self) -> Literal["none", "wandb", "tensorboard"]:
        """Return the tracker that gets rows and sheets."""

    @property
    def project(self) -> str | None:
        """Return the project at the tracker."""

    @property
    def artifact(self) -> bool:
        """Return whether the best weights are uploaded."""


class MonitorSettings(Protocol):
    """Say when a run has diverged, and what is done then."""

    @property
    def action(self) -> Literal["rollback", "stop", "warn"]:
        """Return the reaction to an alarm."""

    @property
    def max_rollbacks(self) -> int:
        """Return how many rollbacks are allowed."""

    @property
    def lr_factor(self) -> float:
        """Return the factor on learning rates at each rollback."""

    @property
    def patience(self) -> int:
        """Return the number of consecutive rows that must exceed a threshold."""

    @property
    def window(self) -> int:
        """Return the number of rows whose median is the usual value."""

    @property
    def jump(self) -> float:
        """Return the threshold, in times the usual value."""


class EvaluationSettings(Protocol):
    """Say when a run is evaluated."""

    @property
    def every_kimg(self) -> float:
        """Return the interval."""


class RunConfig(Protocol):
    """Describe the configuration of any kind of run, such as `hamgan.config.Config` of a GAN."""

    name: str
    seed: int
    run_dir: str | None
    checkpoint: CheckpointConfig

    @property
    def folder(self) -> Path:
        """Return the run folder."""

    @property
    def images_per_step(self) -> int:
        """Return the images seen per step, after each of which a checkpoint can be saved."""

    @property
    def train(self) -> TrainSettings:
        """Return the length."""

    @property
    def log(self) -> LogSettings:
        """Return what is written."""

    @property
    def monitor(self) -> MonitorSettings:
        """Return what is watched."""

    @property
    def eval(self) -> EvaluationSettings:
        """Return when it is evaluated."""

    @property
    def __dataclass_fields__(self) -> dict[str, Any]:
        """Return the fields, as every dataclass has them."""
