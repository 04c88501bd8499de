"""Write a generator for programs without this one, as an ONNX model or a program of torch.export, and check it first.

Both formats take ``z`` float32 [B, latent_dim] and ``labels`` int64 [B], any B, and give ``images`` float32
[B, 3, R, R] in [-1, 1]. What else the file of a generator says (configuration, class names, kimg, evaluations) goes
with them.
"""

import copy
import io
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from hamgan.checkpoint import generator_metadata
from hamgan.errors import CheckpointError
from hamgan.networks import Generator
from hamgan.networks.inference import InferenceGenerator
from hamgan.sampling import LoadedGenerator, truncated_latent
from hamgan.sharing.onnx import check_new, onnx_forward, onnx_model, quiet, require_onnx, write_model
from hamgan.sharing.public import public_header

ONNX_TOLERANCE, PROGRAM_TOLERANCE = 1e-4, 1e-5
"""Largest allowed difference of an exported model's images from PyTorch's, for images in [-1, 1]."""
CHECKED_BATCHES = (1, 5)
METADATA_FILE = "generator.json"

Forward = Callable[[Tensor, Tensor], Tensor]


def export_onnx(generator: LoadedGenerator, path: Path) -> float:
    """Write an ONNX model, its metadata in ``metadata_props``; returns the largest difference from PyTorch's images.

    Raises ConfigError if the path exists, a package is missing or ONNX has no operator for the network, CheckpointError
    if the images differ by more than 1e-4 from PyTorch's or the file cannot be written.
    """
    check_new(path)
    require_onnx()
    network = _on_cpu(generator)
    with torch.no_grad():
        form = InferenceGenerator(network)
        form(*_inputs(network, 1))  # Hamburgers draw their initial bases in this call and keep them as constants
    metadata = generator_metadata(**public_header(generator))
    data = onnx_model(form, _inputs(network, 2), _ANY_BATCH, "images", metadata)
    run = onnx_forward(data, "images")
    difference = _check(lambda z, labels: run(z=z, labels=labels), network, ONNX_TOLERANCE, path)
    write_model(path, data)
    return difference


def export_program(generator: LoadedGenerator, path: Path) -> float:
    """Write a program for ``torch.export.load(path).module()``; returns the largest difference from the generator's.

    The metadata is in its extra file ``generator.json``. Raises ConfigError if the path exists, CheckpointError if the
    images differ by more than 1e-5 from PyTorch's or the file cannot be written.
    """
    check_new(path)
    network = _on_cpu(generator)
    form = InferenceGenerator(network)
    buffer = io.BytesIO()
    with quiet(), torch.no_grad():
        form(*_inputs(network, 1))
        program = torch.export.export(form, _inputs(network, 2), dynamic_shapes=_ANY_BATCH)
        metadata = json.dumps(generator_metadata(**public_header(generator)))
        torch.export.save(program, buffer, extra_files={METADATA_FILE: metadata})
        loaded = torch.export.load(io.BytesIO(buffer.getvalue())).module()
    difference = _check(loaded, network, PROGRAM_TOLERANCE, path)
    write_model(path, buffer.getvalue())
    return difference


_ANY_BATCH = {name: {0: torch.export.Dim("batch", min=1)} for name in ("z", "labels")}


def _on_cpu(generator: LoadedGenerator) -> Generator:
    return copy.deepcopy(generator.network).requires_grad_(False).to("cpu", torch.float32)


def _inputs(network: Generator, count: int) -> tuple[Tensor, Tensor]:
    z = torch.stack([truncated_latent(seed, network.config.latent_dim) for seed in range(count)])
    return z, torch.arange(count) % network.num_classes


def _check(forward: Forward, network: Generator, tolerance: float, path: Path) -> float:
    """Return the largest difference of the images from the generator's; CheckpointError beyond the tolerance."""
    drawn, largest = InferenceGenerator(network), 0.0
    for count in CHECKED_BATCHES:
        z, labels = _inputs(network, count)
        largest = max(largest, float((forward(z, labels) - drawn(z, labels)).abs().max()))
    if not largest <= tolerance:  # also for NaN
        raise CheckpointError(
            f"{path} is not written: its images differ by {largest:.2g} from PyTorch's, more than {tolerance:g}"
        )
    return largest
