"""Check that weights to convert exist, before anything is loaded. Imports no torch."""

from pathlib import Path

from hamgan.errors import ConversionError, hint_at
from hamgan.files import nearest_path


def is_tensorflow_checkpoint(prefix: Path) -> bool:
    """Return whether this is the prefix of a TensorFlow checkpoint, such as ``model.ckpt-1000000``."""
    return Path(f"{prefix}.index").is_file()


def check_file_exists(path: Path) -> None:
    """Raise ConversionError, with the nearest path, for what is not a file."""
    if not path.is_file():
        raise ConversionError(f"there is no file {path}{hint_at(nearest_path(path))}")
