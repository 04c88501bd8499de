"""Check that weights to convert exist, before anything is loaded. Imports no torch."""

from pathlib import Path

from hamgan.errors import ConversionError, hint_at
from hamgan.files import nearest_path


def check_weights_exist(path: Path) -> None:
    """Raise ConversionError, with the nearest path, for what is neither a file nor a TensorFlow checkpoint's prefix."""
    if not path.is_file() and not Path(f"{path}.index").is_file():
        raise ConversionError(f"there is no file {path}{hint_at(nearest_path(path))}")
