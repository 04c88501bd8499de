"""Write and read a segmenter file: weights, configuration, classes, colours and evaluations."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from hamgan.checkpoint.evaluations import is_evaluation
from hamgan.checkpoint.tensors import load_checked, read_metadata, read_tensors, write_file
from hamgan.config.reading import config_to_dict
from hamgan.errors import CheckpointError, one_line
from hamgan.files import JsonObject
from hamgan.segmentation.config import SEGMENTATION, validate
from hamgan.segmentation.schema import SegmentationConfig
from hamgan.segmentation.segmenter import Segmenter

SEGMENTER_FORMAT = "hamgan-segmenter"
SEGMENTER_FILE = "segmenter.safetensors"

Palette = list[list[int]]
"""Colours [red, green, blue] of 0 to 255, one per class."""


@dataclass
class SegmenterHeader:
    """Hold the metadata in a segmenter file."""

    config: SegmentationConfig
    class_names: list[str] | None = None
    palette: Palette | None = None
    kimg: float | None = None
    """Thousands of images that the weights were trained on; None if unknown."""
    evaluations: list[JsonObject] = field(default_factory=list)
    """Rows of results.jsonl about these weights, each with its protocol."""
    source: JsonObject | None = None
    """Files that the weights were converted from, with their sha256."""

    def metadata(self) -> dict[str, str]:
        """Return the header for a file of any format: name -> JSON."""
        values = vars(self) | {"config": config_to_dict(self.config)}
        return {"format": SEGMENTER_FORMAT} | {key: json.dumps(value) for key, value in values.items()}


def save_segmenter(path: Path, segmenter: Segmenter | Mapping[str, Tensor], header: SegmenterHeader) -> None:
    """Write a segmenter (or its state dict) atomically; CheckpointError if it cannot be written."""
    tensors = segmenter.state_dict() if isinstance(segmenter, Segmenter) else segmenter
    write_file(path, tensors, header.metadata())


def read_header(path: Path) -> SegmenterHeader:
    """Read the header of a file of `save_segmenter`; CheckpointError if it is damaged."""
    metadata = read_metadata(path)
    if metadata.get("format") != SEGMENTER_FORMAT:
        raise CheckpointError(f"{path} is a safetensors file, but not a HamGAN segmenter")
    try:
        values = {key: json.loads(value) for key, value in metadata.items() if key != "format"}
        config = SEGMENTATION.from_dict(values.pop("config"))
        validate(config)
        header = SegmenterHeader(config, **values)
        _check(header)
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"the header of {path} is damaged: {one_line(error)}") from error
    return header


def load_segmenter_file(path: Path) -> tuple[Segmenter, SegmenterHeader]:
    """Read a file of `save_segmenter`: the network in evaluation mode, and its header."""
    header = read_header(path)
    return segmenter_from_state(header.config, read_tensors(path)[0], path), header


def segmenter_from_state(config: SegmentationConfig, tensors: dict[str, Tensor], path: Path) -> Segmenter:
    """Build a segmenter in evaluation mode with the given weights; CheckpointError if they do not fit.

    If the weights lack the auxiliary head, which only training needs, it is left out.
    """
    if config.data.num_classes is None:
        raise CheckpointError(f"the configuration of {path} has no data.num_classes")
    with torch.device("meta"):
        segmenter = Segmenter(config, config.data.num_classes)
    if not any(name.startswith("auxiliary.") for name in tensors):
        segmenter.auxiliary = None
    load_checked(segmenter, tensors, path)
    return segmenter.eval().requires_grad_(False)


def _check(header: SegmenterHeader) -> None:
    """Raise ValueError for entries that `save_segmenter` does not write."""
    classes = header.config.data.num_classes
    for what, values in (("class names", header.class_names), ("colours", header.palette)):
        if values is not None and (not isinstance(values, list) or len(values) != classes):
            raise ValueError(f"its {what} are not one per class")
    if header.palette is not None and not all(map(_is_colour, header.palette)):
        raise ValueError("its colours are not all [red, green, blue] of 0 to 255")
    if not isinstance(header.evaluations, list) or not all(map(is_evaluation, header.evaluations)):
        raise ValueError("not every evaluation has its protocol")


def _is_colour(value: object) -> bool:
    return isinstance(value, Sequence) and len(value) == 3 and all(isinstance(v, int) and 0 <= v <= 255 for v in value)
