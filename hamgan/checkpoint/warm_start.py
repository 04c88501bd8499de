"""Initialise networks from the weights of another model: all that fits, with new context blocks and classes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from hamgan.checkpoint.generator import GENERATOR_FORMAT
from hamgan.checkpoint.rotation import latest_checkpoint
from hamgan.checkpoint.state import select_tensors
from hamgan.checkpoint.tensors import read_tensors
from hamgan.errors import CheckpointError, hint_at
from hamgan.files import nearest_path
from hamgan.networks.batch_norm import PerClassBatchNorm
from hamgan.networks.slicing import SlicingLayer
from hamgan.networks.spectral_norm import SpectralWeight

ClassMapping = Literal["auto", "redraw"] | Mapping[int, int]
"""auto: copy class tables when the numbers of classes agree, else draw them anew; or new class -> source class."""

# Power iterations for a weight without a stored singular vector: sigma is then within a percent for trained weights.
WARM_UP = 20


@dataclass
class Initialisation:
    """List what became of the tensors of one network."""

    loaded: list[str] = field(default_factory=list)
    """Tensors copied unchanged."""
    classes: list[str] = field(default_factory=list)
    """Class tables, copied row by row or drawn anew."""
    new: list[str] = field(default_factory=list)
    """Tensors that keep their initial values."""
    unused: list[str] = field(default_factory=list)
    """Tensors of the source that the network does not have."""
    warmed: list[str] = field(default_factory=list)
    """Singular vectors that were recomputed, for weights that changed or had none."""
    redrawn: bool = False
    """Whether the class tables were drawn anew."""

    def summary(self, name: str) -> str:
        """Return one line for the start of a run."""
        parts = [f"{len(self.loaded)} tensors loaded"]
        if self.classes:
            parts.append(f"{len(self.classes)} class tables {'drawn anew' if self.redrawn else 'copied'}")
        if self.new:
            parts.append(f"new: {_groups(self.new)}")
        if self.unused:
            parts.append(f"without a place: {_groups(self.unused)}")
        return f"{name:13s} " + "; ".join(parts)


def _groups(names: list[str]) -> str:
    """Summarise names of tensors by their owners, such as ``contexts.64``."""
    return ", ".join(sorted({_owner(name) for name in names}))


def _owner(name: str) -> str:
    return ".".join(name.split(".")[:2])


def initialise_from(
    networks: Mapping[str, nn.Module], path: Path, *, classes: ClassMapping = "auto", seed: int = 0
) -> dict[str, Initialisation]:
    """Load what fits from a generator file, a checkpoint or a run into networks with initial weights, in place.

    ``networks`` has the keys ``generator``, ``discriminator`` and ``average``. If the source has only G or only its
    average, it initialises both; a generator file has no D, which then stays new. Context blocks are copied as a whole
    or not at all, so a Hamburger that replaces attention starts with gate 0. Class tables follow ``classes``; new rows
    are drawn with mean and deviation of the source's, as a function of ``seed``. Raises CheckpointError if the source
    cannot be read or nothing fits.
    """
    sources = _read_sources(path)
    report: dict[str, Initialisation] = {}
    for name, network in networks.items():
        source = sources.get(name) or sources.get({"generator": "average", "average": "generator"}.get(name, ""))
        if not source:
            report[name] = Initialisation(new=list(network.state_dict()))
            continue
        report[name] = _Transfer(network, source, classes, seed).run()
        if not report[name].loaded:
            raise CheckpointError(f"nothing in {path} fits the {name}: it is of another architecture")
    return report


def parse_class_mapping(text: str, classes: int) -> ClassMapping:
    """Read ``auto``, ``redraw``, or the path of a JSON object {new class: source class} that names all classes.

    Raises CheckpointError for any other text or file.
    """
    if text in ("auto", "redraw"):
        return "auto" if text == "auto" else "redraw"
    try:
        mapping = {int(key): int(value) for key, value in json.loads(Path(text).read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{text} is neither auto, redraw nor a JSON file of new class -> source class: {error}"
        ) from error
    if set(mapping) != set(range(classes)):
        raise CheckpointError(
            f"{text} maps {len(mapping)} classes; classes 0 to {classes - 1} must each be mapped once"
        )
    return mapping


def _read_sources(path: Path) -> dict[str, dict[str, Tensor]]:
    """Read state dicts by network name from a run, a checkpoint or a generator file."""
    if path.is_dir():
        checkpoint = path if (path / "state.safetensors").is_file() else latest_checkpoint(path / "checkpoints")
        if checkpoint is not None:
            tensors = read_tensors(checkpoint / "state.safetensors")[0]
            return {name: select_tensors(tensors, name) for name in ("generator", "discriminator", "average")}
        path = path / "generator.safetensors"
    if not path.is_file():
        raise CheckpointError(f"there are no weights at {path}{hint_at(nearest_path(path))}")
    if path.suffix == ".safetensors":
        tensors, metadata = read_tensors(path)
        if metadata.get("format") == GENERATOR_FORMAT:
            return {"average": tensors}
    raise CheckpointError(f"{path} is not a HamGAN file; convert foreign weights first: hamgan convert {path}")


class _Transfer:
    """Copy a source's tensors into one network."""

    def __init__(self, network: nn.Module, source: dict[str, Tensor], classes: ClassMapping, seed: int) -> None:
        self.network, self.source, self.classes = network, source, classes
        self.target = network.state_dict()
        self.tables = _class_tables(network)
        self.random = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def run(self) -> Initialisation:
        """Copy what fits; returns what became of every tensor."""
        result = Initialisation(unused=[name for name in self.source if name not in self.target])
        foreign, stale = self._foreign_contexts(), self._stale_vectors()
        for name, tensor in self.target.items():
            source = None if _owner(name) in foreign or name in stale else self.source.get(name)
            if source is not None and name in self.tables and source.shape[1:] == tensor.shape[1:]:
                result.redrawn = self._fill_table(tensor, source)
                result.classes.append(name)
            elif source is not None and name not in self.tables and source.shape == tensor.shape:
                tensor.copy_(source)
                result.loaded.append(name)
            else:
                result.new.append(name)
                result.unused += [name] if name in self.source and name not in stale else []
        self._warm_up(result)
        return result

    def _foreign_contexts(self) -> set[str]:
        """Return the context blocks that differ in kind or size from the source's at the same resolution."""

        def layout(state: Mapping[str, Tensor], owner: str) -> dict[str, tuple[int, ...]]:
            # Files with folded weights have no singular vectors.
            own = [name for name in state if name.startswith(f"{owner}.") and not name.endswith(".vector")]
            return {name: tuple(state[name].shape[name in self.tables :]) for name in own}

        owners = {_owner(name) for name in self.target if name.startswith("contexts.")}
        return {owner for owner in owners if layout(self.target, owner) != layout(self.source, owner)}

    def _stale_vectors(self) -> set[str]:
        """Return singular vectors to recompute: of changed class tables, or all if the source stores the other side."""
        vectors = {name for name in self.target if name.endswith(".vector") and name in self.source}
        tables = {name for name in vectors if name.removesuffix("vector") + "weight" in self.tables}
        for name in vectors - tables:
            weight = name.removesuffix("vector") + "weight"
            same_weight = weight in self.source and self.source[weight].shape == self.target[weight].shape
            if same_weight and self.source[name].shape != self.target[name].shape:
                return vectors
        return {name for name in tables if self.classes != "auto" or self.source[name].shape != self.target[name].shape}

    def _fill_table(self, table: Tensor, source: Tensor) -> bool:
        """Fill rows by the mapping, or draw them like the source's; returns whether they were drawn."""
        if self.classes == "redraw" or (self.classes == "auto" and table.shape != source.shape):
            spread, mean = torch.std_mean(source.float(), dim=0, correction=0)
            draw = torch.randn(table.shape, generator=self.random)
            table.copy_((mean + spread * draw).to(table.device))
            return True
        if not isinstance(self.classes, str):
            rows = [self.classes[index] for index in range(len(table))]
            if wrong := [row for row in rows if not 0 <= row < len(source)]:
                raise CheckpointError(f"a class is mapped to {wrong[0]}; the source has classes 0 to {len(source) - 1}")
            source = source[rows]
        table.copy_(source)
        return False

    def _warm_up(self, result: Initialisation) -> None:
        """Compute singular vectors for weights that were copied without theirs."""
        taken = set(result.loaded) | set(result.classes)
        for name, module in self.network.named_modules():
            vector = f"{name}.vector"
            if isinstance(module, SpectralWeight) and f"{name}.weight" in taken and vector in result.new:
                result.new.remove(vector)
                result.warmed.append(vector)
                was_training = module.training
                module.train()
                for _ in range(WARM_UP):
                    module.effective_weight()
                module.train(was_training)


def _class_tables(network: nn.Module) -> set[str]:
    """Return the names of tensors with a row per class, without their singular vectors."""
    names = {"class_embedding.weight"}
    for name, module in network.named_modules():
        if isinstance(module, SlicingLayer):
            names |= {f"{name}.direction", f"{name}.scale"}
        if isinstance(module, PerClassBatchNorm):
            names |= {f"{name}.gamma", f"{name}.beta"}
    return names
