"""Train small segmenters on mosaics, in this process or in two that a launcher starts."""

import sys
from pathlib import Path

from support.small_runs import forget_accelerator

from hamgan.segmentation.config import load_config
from hamgan.segmentation.schema import SegmentationConfig
from hamgan.segmentation.training import SegmentationTraining

VALUES = [
    "encoder.channels=[8,16,24,32]",
    "encoder.strides=[4,2,2,2]",
    "encoder.depths=[1,1,1,1]",
    "encoder.drop_path=0.2",
    "head.channels=32",
    "head.ham_channels=32",
    "head.groups=8",
    "head.hamburger.rank=8",
    "head.hamburger.steps=2",
    "augment.crop=64",
    "augment.max_class_share=0.9",
    "train.total_kimg=0.024",
    "train.batch_size=4",
    "train.warmup_kimg=0.004",
    "log.every_kimg=0.004",
    "log.samples_every_kimg=0",
    "checkpoint.every_kimg=0.008",
    "eval.every_kimg=0",
    "eval.images=6",
    "data.threads=1",
]


def small_config(folder: Path, *overrides: str) -> SegmentationConfig:
    """Return a configuration of six steps with its run folder inside ``folder``."""
    return load_config("mosaic", [*VALUES, f"run_dir={folder / 'run'}", *overrides])


def run_small(folder: Path, *overrides: str) -> Path:
    """Train in this process to the end; return the run folder."""
    forget_accelerator()
    try:
        SegmentationTraining(small_config(folder, *overrides)).run()
    finally:
        forget_accelerator()
    return folder / "run"


# Gradients of weights in front of a norm are rounding noise, which Adam would scale up to whole steps.
CASES = {
    "sgd": ["train.optimizer=sgd", "train.lr=0.01", "eval.every_kimg=0.012", "train.ema_decay=0.5"],
    "accumulation": [
        "train.optimizer=sgd",
        "train.lr=0.01",
        "train.accumulation=2",
        "train.loss_average=valid",
        "auxiliary.weight=0.4",
        "auxiliary.channels=8",
    ],
}

if __name__ == "__main__":
    for case, changes in CASES.items():
        SegmentationTraining(small_config(Path(sys.argv[1]) / case, *changes)).run()
