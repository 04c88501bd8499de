"""Write a folder for a hub: generator file, sheet of images and model card."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from hamgan.checkpoint import save_generator
from hamgan.errors import CheckpointError
from hamgan.files import temporary_name
from hamgan.sampling import LoadedGenerator
from hamgan.sampling.hub import GENERATOR_FILE, check_login, require_hub, upload
from hamgan.sampling.sheets import draw_sheet
from hamgan.sharing.card import SHEET_COLUMNS, SHEET_FILE, SHEET_ROWS, model_card
from hamgan.sharing.onnx import check_new
from hamgan.sharing.public import public_header


def save_pretrained(
    generator: LoadedGenerator, folder: str | Path, *, license: str | None = None, name: str | None = None
) -> None:
    """Write a new folder for a hub, whole or not at all: the generator file, a model card and a sheet.

    ``license`` is the hub's identifier of the weights' license, such as ``mit``; ``name`` is the repository that the
    folder is for. The weights keep this generator's type and include the spectral norm; paths on this machine are cut
    to their last part. Raises ConfigError if the folder is not empty or huggingface_hub is missing, CheckpointError if
    it cannot be written.

    Example:
        >>> hamgan.save_pretrained(load_generator(run), folder, license="cc0-1.0")
        >>> load_generator(folder)(seeds=0, classes="cat")
        [<PIL.Image.Image image mode=RGB size=32x32 at ...>]
    """
    folder = Path(folder)
    with new_folder(folder) as temporary:
        save_generator(temporary / GENERATOR_FILE, generator.network, **public_header(generator))
        sample_sheet(generator).save(temporary / SHEET_FILE)
        (temporary / "README.md").write_text(model_card(generator, name or folder.name, license))


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``folder`` when the context ends without an error.

    Raises ConfigError if ``folder`` is not empty or huggingface_hub is missing, CheckpointError if it cannot be
    written.
    """
    check_new(folder)
    require_hub("to write a model card")
    temporary = temporary_name(folder)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        temporary.rename(folder)  # also onto an empty one
    except OSError as error:
        raise CheckpointError(f"could not write {folder}: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def push_to_hub(
    generator: LoadedGenerator,
    repo_id: str,
    *,
    private: bool | None = None,
    license: str | None = None,
    token: str | None = None,
    commit_message: str = "Upload a HamGAN generator",
) -> str:
    """Publish the folder of `save_pretrained` as the repository ``owner/name``, created if needed.

    ``private`` applies to a new repository; None uses the owner's setting. Returns the URL. Raises CheckpointError
    without a token or a network, or if the hub refuses.
    """
    check_login(token)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "repository"
        save_pretrained(generator, folder, license=license, name=repo_id)
        return upload(folder, repo_id, private=private, token=token, message=commit_message)


def sample_sheet(generator: LoadedGenerator) -> Image.Image:
    """Draw an uncurated sheet: a row per class, of seeds 0, 1, 2, ..."""
    labels = range(min(SHEET_ROWS, generator.num_classes))
    rows: list[Any] = [generator(range(SHEET_COLUMNS), [label], output="tensor") for label in labels]
    titles = [generator.titles[label].partition(",")[0][:30] for label in labels]
    return draw_sheet(rows, titles, columns=[f"seed {seed}" for seed in range(SHEET_COLUMNS)])
