"""Write a run to TensorBoard."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hamgan.config import EvalConfig, RunConfig, flat_config
from hamgan.tracking.panels import panel_of

SECONDS_TO_FLUSH = 15


class TensorBoardWriter:
    """Write event files to a folder of the run, with the images seen as the step.

    A run that is resumed or rolled back writes a new file, which replaces the steps that are made again.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config, self.folder = config, config.folder / (config.log.project or "hamgan")

    @property
    def known(self) -> bool:
        """Return whether the run has been written before."""
        return any(self.folder.glob("events.out.tfevents.*"))

    def start(self, first: int) -> int:
        """Open a file, with the configuration as hyper-parameters; returns the first step to write."""
        from torch.utils.tensorboard.summary import hparams

        self._open(first if self.known else None)
        plain = {
            key: value if isinstance(value, (bool, int, float, str)) else json.dumps(value)
            for key, value in flat_config(self.config).items()
        }
        for summary in hparams(plain, {f"{panel_of(name)}/{name}": 0.0 for name in self._compared()}):
            self._writer._get_file_writer().add_summary(summary)
        return first

    def _compared(self) -> list[str]:
        """Return the names of the numbers in TensorBoard's comparison of runs."""
        settings = self.config.eval
        if not isinstance(settings, EvalConfig):
            return ["loss"] + ["miou"] * (settings.every_kimg > 0)
        suffix = "" if settings.features == "inception" else f"_{settings.features.replace('-', '_')}"
        measured = settings.every_kimg > 0 and "fid" in settings.metrics
        return ["d_loss", "g_loss"] + [f"fid{suffix}"] * measured

    def _open(self, purge_step: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self.folder), purge_step=purge_step, flush_secs=SECONDS_TO_FLUSH)

    def row(self, numbers: Mapping[str, float], images: int, made: int) -> None:
        """Write numbers by their panels."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, images)

    def sheet(self, sheet: Image.Image, images: int, made: int) -> None:
        """Write a sample sheet."""
        self._writer.add_image("samples", np.asarray(sheet), images, dataformats="HWC")

    def evaluations(self, summary: Mapping[str, Mapping[str, Any]]) -> None:
        """Write evaluations with their protocol, such as the last and the best one, as text."""
        for name, row in summary.items():
            text = "".join(f"    {key}: {json.dumps(value)}\n" for key, value in row.items())
            self._writer.add_text(f"evaluation/{name}", text, round(1000 * (row.get("kimg") or 0)))

    def weights(self, file: Path, images: int) -> None:
        """Do nothing: TensorBoard keeps no files."""

    def roll_back(self, images: int) -> None:
        """Hide the steps after the position to which the run was rolled back."""
        self._writer.close()
        self._open(images + 1)

    def finish(self) -> None:
        """Write pending events and close the file."""
        self._writer.close()
