"""A folder that a hub shows well: the generator's file, a sheet of its images and a model card."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from hamgan.checkpoint import CheckpointError, save_generator
from hamgan.config import ConfigError
from hamgan.sampling.generator import LoadedGenerator
from hamgan.sharing.card import SHEET_COLUMNS, SHEET_FILE, SHEET_ROWS, model_card
from hamgan.sharing.hub import GENERATOR_FILE, check_login, require_hub, upload
from hamgan.sharing.public import public_header
from hamgan.sheets import draw_sheet


def save_folder(generator: LoadedGenerator, folder: Path, name: str | None = None, licence: str | None = None) -> None:
    """Write generator.safetensors, sheet.png and README.md (the card) into a new folder; whole or not at all.

    ``name``: of the repository that it is for. Raises ConfigError where the folder has something in it, CheckpointError
    where it cannot be written.
    """
    check_new_folder(folder)
    require_hub("to write a model card")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        save_generator(temporary / GENERATOR_FILE, generator.network, **public_header(generator))
        sample_sheet(generator).save(temporary / SHEET_FILE)
        (temporary / "README.md").write_text(model_card(generator, name or folder.name, licence))
        temporary.rename(folder)  # also onto an empty one
    except OSError as error:
        raise CheckpointError(f"could not write {folder}: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def publish(
    generator: LoadedGenerator, name: str, *, private: bool | None, licence: str | None, token: str | None, message: str
) -> str:
    """Upload what `save_folder` writes as the repository ``owner/name``; returns its address. See `hub.upload`."""
    check_login(token)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "repository"
        save_folder(generator, folder, name, licence)
        return upload(folder, name, private=private, token=token, message=message)


def check_new_folder(folder: Path) -> None:
    """Raise ConfigError for a file, or a folder that has something in it: nothing is ever overwritten."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists already; choose another name, or remove it first")


def sample_sheet(generator: LoadedGenerator) -> Image.Image:
    """A row per class of images of seeds 0, 1, 2, ...: the first that come, not a selection."""
    labels = range(min(SHEET_ROWS, generator.num_classes))
    rows: list[Any] = [generator(range(SHEET_COLUMNS), [label], output="tensor") for label in labels]
    titles = [generator.titles[label].partition(",")[0][:30] for label in labels]
    return draw_sheet(rows, titles, scale=max(1, 96 // generator.config.resolution))
