"""Weights of the reference implementations, from the golden files."""

import numpy as np
import torch
from conftest import golden_file
from safetensors.torch import load_file
from torch import Tensor

Variables = dict[str, Tensor]


def weights(name: str) -> Variables:
    return load_file(golden_file(f"biggan_pytorch/{name}.safetensors"))


def official_variables(name: str) -> Variables:
    with np.load(golden_file(f"hamgan_tf/{name}.npz")) as arrays:
        return {key[4:]: torch.from_numpy(arrays[key]) for key in arrays.files if key.startswith("var/")}
