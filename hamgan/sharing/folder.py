"""Write a folder that a hub shows well: the generator's file, a sheet of its images and a model card."""

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
    """Write a new folder as a hub shows it, whole or not at all: the generator's file, a model card and a sheet.

    ``license`` is the hub's short name for that of the weights, such as ``mit``; ``name`` is the repository that the
    folder is for. The weights have this generator's type, spectral norm in them; paths on this machine are cut to their
    last part. Raises ConfigError for a folder that has something in it and where huggingface_hub is missing,
    CheckpointError where the disk takes nothing.

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
    """Give a folder to write files and a model card into, which takes its place whole or not at all.

    Raises ConfigError for a folder that has something in it and where huggingface_hub is missing, CheckpointError
    where the disk takes nothing.
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
    """Publish what `save_pretrained` writes as the repository ``owner/name``, made where there is none.

    ``private`` is for one that is made; None leaves it to its owner's setting. Returns the address. Raises
    CheckpointError, a sentence, without a token or a network and for what else the hub refuses.
    """
    check_login(token)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "repository"
        save_pretrained(generator, folder, license=license, name=repo_id)
        return upload(folder, repo_id, private=private, token=token, message=commit_message)


def sample_sheet(generator: LoadedGenerator) -> Image.Image:
    """Draw a row per class of seeds 0, 1, 2, ...: the first that come, not a selection."""
    labels = range(min(SHEET_ROWS, generator.num_classes))
    rows: list[Any] = [generator(range(SHEET_COLUMNS), [label], output="tensor") for label in labels]
    titles = [generator.titles[label].partition(",")[0][:30] for label in labels]
    return draw_sheet(rows, titles, columns=[f"seed {seed}" for seed in range(SHEET_COLUMNS)])
