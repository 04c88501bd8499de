"""Measure a segmenter on a held-out split; every result has its protocol."""

from collections.abc import Iterator
from itertools import groupby

import numpy as np
import torch

from hamgan.distributed.group import Processes
from hamgan.files import JsonObject
from hamgan.hamburger.precision import using_tf32
from hamgan.progress import ProgressBar
from hamgan.segmentation.data.source import IGNORED, Sample, SegmentationSource
from hamgan.segmentation.inference import predict_labels
from hamgan.segmentation.metrics import ConfusionMatrix, Scores
from hamgan.segmentation.schema import EvalConfig
from hamgan.segmentation.segmenter import Segmenter


def evaluate(
    segmenter: Segmenter,
    source: SegmentationSource,
    settings: EvalConfig,
    *,
    kimg: float | None = None,
    progress: bool = False,
) -> JsonObject:
    """Measure mIoU, mAcc and aAcc in float32, over all processes, which must all call this.

    Every process takes a part of the images; counts are integers, so any division gives the same numbers. With several
    ``bases_seeds`` the scores are means, and the row has their spread too.
    """
    with using_tf32(False):
        scores = [count(segmenter, source, settings, seed, progress=progress).scores() for seed in settings.bases_seeds]
    numbers = _means(scores)
    table = Scores(np.sum([score.counts for score in scores], axis=0)).by_class(source.class_names)
    settled = _protocol(segmenter, source, settings)
    return {
        "kimg": kimg,
        **numbers,
        "class_table": table,
        "pixels": scores[0].pixels,
        **settled,
        "protocol": protocol_line(settled),
    }


def count(
    segmenter: Segmenter,
    source: SegmentationSource,
    settings: EvalConfig,
    bases_seed: int = 0,
    *,
    progress: bool = False,
) -> ConfusionMatrix:
    """Return the confusion matrix over the images of all processes."""
    processes = Processes.current()
    matrix = ConfusionMatrix(len(source.class_names), IGNORED)
    total = number_of_images(source, settings)
    bar = ProgressBar(len(processes.share(total)), "evaluate", disable=not (progress and processes.is_main))
    device = next(segmenter.parameters()).device
    was_training = segmenter.training
    segmenter.eval()
    for samples in _batches(source, processes.share(total), settings.batch_size):
        images = torch.from_numpy(np.stack([sample.image for sample in samples])).permute(0, 3, 1, 2)
        labels = torch.from_numpy(np.stack([sample.labels for sample in samples]))
        predictions = predict_labels(segmenter, images.to(device), settings, bases_seed)
        matrix.add(predictions, labels.to(device))
        bar.update(len(samples))
    bar.close()
    segmenter.train(was_training)
    matrix.sum_over(processes)
    return matrix


def number_of_images(source: SegmentationSource, settings: EvalConfig) -> int:
    """Return the number of images of a source to measure."""
    return len(source) if settings.images is None else min(settings.images, len(source))


def _batches(source: SegmentationSource, indices: range, batch_size: int) -> Iterator[list[Sample]]:
    """Yield lists of consecutive samples of equal size, of at most ``batch_size``."""
    samples = (source.read(index) for index in indices)
    for _, same in groupby(samples, key=lambda sample: sample.image.shape):
        found: list[Sample] = []
        for sample in same:
            found.append(sample)
            if len(found) == batch_size:
                yield found
                found = []
        if found:
            yield found


def _means(scores: list[Scores]) -> JsonObject:
    numbers = [score.numbers() for score in scores]
    found: JsonObject = {name: float(np.mean([row[name] for row in numbers])) for name in numbers[0]}
    if len(scores) > 1:
        found |= {f"{name}_spread": float(np.std([row[name] for row in numbers], ddof=1)) for name in numbers[0]}
        found["miou_by_seed"] = [row["miou"] for row in numbers]
    return found


def _protocol(segmenter: Segmenter, source: SegmentationSource, settings: EvalConfig) -> JsonObject:
    head = segmenter.config.head
    hamburger = head.hamburger if head.context == "hamburger" else None
    steps = None if hamburger is None else hamburger.eval_steps or hamburger.steps
    return {
        "data": source.describe(),
        "images": number_of_images(source, settings),
        "classes": len(source.class_names),
        "size": [settings.short_side, settings.long_side] if settings.short_side else None,
        "size_divisor": settings.size_divisor,
        "scales": list(settings.scales),
        "flip": settings.flip,
        "mode": settings.mode if settings.mode == "whole" else f"slide {settings.window}/{settings.stride}",
        "steps": steps,
        "bases_seeds": list(settings.bases_seeds) if hamburger is not None and hamburger.bases == "random" else None,
    }


def protocol_line(settled: JsonObject) -> str:
    """Return the protocol of a row in one line, which makes its numbers comparable."""
    data, size = settled["data"], settled["size"]
    scales = ", ".join(f"{scale:g}" for scale in settled["scales"])
    parts = [
        f"{settled['images']:,} images of {data['source']}/{data['split']}, {settled['classes']} classes",
        f"{size[0]} x {size[1]} px" if size else "own size",
        *([f"sides multiples of {settled['size_divisor']}"] if settled["size_divisor"] else []),
        f"scale {scales}" if len(settled["scales"]) == 1 else f"mean of scales {scales}",
        "mirrored too" if settled["flip"] else "not mirrored",
        settled["mode"],
        *([f"K {settled['steps']}"] if settled["steps"] else []),
        *([f"bases seed {', '.join(map(str, settled['bases_seeds']))}"] if settled["bases_seeds"] else []),
    ]
    return "; ".join(parts)


def scores(row: JsonObject) -> dict[str, str]:
    """Return the scores of an evaluation in percent by their names."""
    found = {}
    for key, name in {"miou": "mIoU", "macc": "mAcc", "aacc": "aAcc"}.items():
        spread = f" +- {100 * row[f'{key}_spread']:.2f}" if f"{key}_spread" in row else ""
        found[name] = f"{100 * row[key]:.2f}{spread}"
    return found


def describe_scores(row: JsonObject) -> str:
    """Return the scores of an evaluation in percent, on one line."""
    return "  ".join(f"{name} {score}" for name, score in scores(row).items())


def class_table(row: JsonObject) -> str:
    """Return the table of classes: IoU, accuracy and share of the labels in percent."""
    width = max(len("class"), *(len(entry["class"]) for entry in row["class_table"]))
    lines = [f"{'class':<{width}}     IoU     Acc   share"]
    for entry in row["class_table"]:
        cells = [
            f"{100 * entry[key]:7.2f}" if entry[key] is not None else "      -" for key in ("iou", "accuracy", "share")
        ]
        lines.append(f"{entry['class']:<{width}} {' '.join(cells)}")
    return "\n".join(lines)
