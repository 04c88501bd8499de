"""Load weights of the reference implementations from the golden files."""

import numpy as np
import torch
from safetensors.torch import load_file
from support.paths import golden_file
from torch import Tensor

from hamgan.convert.biggan import biggan_pytorch
from hamgan.networks import Discriminator, Generator

Variables = dict[str, Tensor]


def weights(name: str) -> Variables:
    return load_file(golden_file(f"biggan_pytorch/{name}.safetensors"))


def official_variables(name: str) -> Variables:
    with np.load(golden_file(f"hamgan_tf/{name}.npz")) as arrays:
        return {key[4:]: torch.from_numpy(arrays[key]) for key in arrays.files if key.startswith("var/")}


def load_io(name: str) -> dict[str, Tensor]:
    with np.load(golden_file(f"biggan_pytorch/{name}_io.npz")) as arrays:
        return {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays.files}


def generator_of(tag: str) -> Generator:
    config, state = biggan_pytorch(weights(f"{tag}_g"))
    generator = Generator(config.generator, config.resolution, config.data.num_classes or 0)
    generator.load_state_dict(state)
    return generator


def discriminator_of(tag: str) -> Discriminator:
    config, state = biggan_pytorch(weights(f"{tag}_d"))
    discriminator = Discriminator(config.discriminator, config.resolution, config.data.num_classes or 0)
    discriminator.load_state_dict(state)
    return discriminator
