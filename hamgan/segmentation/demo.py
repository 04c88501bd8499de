"""Run the segmentation demo: train on land cover, and compare with a colour classifier and the labels on a grid."""

import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hamgan.config.ranges import require
from hamgan.files import JsonObject
from hamgan.progress import duration
from hamgan.segmentation.data.opening import HELD_OUT, open_source
from hamgan.segmentation.data.source import IGNORED, SegmentationSource
from hamgan.segmentation.drawing import colourise, draw_comparison
from hamgan.segmentation.evaluation import class_table, evaluate
from hamgan.segmentation.loading import LoadedSegmenter, load_segmenter
from hamgan.segmentation.metrics import ConfusionMatrix, Scores
from hamgan.segmentation.schema import SegmentationConfig
from hamgan.segmentation.training import train

ROWS = 8


def demo(config: SegmentationConfig) -> JsonObject:
    """Train, measure, draw ``demo.png`` in the run folder and print a summary; returns the evaluation.

    Raises ConfigError for other data than land cover.
    """
    require(
        config.data.source in ("land", "land17"),
        f"the demo is for land cover only; to train on {config.data.source} use hamgan segment train",
    )
    held_out = open_source(config.data, HELD_OUT)  # first, so that a missing package ends the demo at once
    started = time.perf_counter()
    train(config)
    trained = time.perf_counter()
    loaded = load_segmenter(config.folder)
    row = evaluate(loaded.network, held_out, loaded.config.eval, kimg=loaded.header.kimg)
    baseline = colour_classifier(open_source(config.data), held_out)
    ceiling = best_on_a_grid(held_out, 4)
    sheet = config.folder / "demo.png"
    draw(loaded, held_out).save(sheet)
    print(_summary(row, baseline, ceiling, trained - started, sheet, config))
    return row


def colour_classifier(training: SegmentationSource, held_out: SegmentationSource) -> Scores:
    """Return the scores of a quadratic discriminant on the colour of each pixel, a baseline without context.

    Every class is a normal distribution of colours, weighted by its share of the training pixels.
    """
    classes = len(training.class_names)
    parts = [training.read(index) for index in range(len(training))]
    pixels = np.concatenate([part.image.reshape(-1, 3) for part in parts]).astype(np.float64)
    labels = np.concatenate([part.labels.ravel() for part in parts])
    terms = []
    for number in range(classes):
        own = pixels[labels == number]
        covariance = np.cov(own.T) + np.eye(3)
        terms.append((own.mean(0), np.linalg.inv(covariance), 2 * np.log(len(own)) - np.linalg.slogdet(covariance)[1]))
    matrix = ConfusionMatrix(classes, IGNORED)
    for index in range(len(held_out)):
        image, truth = held_out.read(index)
        differences = [image.reshape(-1, 3) - mean for mean, _, _ in terms]
        scores = [
            constant - np.einsum("nc,cd,nd->n", difference, inverse, difference)
            for difference, (_, inverse, constant) in zip(differences, terms, strict=True)
        ]
        found = np.argmax(scores, axis=0).reshape(truth.shape)
        matrix.add(torch.from_numpy(found), torch.from_numpy(truth.copy()))
    return matrix.scores()


def best_on_a_grid(held_out: SegmentationSource, stride: int) -> Scores:
    """Return the best possible scores with one class per ``stride`` x ``stride`` pixels."""
    matrix = ConfusionMatrix(len(held_out.class_names), IGNORED)
    for index in range(len(held_out)):
        truth = torch.from_numpy(held_out.read(index).labels.copy())
        height, width = (side // stride * stride for side in truth.shape)
        truth = truth[:height, :width]
        cells = truth.unflatten(1, (-1, stride)).unflatten(0, (-1, stride))
        most = cells.permute(0, 2, 1, 3).flatten(2).long().mode(dim=2).values
        matrix.add(most.repeat_interleave(stride, 0).repeat_interleave(stride, 1), truth)
    return matrix.scores()


def draw(loaded: LoadedSegmenter, held_out: SegmentationSource, rows: int = ROWS) -> Image.Image:
    """Draw picture, truth and prediction of varied held-out images that are far apart from each other."""
    chosen = varied(held_out, rows)
    pictures, titles = [], []
    for index in chosen:
        image, truth = held_out.read(index)
        predicted = loaded.label(np.asarray(image), loaded.config.eval).labels
        pictures.append((image, *(colourise(labels, held_out.palette) for labels in (truth, predicted))))
        titles.append(held_out.key(index))
    columns = ("picture", "truth", "prediction")
    return draw_comparison(pictures, titles, columns, held_out.class_names, held_out.palette)


def varied(source: SegmentationSource, count: int) -> list[int]:
    """Return, for each of ``count`` parts of a source, the index of the image with the most balanced classes."""

    def evenness(index: int) -> float:
        counts = np.bincount(source.read(index).labels.ravel(), minlength=IGNORED + 1)[:IGNORED]
        shares = counts[counts > 0] / max(1, int(counts.sum()))
        return float(-(shares * np.log(shares)).sum())

    stretches = np.array_split(np.arange(len(source)), min(count, len(source)))
    return [max(stretch.tolist(), key=evenness) for stretch in stretches]


def _summary(
    row: JsonObject, baseline: Scores, ceiling: Scores, training: float, sheet: Path, config: SegmentationConfig
) -> str:
    return f"""
training {duration(training)}; {row["protocol"]}

{class_table(row)}

                                         mIoU    aAcc
  colour of each pixel alone            {100 * baseline.miou:5.1f}   {100 * baseline.aacc:5.1f}
  this segmenter                        {100 * row["miou"]:5.1f}   {100 * row["aacc"]:5.1f}
  the truth on a grid of 4 pixels       {100 * ceiling.miou:5.1f}   {100 * ceiling.aacc:5.1f}

Labels are of 2019, the picture is older, and cells of 0.05 degrees have fuzzy borders.
Imagery: NASA Blue Marble Next Generation. Labels: NASA MODIS land cover MCD12C1 (IGBP).

Look at
  {sheet}   picture, truth and prediction
  {config.folder / "samples"}/   the sheets drawn during training
Go on with
  hamgan segment evaluate --checkpoint {config.folder} --bases-seeds 0-4
  hamgan segment predict --checkpoint {config.folder} --output labels --overlays PICTURE.jpg
"""
