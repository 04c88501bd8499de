"""Run the cases of tests/distributed/test_two_processes.py one after the other, so that one start serves all."""

import signal
import sys
from pathlib import Path

from support.small_runs import small_config

from hamgan.errors import Stopped
from hamgan.training.loop import Training

# Far above the rounding noise of gradients (1e-7 of 80 in this network): see tests/distributed/test_two_processes.py.
CALM = "train.adam_eps=1e-3"
CASES = {
    "default": [],
    "accumulation": [CALM, "train.accumulation=2", "train.discriminator_steps=2", "train.total_kimg=0.08"],
    "augmentation": [CALM, "train.augment=[color,translation,cutout]", "data.flip=true", "train.lecam=0.1"],
    "mode seeking": [CALM, "train.mode_seeking=0.1"],
    "consistency": [CALM, *(f"train.consistency.{term}" for term in ("real=1", "fake=1", "latent=1", "spread=0.5"))],
    "SAN, top-k": [CALM, "discriminator.last_layer=san", "train.top_k=0.5"],
    "relativistic": [CALM, "train.loss=relativistic", "train.r1_gamma=0.1", "train.r2_gamma=0.1"],
    "finite differences": [
        *[CALM, "train.loss=relativistic", "train.r1_gamma=0.03", "train.r2_gamma=0.03", "train.augment=[color]"],
        *["train.finite_differences.enabled=true", "train.finite_differences.stride=2"],
        "train.finite_differences.sigma=0.1",  # a smaller one magnifies rounding
    ],
}


def stop_and_resume(folder: Path) -> None:
    """Train with a signal that reaches one process only, then resume the same run."""
    config = small_config(folder)
    training = Training(config)
    rank = training.accelerator.process_index
    if rank == 1:
        training.signals.ask(signal.SIGTERM)
    try:
        training.run()
    except Stopped:
        (folder / f"stopped{rank}.txt").write_text(str(training.progress.images))
    Training(config).run()


def main(folder: Path) -> None:
    for name, overrides in CASES.items():
        Training(small_config(folder / name, *overrides)).run()
    stop_and_resume(folder / "resumed")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
