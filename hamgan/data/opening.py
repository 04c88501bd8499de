"""Open a set of images by name or path."""

import logging
from pathlib import Path

from hamgan.config import DataConfig
from hamgan.data.fashion import RESOLUTION as FASHION_RESOLUTION
from hamgan.data.fashion import FashionSource
from hamgan.data.finding.locations import check_location, namesake_notes
from hamgan.data.photos import PhotoSource
from hamgan.data.pictures import PictureSource
from hamgan.data.selection import SelectedSource
from hamgan.data.source import SPLITS, ImageSource
from hamgan.data.store import StoreSource, read_manifest
from hamgan.errors import DataError

log = logging.getLogger(__name__)

EMBEDDED: dict[str, type[PhotoSource] | type[FashionSource]] = {"photos": PhotoSource, "fashion": FashionSource}
"""Data sets in this package or in scikit-image."""
OWN_RESOLUTIONS = {"fashion": FASHION_RESOLUTION, "cifar10": 32, "cifar100": 32}
ANY_RESOLUTION = 128
"""Default resolution of sources that are resized to any."""


def open_training(data: DataConfig, resolution: int) -> ImageSource:
    """Open the training images of a configuration: its source, or its selection of it."""
    source = open_source(data.source, data.split, resolution)
    return SelectedSource(source, data.selection) if data.selection else source


def open_source(source: str, split: str, resolution: int, *, as_reference: bool = False) -> ImageSource:
    """Open a training or reference set at one resolution (pixels).

    source: ``photos``, ``fashion``, a prepared store, or pictures that are decoded on every read: a folder of class
    folders (also with ``train/`` and ``val/`` above them), tar and zip files, WebDataset shards
    (``shards-{000..099}.tar``, also at https:// or s3:// addresses), HDF5 files, ``cifar10``, ``cifar100``,
    ``hf:NAME``. With ``as_reference`` a folder or file without splits is used whole, and empty class folders are
    allowed. Raises DataError for an unknown name or a missing folder, split or resolution.
    """
    if split not in SPLITS:
        raise DataError(f"unknown split `{split}`; allowed: {', '.join(SPLITS)}")
    check_location(source)
    if source in EMBEDDED:
        for note in namesake_notes(source):
            log.warning("data: %s", note)
        return EMBEDDED[source](split, resolution)
    path = Path(source).expanduser()
    if (path / "manifest.json").is_file() or (path / "work" / "plan.json").is_file():
        return StoreSource(path, split, resolution)
    return PictureSource(source, split, resolution, as_reference=as_reference)


def default_resolution(source: str) -> int:
    """Return the resolution of a source's images in pixels, or `ANY_RESOLUTION` if they are resized to any."""
    store = Path(source).expanduser()
    if (store / "manifest.json").is_file():
        return int(read_manifest(store)["preparation"]["resolution"])
    return OWN_RESOLUTIONS.get(source, ANY_RESOLUTION)
