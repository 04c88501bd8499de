"""Read PyTorch's pickled files without running any code in them."""

import argparse
import pickle
from pathlib import Path

import torch

from hamgan.errors import ConversionError

PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".tar")


def read_pickle(path: Path) -> dict[object, object]:
    """Return the dictionary in a PyTorch file.

    Reads only tensors, plain values and the command-line options that trainers store with them. Raises ConversionError
    for a file that is damaged, needs other code, or holds no dictionary.
    """
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ConversionError(
            f"{path} is not a plain file of tensors; other code in it is not run. If you trust it, write its "
            "state_dict as .safetensors first"
        ) from error
    except Exception as error:  # the unpickler raises nearly anything for damaged bytes
        raise ConversionError(f"{path} is damaged or no PyTorch file: {first_line(error)}") from error
    if not isinstance(content, dict) or not content:
        raise ConversionError(f"{path} holds no state dict but a {type(content).__name__}")
    return content


def first_line(error: Exception) -> str:
    """Return the first line of an error, or its type if the message is only a number or key."""
    line = (str(error).strip().splitlines() or [""])[0][:200]
    return line if " " in line else type(error).__name__
