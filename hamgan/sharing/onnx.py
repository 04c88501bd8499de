"""Export networks as ONNX models and run them, for generators and segmenters."""

import contextlib
import importlib
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hamgan.errors import CheckpointError, ConfigError, one_line
from hamgan.files import write_atomically


def require_onnx() -> None:
    """Raise ConfigError, naming what to install, if a package that ONNX needs is missing."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ConfigError(f"ONNX needs the package {package}: pip install -r requirements-sharing.txt") from error


def onnx_model(
    network: nn.Module,
    inputs: tuple[Tensor, ...],
    dynamic_shapes: Mapping[str, Any],
    output: str,
    metadata: Mapping[str, str],
) -> bytes:
    """Return a network as an ONNX model with one named output; ConfigError if ONNX has no operator for it."""
    with quiet(), torch.no_grad():
        try:
            exported: Any = torch.onnx.export(
                network,
                inputs,
                dynamo=True,
                dynamic_shapes=dict(dynamic_shapes),
                input_names=list(dynamic_shapes),
                output_names=[output],
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise ConfigError(f"this network cannot be written as ONNX: {_missing_operator(error)}") from error
    exported.model.metadata_props.update(metadata)
    data: bytes = exported.model_proto.SerializeToString()
    return data


def onnx_forward(data: bytes, output: str) -> Callable[..., Tensor]:
    """Return a function that runs an ONNX model on the CPU; tensors are keyword arguments named like its inputs."""
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])

    def forward(**inputs: Tensor) -> Tensor:
        values = {name: value.numpy() for name, value in inputs.items()}
        return torch.from_numpy(session.run([output], values)[0])

    return forward


def check_new(path: Path) -> None:
    """Raise ConfigError for a path that exists, unless it is an empty folder; exports overwrite nothing."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"{path} exists already; choose another name, or remove it first")


def write_model(path: Path, data: bytes) -> None:
    """Write a model's bytes atomically; CheckpointError if they cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
    except OSError as error:
        raise CheckpointError(f"could not write {path}: {error}") from error


def _missing_operator(error: Exception) -> str:
    found = re.search(r"No ONNX function found for .*?op='([\w.]+)'", str(error))
    return f"ONNX has no operator for {found[1]}" if found else one_line(error)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporters' messages about their internals."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
