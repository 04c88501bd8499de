"""Write tensors to safetensors files, and read them without running any code."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hamgan.errors import CheckpointError, one_line
from hamgan.files import fsync, recognise_file, share_as_usual, temporary_name


def to_host(tensors: Mapping[str, Tensor], copy: bool = False) -> dict[str, Tensor]:
    """Return contiguous tensors in main memory; with ``copy`` they share no memory with the originals."""
    # safetensors stores contiguous tensors; the memory layout is restored by the owner.
    return {key: _to_host(value.detach(), copy) for key, value in tensors.items()}


def _to_host(value: Tensor, copy: bool) -> Tensor:
    host = value.contiguous().cpu()  # made contiguous before the copy, since a GPU's memory is faster
    return host.clone() if copy and host.data_ptr() == value.data_ptr() else host


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write tensors in main memory as safetensors and sync the file; OSError if it cannot be written."""
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:  # raised for a full disk
        raise OSError(one_line(error)) from error
    share_as_usual(path)
    fsync(path)


def write_file(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors and metadata as one safetensors file, whole or not at all.

    Raises CheckpointError if it cannot be written; an older file is then untouched.
    """
    temporary = temporary_name(path)
    try:
        save_tensors(to_host(tensors), temporary, metadata)
        temporary.replace(path)
    except OSError as error:
        raise CheckpointError(f"could not write {path}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def load_checked(network: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Load tensors into a network on the meta device; CheckpointError if names or shapes do not fit.

    They are compared before memory is allocated, as a damaged header may ask for too much.
    """
    expected = {name: value.shape for name, value in network.state_dict().items()}
    found = {name: value.shape for name, value in tensors.items()}
    wrong = sorted(name for name in expected | found if expected.get(name) != found.get(name))
    if wrong:
        examples = [f"{name} {list(found.get(name, ()))} for {list(expected.get(name, ()))}" for name in wrong[:3]]
        raise CheckpointError(f"{len(wrong)} weights in {path} do not fit its configuration: {', '.join(examples)}")
    network.to_empty(device="cpu").load_state_dict(tensors)


def read_metadata(path: Path) -> dict[str, str]:
    """Read the metadata of a safetensors file without its tensors; raises CheckpointError."""
    return read_tensors(path, "\0")[1]  # no name begins like this


def read_tensors(path: Path, prefix: str = "") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors with a prefix, without it in their names, and the metadata; raises CheckpointError."""
    try:
        with safe_open(path, framework="pt") as file:
            keys = [key for key in file.keys() if key.startswith(prefix)]  # noqa: SIM118
            return {key[len(prefix) :]: file.get_tensor(key) for key in keys}, file.metadata() or {}
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        if known := recognise_file(path):
            raise CheckpointError(f"{path} is {known}") from error
        raise CheckpointError(f"{path} is not a readable safetensors file: {one_line(error)}") from error
