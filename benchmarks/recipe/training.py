"""Train one run of a comparison in a process of its own, and measure what came out with two extractors."""

import json
import os
import signal
import subprocess
import sys
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.recipe.features import RandomFeatures
from benchmarks.recipe.plan import Plan, Run, config_of
from hamgan.config import Config, save_config
from hamgan.data import open_source
from hamgan.errors import DONE, STOPPED, Stopped
from hamgan.evaluation import FeatureExtractor, evaluate, load_extractor
from hamgan.evaluation.metrics.fid import frechet_distance
from hamgan.files import write_atomically
from hamgan.sampling import LoadedGenerator, load_generator

METRICS = ["fid", "class_accuracy", "per_class", "density_coverage"]


class Trainer:
    """Complete the runs of a plan."""

    def __init__(self, plan: Plan, device: torch.device) -> None:
        self.plan, self.device = plan, device

    def complete(self, run: Run) -> Run:
        """Train a run to its end and measure it, or read what an earlier call has measured; `Stopped` on a signal."""
        kept = run.folder / "measured.json"
        if kept.is_file():
            run.numbers = json.loads(kept.read_text())
            return run
        config = config_of(self.plan, run)
        run.failure = self._train(run, config)
        if not run.failure:
            run.numbers = self._measure(run, config)
            write_atomically(kept, json.dumps(run.numbers, indent=1) + "\n")
        return run

    def _train(self, run: Run, config: Config) -> str:
        """Train until the run is finished and return an empty string, or the last line of one that has failed."""
        file, log = (run.folder.parent / f"{run.folder.name}.{ending}" for ending in ("yaml", "log"))
        save_config(config, file)
        environment = os.environ | ({} if self.device.type == "cuda" else {"CUDA_VISIBLE_DEVICES": ""})
        with log.open("ab") as output:
            command = [sys.executable, "-m", "hamgan", "train", "--config", str(file)]
            code = _wait(subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT))
        if code == STOPPED:
            raise Stopped(f"{run.folder.name} has kept what it has trained; the same command goes on")
        lines = log.read_text(errors="replace").splitlines()
        return "" if code == DONE else (lines[-1] if lines else f"exit code {code}")

    def _measure(self, run: Run, config: Config) -> dict[str, float]:
        generator, settings = load_generator(run.folder, device=str(self.device)), config.eval
        row = evaluate(
            generator,
            config.data.source,
            METRICS,
            settings.features,
            num_samples=settings.num_samples,
            reference_samples=settings.reference_samples,
            batch_size=settings.batch_size,
            extractor=self._extractor,
            progress=False,
        )
        found = {name: row[self._extractor.key(name)] for name in ("fid", "class_accuracy", "coverage")}
        diversity = [one["diversity"] for one in _table(row) if one["diversity"] is not None]
        own = {"diversity": float(np.mean(diversity)), "least diversity": min(diversity)}
        return found | own | {"fid random": self._random_fid(generator, settings.num_samples)}

    @cached_property
    def _extractor(self) -> FeatureExtractor:
        return load_extractor(self.plan.config.eval.features, device=self.device)

    def _random_fid(self, generator: LoadedGenerator, count: int) -> float:
        """Measure the FID in features of random weights: as many images a side, the classes in turn."""
        labels = [index % generator.num_classes for index in range(count)]
        generated = generator(range(count), labels, output="tensor")
        return frechet_distance(*_moments(self._random(generated)), *self._random_reference)

    @cached_property
    def _random(self) -> RandomFeatures:
        return RandomFeatures()

    @cached_property
    def _random_reference(self) -> tuple[Tensor, Tensor]:
        config = self.plan.config
        source = open_source(config.data.source, "val", config.resolution)
        count = min(len(source), config.eval.reference_samples or len(source))
        # Spread over the source, which may hold one class after the other.
        images = source.read(np.linspace(0, len(source) - 1, count).astype(np.int64))
        return _moments(self._random(torch.from_numpy(images).permute(0, 3, 1, 2)))


def _wait(process: "subprocess.Popen[bytes]") -> int:
    """Wait for a training and return its exit code; whatever ends this process before, asks it to save and to stop.

    After SIGTERM the code is `STOPPED`, however the training has ended: it may have been about to begin.
    """
    asked = []

    def stop(*_: object) -> None:
        asked.append(True)
        process.send_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        code = process.wait()
        return STOPPED if asked else code
    except BaseException:
        process.terminate()
        process.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _table(row: dict[str, Any]) -> list[dict[str, Any]]:
    return next(value for key, value in row.items() if key.startswith("class_table"))


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    return features.double().mean(0), features.double().T.cov()
