"""Write and read a generator file: weights, configuration, class names and evaluations."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hamgan.checkpoint.evaluations import evaluations_of_run, is_evaluation
from hamgan.checkpoint.tensors import load_checked, read_metadata, read_tensors, write_file
from hamgan.config import Config, config_from_dict, config_to_dict, validate
from hamgan.errors import CheckpointError, one_line
from hamgan.files import JsonObject
from hamgan.networks import Generator
from hamgan.networks.spectral_norm import SpectralWeight

GENERATOR_FORMAT = "hamgan-generator"
STATISTICS = ("ema", "running", "standing")


def save_generator(
    path: Path,
    generator: Generator | Mapping[str, Tensor],
    config: Config,
    *,
    class_names: list[str] | None = None,
    kimg: float | None = 0.0,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a generator (or its state dict) with all that sampling needs in the header, for `load_generator_file`.

    Raises CheckpointError if it cannot be written; an older file is then untouched.
    """
    metadata = generator_metadata(config, class_names=class_names, kimg=kimg, extra=extra)
    write_file(path, generator.state_dict() if isinstance(generator, Generator) else generator, metadata)


def generator_metadata(
    config: Config, *, class_names: list[str] | None, kimg: float | None, extra: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """Return the header of a generator file, in any format: name -> JSON."""
    values = {"config": config_to_dict(config), "class_names": class_names, "kimg": kimg} | dict(extra or {})
    return {"format": GENERATOR_FORMAT} | {key: json.dumps(value) for key, value in values.items()}


def read_class_names(run: Path) -> list[str] | None:
    """Read the names in RUN/classes.json; None if there is no such file, CheckpointError if it is damaged."""
    path = run / "classes.json"
    if not path.is_file():
        return None
    try:
        names = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {one_line(error)}") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"{path} is damaged: it must hold a list of names")
    return names


def load_generator_file(path: Path) -> tuple[Generator, Config, JsonObject]:
    """Read a file of `save_generator`: the network in evaluation mode, its configuration, the other header entries.

    The entries may be ``evaluations`` (rows of results.jsonl about these weights, each with its protocol), ``folded``
    (whether the weights are divided by their spectral norm), ``ema`` (whether they are the average of G, as in a run's
    own file if there is one) and ``batch_norm`` (which statistics they have).
    """
    tensors, metadata = read_tensors(path)
    config, header = _read_header(metadata, path)
    return generator_from_state(config, tensors, path, folded=header.get("folded") is True), config, header


def read_generator_config(path: Path) -> Config:
    """Read the configuration in the header of a file of `save_generator`, without its weights."""
    return _read_header(read_metadata(path), path)[0]


def _read_header(metadata: Mapping[str, str], path: Path) -> tuple[Config, JsonObject]:
    if metadata.get("format") != GENERATOR_FORMAT:
        raise CheckpointError(f"{path} is a safetensors file, but not a HamGAN generator")
    try:
        header = {key: json.loads(value) for key, value in metadata.items() if key != "format"}
        config = config_from_dict(header.pop("config"))
        validate(config)
        _check_header(header, config)
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"the header of {path} is damaged: {one_line(error)}") from error
    return config, header


def _check_header(header: Mapping[str, Any], config: Config) -> None:
    """Raise ValueError for entries that `save_generator` does not write."""
    names, evaluations = header.get("class_names"), header.get("evaluations", [])
    if names is not None and (not isinstance(names, list) or len(names) != config.data.num_classes):
        raise ValueError("its class names are not one per class")
    if not isinstance(evaluations, list) or not all(map(is_evaluation, evaluations)):
        raise ValueError("not every evaluation has its protocol")
    for key, allowed in (("ema", (True, False)), ("folded", (True, False)), ("batch_norm", STATISTICS)):
        if header.get(key, allowed[0]) not in allowed:
            raise ValueError(f"{key} is {header[key]!r}")


def record_evaluations(config: Config) -> None:
    """Write evaluations made after the end of a run into the header of its generator.safetensors."""
    path = config.folder / "generator.safetensors"
    generator, stored, header = load_generator_file(path)
    names, kimg = header.pop("class_names"), header.pop("kimg")
    header["evaluations"] = evaluations_of_run(config, kimg)
    save_generator(path, generator, stored, class_names=names, kimg=kimg, extra=header)


def generator_from_state(config: Config, tensors: dict[str, Tensor], path: Path, folded: bool = False) -> Generator:
    """Build a generator in evaluation mode with the given weights; CheckpointError if they do not fit.

    ``folded`` says that the weights are already divided by their singular values.
    """
    if config.data.num_classes is None:
        raise CheckpointError(f"the configuration of {path} has no data.num_classes")
    with torch.device("meta"):
        generator = Generator(config.generator, config.resolution, config.data.num_classes)
    layers = [module for module in generator.modules() if isinstance(module, SpectralWeight)]
    for layer in layers if folded else ():
        layer.take_as_folded()
    load_checked(generator, tensors, path)
    for layer in layers:  # the only buffer that is in no file
        layer.get_buffer("sigma").fill_(1.0)
    return generator.eval().requires_grad_(False)
