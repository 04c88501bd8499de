"""Open the real images that samples are measured against."""

from pathlib import Path

from hamgan.data import open_source
from hamgan.data.finding.folders import split_folders
from hamgan.errors import ConfigError, UnclassedError
from hamgan.evaluation.inputs.images import ArrayImages, FolderImages, Images, SourceImages
from hamgan.evaluation.inputs.places import check_place_of_reference


def open_reference_images(reference: str | Path, split: str, resolution: int) -> Images:
    """Open the images of a reference: a source of `hamgan.data`, an ``.npz`` of images, or pictures without classes.

    Class folders are read as in training. Raises ConfigError if there is nothing at that path, it lacks the split, or
    its images have another resolution.
    """
    name, path = str(reference), Path(reference).expanduser()
    if path.suffix == ".npz" and path.is_file():
        return ArrayImages(path)
    check_place_of_reference(name)
    try:
        source = open_source(name, split, resolution, as_reference=True)
    except UnclassedError as error:
        if not path.exists():
            raise
        images = _open_whole(path, split, error)
    else:
        return SourceImages(source, name, split if source.split == split else None)
    if images.size != (resolution, resolution):
        width, height = images.size
        raise ConfigError(f"{path} has images of {width}x{height} pixels, the samples have {resolution}x{resolution}")
    return images


def _open_whole(path: Path, split: str, reason: UnclassedError) -> FolderImages:
    """Open pictures without class folders: those of the split, or all if there are no splits."""
    folders = split_folders(path) if path.is_dir() else {}
    if not folders or folders == {"train": path}:
        return FolderImages(path)
    if split not in folders:
        raise ConfigError(f"{path} has no split {split!r}; it has {', '.join(folders)}") from reason
    return FolderImages(folders[split], split)
