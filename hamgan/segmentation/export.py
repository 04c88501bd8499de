"""Export a segmenter as an ONNX model for any image size, checked before it is written.

It maps ``images`` uint8 [B, 3, H, W], RGB, for any B and for H and W from 32 on, to ``logits`` float32 [B, classes, H,
W]. Its metadata has the header of the segmenter file (configuration, class names, colours, evaluations).
"""

import copy
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from hamgan.errors import CheckpointError
from hamgan.files import JsonObject
from hamgan.segmentation.loading import LoadedSegmenter
from hamgan.segmentation.segmenter import Segmenter, normalise
from hamgan.segmentation.storing import SegmenterHeader
from hamgan.sharing.onnx import check_new, onnx_forward, onnx_model, require_onnx, write_model
from hamgan.sharing.public import public_line, public_name

TOLERANCE = 1e-4
"""Largest allowed difference of logits from PyTorch's, as a share of the largest logit."""
CHECKED_SIZES = ((1, 64, 96), (2, 75, 47))
"""(batch, height, width) at which the exported model is checked."""


class PixelSegmenter(nn.Module):
    """Map images uint8 [B, 3, H, W] to logits [B, classes, H, W] at full size."""

    def __init__(self, network: Segmenter) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(normalise(images)).main
        return self.network.resize_logits(logits, images.shape[2], images.shape[3])


def export_onnx(segmenter: LoadedSegmenter, path: Path) -> float:
    """Write an ONNX model; returns the largest difference from PyTorch's logits, as a share of the largest of them.

    Raises ConfigError if the path exists, a package is missing or ONNX has no operator for the network, CheckpointError
    if the logits differ by more than 1e-4 or the file cannot be written.
    """
    check_new(path)
    require_onnx()
    network = copy.deepcopy(segmenter.network).requires_grad_(False).to("cpu", torch.float32)
    form = PixelSegmenter(network).eval()
    with torch.no_grad():
        form(_images(1, 64, 64))  # the Hamburger draws its initial bases in this call and keeps them as constants
    any_size = {"images": {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}}
    data = onnx_model(form, (_images(2, 96, 80),), any_size, "logits", public_header(segmenter.header).metadata())
    difference = _check(form, data)
    if not difference <= TOLERANCE:  # also for NaN
        raise CheckpointError(f"{path} is not written: its logits differ by {difference:.2g} from PyTorch's")
    write_model(path, data)
    return difference


def public_header(header: SegmenterHeader) -> SegmenterHeader:
    """Return the header with the paths of data, run and weights cut to their last part, for publishing."""
    config = header.config
    data = replace(
        config.data,
        source=public_name(config.data.source),
        classes=public_name(config.data.classes) if config.data.classes else None,
    )
    encoder = replace(config.encoder, weights=public_name(config.encoder.weights) if config.encoder.weights else None)
    evaluations = [_public_evaluation(row) for row in header.evaluations]
    return replace(header, config=replace(config, run_dir=None, data=data, encoder=encoder), evaluations=evaluations)


def _public_evaluation(row: JsonObject) -> JsonObject:
    """Return an evaluation with the path of its data cut to its last part, also in its protocol."""
    data = row.get("data", {})
    place = str(data.get("source", ""))
    protocol = public_line(row["protocol"], [place] if place else [])
    return row | {"data": data | {"source": public_name(place)}, "protocol": protocol}


def _check(form: PixelSegmenter, data: bytes) -> float:
    run, largest = onnx_forward(data, "logits"), 0.0
    for sizes in CHECKED_SIZES:
        images = _images(*sizes)
        with torch.no_grad():
            expected = form(images)
        largest = max(largest, float((run(images=images) - expected).abs().max() / expected.abs().max()))
    return largest


def _images(batch: int, height: int, width: int) -> Tensor:
    """Return images of smooth random colours, the same at every call."""
    coarse = torch.rand(batch, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    smooth = nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return (255 * smooth).to(torch.uint8)
