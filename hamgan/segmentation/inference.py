"""Predict the class of every pixel: whole or by windows, at several scales, mirrored or not.

As in MMSegmentation, the logits of every view of an image are resized to the view and then to the image, converted to
probabilities and averaged. This is done in strips of rows, since 150 classes of a large image would be gigabytes. Only
windows need that memory, because their logits have the view's full size.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hamgan.segmentation.augment import resize, scaled_size
from hamgan.segmentation.schema import EvalConfig
from hamgan.segmentation.segmenter import Segmenter, normalise

STRIP = 2**25
"""Number of probabilities in a strip, over all images and classes: 128 MiB."""


class View(NamedTuple):
    """Hold the logits of one view of images: one scale, mirrored or not."""

    logits: Tensor
    """[B, classes, h, w], mirrored back."""
    size: tuple[int, int]
    """Height and width of the images in this view."""


@torch.no_grad()
def predict_labels(segmenter: Segmenter, images: Tensor, settings: EvalConfig, bases_seed: int = 0) -> Tensor:
    """Return the most probable class of every pixel, uint8 [B, H, W], of images uint8 [B, 3, H, W] of one size."""
    views = list(look(segmenter, images, settings, bases_seed))
    size = tuple(images.shape[2:])
    return torch.cat([scores.argmax(1).to(torch.uint8) for scores in strips(segmenter, views, size)], dim=1)


@torch.no_grad()
def predict_probabilities(segmenter: Segmenter, images: Tensor, settings: EvalConfig, bases_seed: int = 0) -> Tensor:
    """Return the probabilities of all classes, float32 [B, classes, H, W], of images uint8 [B, 3, H, W]."""
    views = list(look(segmenter, images, settings, bases_seed))
    size = tuple(images.shape[2:])
    return torch.cat(list(strips(segmenter, views, size, normalised=True)), dim=2)


def look(segmenter: Segmenter, images: Tensor, settings: EvalConfig, bases_seed: int) -> Iterator[View]:
    """Yield the views of images uint8 [B, 3, H, W]: every scale, and mirrored with ``flip``."""
    bases = segmenter.evaluation_bases(bases_seed, len(images), images.device)
    for scale in settings.scales:
        resized = resize_for(images, settings, scale)
        size = tuple(resized.shape[2:])
        for mirrored in (False, True) if settings.flip else (False,):
            pixels = normalise(resized.flip(3) if mirrored else resized)
            logits = (
                _slide(segmenter, pixels, settings, bases)
                if settings.mode == "slide"
                else segmenter(pixels, bases=bases).main
            )
            yield View(logits.float().flip(3) if mirrored else logits.float(), (size[0], size[1]))


def resize_for(images: Tensor, settings: EvalConfig, scale: float = 1.0) -> Tensor:
    """Resize images uint8 [B, 3, H, W] by the settings: in proportion, then up to multiples of the divisor."""
    images = resize(images, scaled_size(images.shape[2:], settings.short_side, settings.long_side, scale))
    divisor = settings.size_divisor
    if divisor is None:
        return images
    return resize(images, [-(-side // divisor) * divisor for side in images.shape[2:]])


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Return the starts of windows that cover a side; the last window ends at its end."""
    count = max(length - window + stride - 1, 0) // stride + 1
    return [max(min(index * stride + window, length) - window, 0) for index in range(count)]


def _slide(segmenter: Segmenter, pixels: Tensor, settings: EvalConfig, bases: Tensor | None) -> Tensor:
    """Return logits [B, classes, H, W] at the size of the pixels, averaged where windows overlap."""
    window, (height, width) = settings.window, pixels.shape[2:]
    total = pixels.new_zeros(len(pixels), segmenter.classes, height, width)
    count = pixels.new_zeros(height, width)
    for top in window_starts(height, window, settings.stride):
        for left in window_starts(width, window, settings.stride):
            part = pixels[:, :, top : top + window, left : left + window]
            rows, columns = slice(top, top + part.shape[2]), slice(left, left + part.shape[3])
            logits = segmenter(part, bases=bases).main.float()
            total[:, :, rows, columns] += segmenter.resize_logits(logits, *part.shape[2:])
            count[rows, columns] += 1
    return total / count


def strips(
    segmenter: Segmenter, views: list[View], size: tuple[int, ...], normalised: bool = False
) -> Iterator[Tensor]:
    """Yield the mean probabilities [B, classes, rows, W] of the views, strip by strip from above.

    A single view gives its logits instead, which have the same order, unless ``normalised``.
    """
    height, width = size
    batch, classes = views[0].logits.shape[:2]
    step = max(1, STRIP // (batch * classes * width))
    align = segmenter.config.head.align_corners
    for top in range(0, height, step):
        rows = range(top, min(top + step, height))
        if len(views) == 1 and not normalised:
            yield _rows_of(views[0], rows, size, align)
            continue
        total = _rows_of(views[0], rows, size, align).softmax(1)
        for view in views[1:]:
            total += _rows_of(view, rows, size, align).softmax(1)
        yield total / len(views)


def _rows_of(view: View, rows: range, size: tuple[int, ...], align: bool) -> Tensor:
    """Resize a view's logits to the view's size, and then to some rows of the image."""
    if view.size == tuple(size):
        return _resize_rows(view.logits, rows, view.size, align)
    # Rows of the view that these rows of the image depend on.
    first, last = (int(_positions(range(row, row + 1), view.size[0], size[0], align)) for row in (rows[0], rows[-1]))
    needed = range(first, min(last + 2, view.size[0]))
    between = _resize_rows(view.logits, needed, view.size, align)
    return _resize_rows(between, rows, size, align, offset=first, length=view.size[0])


def _positions(rows: range, length: int, wanted: int, align: bool) -> Tensor:
    """Return the positions, in an image with ``length`` rows, of rows of one resized to ``wanted`` rows."""
    places = torch.arange(rows.start, rows.stop, dtype=torch.float64)
    if align:
        return places * ((length - 1) / max(wanted - 1, 1))
    return ((places + 0.5) * (length / wanted) - 0.5).clamp_(min=0.0)


def _resize_rows(
    x: Tensor, rows: range, size: tuple[int, ...], align: bool, offset: int = 0, length: int | None = None
) -> Tensor:
    """Return some rows of x [B, C, h, w] resized bilinearly to ``size``.

    x may be a part of a map with ``length`` rows, beginning at row ``offset``.
    """
    length = x.shape[2] if length is None else length
    if length != size[0] or len(rows) != x.shape[2]:
        places = _positions(rows, length, size[0], align)
        above = places.floor().long()
        weight = (places - above).to(x)[:, None]
        below = (above + 1).clamp(max=length - 1)
        x = torch.lerp(x[:, :, (above - offset).to(x.device)], x[:, :, (below - offset).to(x.device)], weight)
    if x.shape[3] == size[1]:
        return x
    return F.interpolate(x, (len(rows), size[1]), mode="bilinear", align_corners=align)
