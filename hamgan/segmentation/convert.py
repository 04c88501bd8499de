"""Load encoders and whole segmenters of other projects, and report what became of every tensor.

Supported are the official Light-Ham, HamNet and VAN, OpenMMLab's VANs and ResNets, Transformers' VANs, and timm.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from hamgan.checkpoint.pickles import PICKLES, read_pickle
from hamgan.checkpoint.tensors import read_tensors
from hamgan.config import preset_names
from hamgan.convert.places import check_file_exists
from hamgan.errors import ConfigError, ConversionError
from hamgan.files import sha256
from hamgan.segmentation.config import load_config
from hamgan.segmentation.names import CLASSIFIERS, UNUSED, encoder_name, is_segmenter, segmenter_name
from hamgan.segmentation.resnet import TimmEncoder
from hamgan.segmentation.schema import SegmentationConfig
from hamgan.segmentation.segmenter import Segmenter, build_segmenter
from hamgan.segmentation.storing import SEGMENTER_FORMAT, Palette, SegmenterHeader, save_segmenter

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""Names of an encoder's weights file in a hub repository, in order of preference."""
ENTRIES = ("state_dict", "model", "state_dict_ema", "net")
"""Entries of a checkpoint that may contain the weights."""


@dataclass
class ForeignWeights:
    """Hold the contents of another project's file."""

    tensors: dict[str, Tensor]
    class_names: list[str] | None = None
    palette: Palette | None = None


@dataclass
class WeightsReport:
    """List what became of every tensor of a network and of the file that it was loaded from."""

    source: str
    loaded: list[str]
    """Tensors of the network that were loaded."""
    new: list[str]
    """Tensors of the network that the file lacks; they keep their initial values."""
    unused: list[str]
    """Tensors of the file that the network does not have."""

    def __str__(self) -> str:
        if not self.loaded and not self.unused:
            return f"weights from {self.source}: all {len(self.new)} tensors of the encoder are random"
        parts = [f"{len(self.loaded)} tensors loaded"]
        parts += [f"{len(names)} {what} ({_some(names)})" for what, names in self._others if names]
        return f"weights from {self.source}: {', '.join(parts)}"

    @property
    def _others(self) -> tuple[tuple[str, list[str]], ...]:
        return ("new", self.new), ("unused", self.unused)


def load_encoder_weights(segmenter: Segmenter, name: str | None = None) -> WeightsReport:
    """Load the encoder's weights from ``encoder.weights``, or from ``name``; returns a report.

    ``none`` keeps the initial weights. Raises ConfigError if no weights are named or the file does not exist,
    ConversionError if it does not fit or cannot be read, CheckpointError for errors of a hub.
    """
    name = name or segmenter.config.encoder.weights
    if not name:
        raise ConfigError(
            "encoder.weights is not set; give a file or hf:OWNER/NAME, or `none` to start from random weights"
        )
    encoder = segmenter.encoder.network if isinstance(segmenter.encoder, TimmEncoder) else segmenter.encoder
    assert isinstance(encoder, nn.Module)
    if name == "none":
        return WeightsReport("none", [], list(encoder.state_dict()), [])
    tensors = read_foreign(_find_weights(name)).tensors
    if is_segmenter(tensors):
        tensors = {key: value for key, value in tensors.items() if key.removeprefix("module.").startswith("backbone.")}
    return _load(encoder, {encoder_name(key): value for key, value in tensors.items()}, name)


def convert_segmenter(
    path: Path, config: SegmentationConfig | None = None
) -> tuple[Segmenter, SegmenterHeader, WeightsReport]:
    """Read a whole segmenter of the official code or MMSegmentation; without ``config`` finds the preset of its shapes.

    Raises ConversionError for other files, and if no preset, or the given configuration, fits.
    """
    foreign = read_foreign(path)
    if not is_segmenter(foreign.tensors):
        raise ConversionError(
            f"{path} holds no segmenter ({CLASSIFIERS[0]}weight, ...); weights of an encoder go to encoder.weights"
        )
    config = config or _recognise(foreign.tensors, path)
    config.data.num_classes = _classes(foreign.tensors)
    segmenter = build_segmenter(config)
    report = _load(segmenter, _segmenter_tensors(foreign.tensors, config), str(path))
    header = SegmenterHeader(config, foreign.class_names, foreign.palette, source={"sha256": {path.name: sha256(path)}})
    return segmenter.eval().requires_grad_(False), header, report


def convert_file(path: Path, output: Path, config: SegmentationConfig | None = None) -> WeightsReport:
    """Convert another project's segmenter to a segmenter.safetensors; see `convert_segmenter`."""
    if output.exists():
        raise ConfigError(f"{output} exists already; choose another name, or remove it first")
    segmenter, header, report = convert_segmenter(path, config)
    output.parent.mkdir(parents=True, exist_ok=True)
    save_segmenter(output, segmenter, header)
    return report


def read_foreign(path: Path) -> ForeignWeights:
    """Read tensors, and class names and colours if there are any, from .safetensors or a PyTorch file.

    Of a checkpoint the first of `ENTRIES` is read. Raises ConversionError or CheckpointError.
    """
    check_file_exists(path)
    if path.suffix == ".safetensors":
        tensors, metadata = read_tensors(path)
        if metadata.get("format") == SEGMENTER_FORMAT:
            raise ConversionError(f"{path} is a HamGAN segmenter already; it needs no conversion")
        return ForeignWeights(tensors)
    if path.suffix not in PICKLES:
        raise ConversionError(f"{path} has an unknown file extension; known are .safetensors, {', '.join(PICKLES)}")
    content = read_pickle(path)
    meta = content.get("meta")
    state = next((content[entry] for entry in ENTRIES if isinstance(content.get(entry), Mapping)), content)
    assert isinstance(state, Mapping)
    tensors = {name: value for name, value in state.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if not tensors:
        raise ConversionError(f"{path} holds no tensors, in none of {', '.join(ENTRIES)}")
    names, palette = ((meta.get(key) if isinstance(meta, Mapping) else None) for key in ("CLASSES", "PALETTE"))
    return ForeignWeights(
        tensors,
        [str(name).strip() for name in names] if names else None,
        [[int(value) for value in colour] for colour in palette] if palette else None,
    )


def _find_weights(name: str) -> Path:
    """Return the file that ``encoder.weights`` names, from a hub for ``hf:OWNER/NAME``."""
    if name.startswith("hf:"):
        from hamgan.sampling.hub import download

        return download(name.removeprefix("hf:"), files=HUB_FILES)
    if not Path(name).is_file():
        raise ConfigError(
            f"encoder.weights: there is no file {name}; download it, give another file or hf:OWNER/NAME, or `none` to "
            "start from random weights"
        )
    return Path(name)


def _load(network: nn.Module, tensors: Mapping[str, Tensor], source: str) -> WeightsReport:
    """Load tensors into a network by name; ConversionError if any is missing, left over or has another shape."""
    ours = network.state_dict()
    wrong = [name for name in ours if name in tensors and tensors[name].shape != ours[name].shape]
    if wrong:
        examples = [f"{name} {list(tensors[name].shape)} for {list(ours[name].shape)}" for name in wrong[:3]]
        raise ConversionError(f"{source} is of another size: {len(wrong)} tensors do not fit: {', '.join(examples)}")
    report = WeightsReport(
        source,
        loaded=[name for name in ours if name in tensors],
        new=[name for name in ours if name not in tensors],
        unused=[name for name in tensors if name not in ours],
    )
    for what, names in (("misses", report.new), ("has beyond ours", report.unused)):
        if serious := [name for name in names if not UNUSED.fullmatch(name)]:
            raise ConversionError(
                f"{source} does not fit: it {what} {len(serious)} tensors ({_some(serious)}); is it another network?"
            )
    network.load_state_dict({name: tensors[name] for name in report.loaded}, strict=False)
    return report


def _segmenter_tensors(tensors: Mapping[str, Tensor], config: SegmentationConfig) -> dict[str, Tensor]:
    prefix = "encoder.network." if config.encoder.kind == "timm" else "encoder."
    found = {segmenter_name(name, prefix): value for name, value in tensors.items()}
    # There the factors of the Hamburger v2+ are vectors of one value.
    return {name: value[0] if name.endswith((".gate", ".shortcut")) else value for name, value in found.items()}


def _classes(tensors: Mapping[str, Tensor]) -> int:
    name = next((name for name in tensors if segmenter_name(name) == "head.classifier.weight"), None)
    if name is None:
        raise ConversionError(f"the weights have no {CLASSIFIERS[0]}weight, which tells the number of classes")
    return len(tensors[name])


def _recognise(tensors: Mapping[str, Tensor], path: Path) -> SegmentationConfig:
    """Return the preset whose network has the names and shapes of these tensors; ConversionError if none has."""
    for preset in preset_names("segmentation"):
        config = load_config(preset)
        config.data.num_classes = _classes(tensors)
        with torch.device("meta"):
            ours = build_segmenter(config).state_dict()
        found = {name: value.shape for name, value in _segmenter_tensors(tensors, config).items()}
        wanted = {name: value.shape for name, value in ours.items()}
        different = [name for name in wanted | found if wanted.get(name) != found.get(name)]
        if all(UNUSED.fullmatch(name) for name in different):
            return config
    raise ConversionError(f"{path} fits none of the presets; name its configuration with --config")


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
