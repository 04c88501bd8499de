"""Read weight files of other projects without running any code in them."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hamgan.checkpoint import GENERATOR_FORMAT
from hamgan.checkpoint.pickles import PICKLES, first_line, read_pickle
from hamgan.checkpoint.tensors import read_tensors
from hamgan.convert.biggan import convert_biggan, recognise_biggan
from hamgan.convert.mapping import Conversion
from hamgan.convert.official import convert_hamgan_tf, split_networks
from hamgan.convert.places import check_file_exists, is_tensorflow_checkpoint
from hamgan.errors import ConversionError


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read tensors by name from .safetensors, a PyTorch file, an .npz of arrays or a TensorFlow checkpoint.

    A TensorFlow checkpoint is named by its prefix (``model.ckpt-1000000``) and needs the tensorflow package. Raises
    ConversionError for a file that is missing, damaged, of another kind, or that holds anything but tensors.
    """
    if is_tensorflow_checkpoint(path):
        return _read_tensorflow(path)
    check_file_exists(path)
    if path.suffix == ".safetensors":
        tensors, metadata = read_tensors(path)
        if metadata.get("format", "").startswith(GENERATOR_FORMAT.split("-")[0]):
            raise ConversionError(f"{path} is a HamGAN file already; it needs no conversion")
        return tensors
    if path.suffix == ".npz":
        return _read_npz(path)
    if path.suffix in PICKLES:
        return _read_pickle(path)
    raise ConversionError(
        f"{path} has an unknown file extension; known are .safetensors, .npz, {', '.join(PICKLES)} and the prefix "
        "of a TensorFlow checkpoint"
    )


def _read_pickle(path: Path) -> dict[str, Tensor]:
    content = read_pickle(path)
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    for name, value in content.items():
        if name not in tensors:
            raise ConversionError(
                f"{path} is no state dict: its entry {name!r} is a {type(value).__name__}, not a tensor; convert the "
                "networks' own files (G.pth, G_ema.pth, D.pth)"
            )
    return tensors


def _read_npz(path: Path) -> dict[str, Tensor]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(np.array(arrays[name])) for name in arrays.files}
    except Exception as error:  # NumPy and zipfile raise nearly anything for damaged bytes
        raise ConversionError(f"{path} is damaged or holds more than plain arrays: {first_line(error)}") from error


def _read_tensorflow(prefix: Path) -> dict[str, Tensor]:
    try:
        # An optional package without types, and absent from most machines.
        import tensorflow  # type: ignore[import-untyped, import-not-found, unused-ignore]
    except ImportError as error:
        raise ConversionError(
            f"{prefix} is a TensorFlow checkpoint, which needs the tensorflow package; install it, or write "
            "an .npz of name -> array where it is installed: reader = tf.train.load_checkpoint(prefix); "
            "np.savez(path, **{name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()})"
        ) from error
    try:
        reader = tensorflow.train.load_checkpoint(str(prefix))
        names = reader.get_variable_to_shape_map()
        return {name: torch.from_numpy(np.array(reader.get_tensor(name))) for name in names}
    except (tensorflow.errors.OpError, RuntimeError, ValueError, TypeError) as error:
        raise ConversionError(f"{prefix} is a damaged TensorFlow checkpoint: {first_line(error)}") from error


def convert_file(path: Path) -> tuple[str, list[Conversion]]:
    """Return the kind of a file and its networks, not yet checked for leftovers; raises ConversionError."""
    tensors = read_weights(path)
    official = split_networks(tensors)
    try:
        if official:
            return "hamgan-tf", [convert_hamgan_tf(network, part) for network, part in official.items()]
        if recognise_biggan(set(tensors)):
            return "biggan-pytorch", [convert_biggan(tensors)]
    except ConversionError as error:
        raise ConversionError(f"{path}: {error}") from error
    shown = ", ".join(sorted(tensors)[:3]) or "nothing"
    raise ConversionError(
        f"{path} is neither of BigGAN-PyTorch (blocks.0.0.conv1.weight ...; BigGAN-deep and the TF-Hub ports are other "
        f"architectures) nor of the official HamGAN (generator/g_block1/...); it holds {shown}"
    )
