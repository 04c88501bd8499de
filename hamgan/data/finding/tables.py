"""Read sources by row number: CIFAR, HDF5 files and, with an optional package, Hugging Face `datasets`."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from hamgan.data.finding.hdf5 import is_hdf5, list_hdf5, read_hdf5
from hamgan.data.finding.locations import download_folder
from hamgan.data.finding.picture import Listing, Picture
from hamgan.data.source import name_some
from hamgan.errors import DataError, one_line

CIFAR = {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}


def is_table(source: str) -> bool:
    """Return whether a source is read by row number."""
    return source in CIFAR or source.startswith("hf:") or is_hdf5(Path(source).expanduser())


@lru_cache(maxsize=2)
def open_cifar(source: str, split: str) -> Any:
    """Open torchvision's data set (``.data`` uint8 [N, 32, 32, 3], ``.targets``, ``.classes``), downloading it once."""
    import torchvision.datasets

    kind = getattr(torchvision.datasets, CIFAR[source])
    folder = download_folder()
    try:
        try:
            return kind(folder, train=split == "train", download=False)
        except RuntimeError:
            return kind(folder, train=split == "train", download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{source} is not in {folder} and cannot be downloaded ({error}); put {kind.filename} there, "
            "or set HAMGAN_DATA to the folder that has it"
        ) from error


@lru_cache(maxsize=2)
def _open_hub(source: str) -> dict[str, tuple[Any, str, str]]:
    """Open a data set of the hub; returns split -> (rows with encoded pictures, image column, label column)."""
    try:
        import datasets
    except ImportError as error:
        raise DataError("hf: sources need the package `datasets`; install it with: pip install datasets") from error
    name, _, config = source.removeprefix("hf:").partition("@")
    try:
        loaded = datasets.load_dataset(name, config or None)
    except Exception as error:  # the library raises nearly anything for a wrong name or a missing network
        raise DataError(f"Hugging Face data set {name} cannot be loaded: {one_line(error)}") from error
    found = {}
    for ours, theirs in (("train", ("train",)), ("val", ("validation", "val", "valid", "test"))):
        split = next((other for other in theirs if other in loaded), None)
        if split is None:
            continue
        features = loaded[split].features
        images = [column for column, kind in features.items() if isinstance(kind, datasets.Image)]
        labels = [column for column, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
        if not images or not labels:
            raise DataError(
                f"{name} ({split}) needs an Image and a ClassLabel column; it has "
                + ", ".join(f"{column}: {type(kind).__name__}" for column, kind in features.items())
            )
        rows = loaded[split].cast_column(images[0], datasets.Image(decode=False))
        found[ours] = (rows, images[0], labels[0])
    if "train" not in found:
        raise DataError(f"{name} has no train split; it has {', '.join(map(str, loaded))}")
    return found


def list_tables(source: str, val_source: str | None = None) -> Listing:
    """List all rows of a table source; ``val_source``, another table source, replaces its val split.

    Raises DataError if the second one has classes that the first one lacks.
    """
    listing = list_table(source)
    if val_source is None:
        return listing
    if not is_table(val_source):
        raise DataError(f"{source} is read by rows, so its val split must be too; {val_source} is not")
    held_out = list_table(val_source)
    if unknown := [name for name in held_out.class_names if name not in listing.class_names]:
        raise DataError(f"{val_source} has classes that {source} lacks: {name_some(unknown)}")
    numbers = [listing.class_names.index(name) for name in held_out.class_names]
    pictures = held_out.pictures["val"] or held_out.pictures["train"]
    val = sorted((picture._replace(label=numbers[picture.label]) for picture in pictures), key=lambda item: item.label)
    return replace(listing, pictures={"train": listing.pictures["train"], "val": val}, has_splits=True)


def list_table(source: str) -> Listing:
    """List all rows of a table source."""
    if is_hdf5(path := Path(source).expanduser()):
        return list_hdf5(path)
    if source in CIFAR:
        sets = {split: open_cifar(source, split) for split in ("train", "val")}
        labels = {split: list(data.targets) for split, data in sets.items()}
        names = list(sets["train"].classes)
    else:
        hub = _open_hub(source)
        labels = {split: list(rows[column]) for split, (rows, _, column) in hub.items()}
        rows, _, column = hub["train"]
        names = list(rows.features[column].names)
    pictures = {
        split: [
            Picture(f"{split}/{row:07d}", int(label), ("row", source, split, row))
            for row, label in enumerate(labels.get(split, []))
            if label is not None and label >= 0
        ]
        for split in ("train", "val")
    }
    return Listing(names, pictures)


def read_row(source: str, split: str, row: int) -> bytes:
    """Read the encoded picture of a row; those of CIFAR and HDF5 as PPM."""
    if source in CIFAR:
        pixels: np.ndarray = open_cifar(source, split).data[row]
        return b"P6 32 32 255\n" + pixels.tobytes()
    if not source.startswith("hf:"):
        return read_hdf5(source, row)
    rows, image, _ = _open_hub(source)[split]
    value: dict[str, Any] | None = rows[row][image]
    if value is None:
        raise DataError("has no picture in this row")
    data: bytes | None = value["bytes"]
    return data if data is not None else Path(value["path"]).read_bytes()
