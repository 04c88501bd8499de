"""Segment pictures, to a `LabelMap` in Python and to files on the command line."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from hamgan.errors import DataError, PictureError, one_line
from hamgan.segmentation.data.folders import rgb_pixels
from hamgan.segmentation.drawing import colourise, indexed, overlay
from hamgan.segmentation.inference import predict_labels, predict_probabilities
from hamgan.segmentation.schema import EvalConfig
from hamgan.segmentation.segmenter import Segmenter

Picture = Image.Image | np.ndarray | str | Path
"""A PIL image, its pixels uint8 [H, W, 3], or a file."""


@dataclass(frozen=True)
class LabelMap:
    """Hold the classes of a picture's pixels."""

    labels: np.ndarray
    """uint8 [H, W]."""
    image: np.ndarray
    """The picture, uint8 [H, W, 3]."""
    class_names: list[str]
    palette: np.ndarray
    _segmenter: Segmenter = field(repr=False)
    _settings: EvalConfig = field(repr=False)
    _bases_seed: int = field(repr=False)

    def probabilities(self) -> np.ndarray:
        """Return the probabilities of all classes, float32 [classes, H, W], by predicting again."""
        pixels = _as_batch(self.image, self._segmenter)
        return predict_probabilities(self._segmenter, pixels, self._settings, self._bases_seed)[0].cpu().numpy()

    def overlay(self) -> Image.Image:
        """Return the picture overlaid with the colours of its classes."""
        return Image.fromarray(overlay(self.image, self.labels, self.palette))

    def coloured(self) -> Image.Image:
        """Return the colours of the classes."""
        return Image.fromarray(colourise(self.labels, self.palette))

    def indexed(self) -> Image.Image:
        """Return a palette image, one byte per pixel, that viewers show in the classes' colours."""
        return indexed(self.labels, self.palette)

    def shares(self) -> dict[str, float]:
        """Return class -> its share of the pixels, for the classes that occur, the largest first."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.class_names)) / self.labels.size
        order = np.argsort(-counts, kind="stable")
        return {self.class_names[index]: float(counts[index]) for index in order if counts[index]}


def label(
    segmenter: Segmenter,
    image: np.ndarray,
    settings: EvalConfig,
    class_names: list[str],
    palette: np.ndarray,
    bases_seed: int = 0,
) -> LabelMap:
    """Segment one picture uint8 [H, W, 3]."""
    labels = predict_labels(segmenter, _as_batch(image, segmenter), settings, bases_seed)[0].cpu().numpy()
    return LabelMap(labels, image, class_names, palette, segmenter, settings, bases_seed)


def _as_batch(image: np.ndarray, segmenter: Segmenter) -> Tensor:
    device = next(segmenter.parameters()).device
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].to(device)


def read_picture(picture: Picture) -> np.ndarray:
    """Return the pixels of a picture, uint8 [H, W, 3], with its EXIF orientation applied; DataError if it is none."""
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise DataError(f"an array must be uint8 [H, W, 3]; this one is {picture.dtype} {list(picture.shape)}")
        return picture
    try:
        image = picture if isinstance(picture, Image.Image) else Image.open(picture)
        return rgb_pixels(ImageOps.exif_transpose(image))
    except PictureError as error:
        raise DataError(f"{picture} {error}") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{picture} cannot be read: {one_line(error)}") from error


def write_labels(
    maps: Iterator[tuple[str, LabelMap]], output: Path, *, overlays: bool, arrays: bool, probabilities: bool
) -> int:
    """Write NAME.png, and optionally overlays and arrays, of every label map into a folder; returns their number."""
    count = 0
    for name, found in maps:
        path = output / name
        path.parent.mkdir(parents=True, exist_ok=True)
        found.indexed().save(path.with_name(f"{path.name}.png"))
        if overlays:
            found.overlay().save(path.with_name(f"{path.name}_overlay.png"))
        if arrays or probabilities:
            values = {"labels": found.labels, "class_names": np.asarray(found.class_names)}
            values |= {"probabilities": found.probabilities().astype(np.float16)} if probabilities else {}
            np.savez_compressed(path.with_name(f"{path.name}.npz"), **values)  # type: ignore[arg-type]  # a plain dict
        count += 1
    return count
