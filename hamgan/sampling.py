"""From seeds and classes to images: loading generators, truncated latents, sheets."""

import difflib
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm import tqdm

from hamgan.checkpoint import (
    CheckpointError,
    generator_from_state,
    latest_checkpoint,
    load_generator_file,
    read_state,
    read_tensors,
)
from hamgan.config import Config, ConfigError, load_config
from hamgan.layers import SpectralWeight
from hamgan.networks import Generator
from hamgan.sheets import check_output, draw_sheet, save_folder, to_pil

SMALLEST_TRUNCATION = 0.001
MOST_NUMBERS = 10_000_000
"""Seeds or classes that a range may name; far more than this is a slip of the keyboard."""


def truncated_latent(seed: int, size: int, truncation: float = 1.0) -> Tensor:
    """z [size] of one seed, from N(0, 1); below 1, values beyond ``truncation`` are drawn again.

    Truncation by resampling, Brock et al. 2019, section 3.1. The latent is a function of the seed alone, never of the
    batch. Truncation 1 or more does not truncate: `truncation` is then ignored, as everybody quotes it.
    """
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(size, generator=generator)
    while truncation < 1.0 and bool((outside := z.abs() > truncation).any()):
        z = torch.where(outside, torch.randn(size, generator=generator), z)
    return z


def check_truncation(truncation: float) -> None:
    """Raise ConfigError unless latents can be drawn: resampling takes 1 / truncation rounds, for ever at 0."""
    if not truncation >= SMALLEST_TRUNCATION:
        raise ConfigError(
            f"truncation is {truncation}; it must be above 0 ({SMALLEST_TRUNCATION} at least; 1 or more: no truncation)"
        )


def to_uint8(images: Tensor) -> Tensor:
    """[-1, 1] to 0..255, rounded, exactly as the images are saved. Shapes: [B, 3, H, W] -> the same, uint8."""
    return images.float().add(1.0).mul(127.5).round().clamp(0, 255).to(torch.uint8)


class LoadedGenerator:
    """A generator ready to sample: evaluation mode, spectral norm folded into the weights.

    Example:
        >>> generator = load_generator("runs/photos")                         # doctest: +SKIP
        >>> images = generator(seeds=[0, 1], classes=["coffee", 3])           # doctest: +SKIP
    """

    def __init__(
        self,
        network: Generator,
        config: Config,
        *,
        class_names: list[str] | None = None,
        kimg: float | None = None,
        source: str = "",
    ) -> None:
        self.network, self.config = network, config
        self.class_names, self.kimg, self.source = class_names, kimg, source

    @property
    def num_classes(self) -> int:
        """Number of classes that may be asked for."""
        return self.network.num_classes

    def class_index(self, name: int | str) -> int:
        """The index of a class given by index or by name; ConfigError names what is nearest."""
        if not isinstance(name, str) or name.isdecimal():
            index = int(name)
            if not 0 <= index < self.num_classes:
                raise ConfigError(f"class {index} is out of range; there are classes 0 to {self.num_classes - 1}")
            return index
        if self.class_names is None:
            raise ConfigError(f"class {name!r}: this generator has no class names; use 0 to {self.num_classes - 1}")
        if name in self.class_names:
            return self.class_names.index(name)
        # ImageNet's names are lists of synonyms: "golden retriever" should find its class.
        found = [index for index, known in enumerate(self.class_names) if name.lower() in known.lower()]
        if len(found) == 1:
            return found[0]
        choices = [self.class_names[index] for index in found] or difflib.get_close_matches(
            name, self.class_names, n=3, cutoff=0.4
        )
        hint = f"; nearest: {', '.join(choices[:5])}" if choices else f"; there are {', '.join(self.class_names[:20])}"
        raise ConfigError(f"no class is called {name!r}{hint}")

    @torch.no_grad()
    def images(self, z: Tensor, labels: Tensor) -> Tensor:
        """z [B, latent_dim] and labels [B] to uint8 images [B, 3, H, W] on the generator's device."""
        parameter = next(self.network.parameters())
        return to_uint8(self.network(z.to(parameter), labels.to(parameter.device)))

    def __call__(
        self,
        seeds: Sequence[int],
        classes: Sequence[int | str],
        truncation: float = 1.0,
        output: Literal["pil", "tensor"] = "pil",
        batch_size: int = 64,
    ) -> Any:
        """One image per seed and class, pairwise; a single class serves all seeds.

        Returns a list of PIL images, or with ``output="tensor"`` uint8 [B, 3, H, W] on the CPU. Image i depends on
        seed i and class i alone, whatever the batch size. Raises ConfigError for a class or truncation not allowed.
        """
        check_truncation(truncation)
        labels = [self.class_index(name) for name in classes]
        labels = labels * len(seeds) if len(labels) == 1 else labels
        if len(labels) != len(seeds):
            raise ConfigError(f"{len(seeds)} seeds and {len(labels)} classes; give as many of both, or one class")
        size = self.config.generator.latent_dim
        parts = []
        for start in range(0, len(seeds), batch_size):
            z = torch.stack([truncated_latent(seed, size, truncation) for seed in seeds[start : start + batch_size]])
            parts.append(self.images(z, torch.tensor(labels[start : start + batch_size])).cpu())
        images = torch.cat(parts) if parts else torch.empty(0, 3, self.config.resolution, self.config.resolution)
        return images if output == "tensor" else to_pil(images)


def default_device() -> str:
    """A GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def fold_spectral_norm(network: Generator) -> Generator:
    """Replace every normalised weight by its value, in place; the images stay the same."""
    for module in network.modules():
        if isinstance(module, SpectralWeight):
            module.fold()
    return network


def load_generator(
    path: str | Path, device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> LoadedGenerator:
    """Load a run folder, a checkpoint folder or a ``generator.safetensors`` for sampling.

    Raises CheckpointError naming the path and what is wrong with it.
    """
    path = Path(path)
    if path.is_dir():
        network, config, header = _load_folder(path)
    elif path.is_file():
        network, config, header = load_generator_file(path)
    else:
        raise CheckpointError(f"there is no checkpoint at {path}{_nearest_run(path)}")
    try:
        network = network.to(device=device, dtype=dtype)
    except (RuntimeError, AssertionError) as error:  # an unknown name, or a torch that was built without it
        raise ConfigError(f"device {device} cannot be used: {str(error).splitlines()[0]}") from error
    fold_spectral_norm(network)
    return LoadedGenerator(
        network, config, class_names=header.get("class_names"), kimg=header.get("kimg"), source=str(path)
    )


def _nearest_run(path: Path) -> str:
    siblings = [str(item) for item in path.parent.iterdir() if item.is_dir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(str(path), siblings, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _load_folder(path: Path) -> tuple[Generator, Config, dict[str, Any]]:
    """A run folder (its generator.safetensors, else its newest checkpoint) or one checkpoint folder."""
    if (path / "generator.safetensors").is_file():
        return load_generator_file(path / "generator.safetensors")
    checkpoint = path.resolve() if (path / "state.safetensors").is_file() else latest_checkpoint(path / "checkpoints")
    if checkpoint is None:
        raise CheckpointError(f"{path} is neither a run nor a checkpoint: no generator.safetensors, no checkpoints")
    run = checkpoint.parent.parent
    if not (run / "config.yaml").is_file():
        raise CheckpointError(f"{checkpoint} is not inside a run folder: there is no {run / 'config.yaml'}")
    progress = read_state(checkpoint)["progress"]
    config = load_config(run / "config.yaml")
    tensors, _ = read_tensors(checkpoint / "state.safetensors", "average." if config.train.ema_decay else "generator.")
    network = generator_from_state(config, tensors, checkpoint)
    classes = run / "classes.json"
    names = json.loads(classes.read_text()) if classes.is_file() else None
    return network, config, {"class_names": names, "kimg": progress["images"] / 1000}


def parse_numbers(text: str, what: str) -> list[int]:
    """``"0-3,7"`` to [0, 1, 2, 3, 7]; ConfigError for anything else, a reversed range among it."""
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or len(first) > 18 or len(last) > 18:
            raise ConfigError(f"{what} {part.strip()!r}: give numbers and ranges such as 0-7,12")
        if dash and int(last) < int(first):
            raise ConfigError(f"{what} {part.strip()!r} runs backwards; write {last}-{first}")
        if dash and int(last) - int(first) >= MOST_NUMBERS:
            raise ConfigError(f"{what} {part.strip()!r} names more than {MOST_NUMBERS:,} numbers")
        numbers += range(int(first), int(last) + 1) if dash else [int(first)]
    return numbers


def parse_classes(texts: Iterable[str], generator: LoadedGenerator) -> list[int]:
    """Class names, indices and ranges (``207,980-985,volcano``) to indices; ConfigError names what is nearest."""
    indices: list[int] = []
    for text in (part.strip() for item in texts for part in item.split(",")):
        first, dash, last = text.partition("-")
        if dash and first.isdecimal() and last.isdecimal():
            indices += [generator.class_index(number) for number in parse_numbers(text, "class range")]
        else:
            indices.append(generator.class_index(text))
    return indices


def sample_to(
    generator: LoadedGenerator,
    classes: Sequence[int],
    seeds: Sequence[int],
    truncation: float,
    out: Path,
    scale: int = 1,
) -> None:
    """Draw every class with every seed and write a grid (``*.png``, a row per class) or a folder of PNGs."""
    check_output(out)
    check_truncation(truncation)
    if scale < 1:
        raise ConfigError(f"scale is {scale}; it must be 1 or more")
    names = generator.class_names or [str(index) for index in range(generator.num_classes)]
    total = len(classes) * len(seeds)
    with tqdm(total=total, unit="image", disable=not sys.stderr.isatty()) as bar:
        rows = []
        for label in classes:
            rows.append(generator(seeds, [label], truncation, output="tensor"))
            bar.update(len(seeds))
    if out.suffix.lower() == ".png":
        out.parent.mkdir(parents=True, exist_ok=True)
        draw_sheet(rows, [names[label] for label in classes], scale=scale).save(out)
        return
    # Classes that are asked for twice would otherwise write the same files.
    for label, images in zip(classes, rows, strict=True):
        save_folder(out, images, [f"{label:04d}-seed{seed:06d}" for seed in seeds])
