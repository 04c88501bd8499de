"""Open the real images that samples are measured against."""

from pathlib import Path

from hamgan.data import open_source
from hamgan.data.finding.folders import split_folders
from hamgan.errors import ConfigError, DataError
from hamgan.evaluation.inputs.images import FolderImages, Images, SourceImages

NAMED_SOURCES = ("photos", "cifar10", "cifar100")


def open_reference_images(reference: str | Path, split: str, resolution: int) -> Images:
    """Open the images of a reference: any source of `hamgan.data`, by name or path, or a folder of equal sizes.

    Raises ConfigError when there is nothing at that path.
    """
    name, path = str(reference), Path(reference)
    if not path.is_dir():
        try:
            return SourceImages(open_source(name, split, resolution), name, split)
        except DataError as error:
            known = ", ".join(NAMED_SOURCES)
            raise ConfigError(
                f"there is no reference at {name}: give a prepared store, a folder, an archive, a file of statistics "
                f"or one of {known} ({error})"
            ) from error
    if (path / "manifest.json").is_file():
        return SourceImages(open_source(name, split, resolution), name, split)
    folders = split_folders(path)
    if folders == {"train": path}:  # no splits: the folder as a whole is the reference
        images, kept = FolderImages(path), "train"
    elif split in folders:
        images, kept = FolderImages(folders[split], split), split
    else:
        raise ConfigError(f"{path} has no split {split!r}; it has {', '.join(folders)}")
    if images.size == (resolution, resolution):
        return images
    if images.class_names is None:
        width, height = images.size
        raise ConfigError(f"{path} has images of {width}x{height} pixels, the samples have {resolution}x{resolution}")
    return SourceImages(open_source(name, kept, resolution), name, images.split)
