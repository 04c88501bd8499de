"""Open a set of labelled pictures by name or path."""

from hamgan.data.finding.locations import check_place
from hamgan.errors import DataError
from hamgan.segmentation.config import DATA_SETS, DataConfig
from hamgan.segmentation.data.folders import FolderSource
from hamgan.segmentation.data.land import LandSource
from hamgan.segmentation.data.mosaic import MosaicSource
from hamgan.segmentation.data.source import SegmentationSource

HELD_OUT = "val"


def open_source(data: DataConfig, split: str | None = None) -> SegmentationSource:
    """Open a split (None: that of the configuration) of what ``data.source`` names; raises DataError (a sentence)."""
    split = data.split if split is None else split
    check_place(data.source, DATA_SETS)
    if data.source in ("land", "land17"):
        return LandSource(split, detailed=data.source == "land17")
    if data.source == "mosaic":
        return MosaicSource(split)
    return FolderSource(data.source, split, data)


def check_classes(source: SegmentationSource, class_names: list[str]) -> None:
    """Raise DataError unless a source has the classes that a segmenter was trained on, in the same order."""
    if source.class_names != class_names:
        different = next(
            (pair for pair in zip(source.class_names, class_names, strict=False) if pair[0] != pair[1]), None
        )
        detail = f"; where it has `{different[1]}`, the data has `{different[0]}`" if different else ""
        raise DataError(
            f"{source.name} has {len(source.class_names)} classes and the segmenter {len(class_names)}, and they are "
            f"not the same{detail}"
        )
