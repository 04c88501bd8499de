"""Open a set of labelled pictures by name or path."""

from hamgan.data.finding.locations import check_location
from hamgan.errors import DataError
from hamgan.segmentation.config import DATA_SETS
from hamgan.segmentation.data.folders import FolderSource
from hamgan.segmentation.data.land import LandSource
from hamgan.segmentation.data.mosaic import MosaicSource
from hamgan.segmentation.data.source import SegmentationSource
from hamgan.segmentation.schema import DataConfig

HELD_OUT = "val"


def open_source(data: DataConfig, split: str | None = None) -> SegmentationSource:
    """Open a split (None: the configuration's) of the source ``data.source``; raises DataError if that fails."""
    split = data.split if split is None else split
    check_location(data.source, DATA_SETS)
    if data.source in DATA_SETS:
        own = DataConfig()
        for name in ("layout", "classes"):
            if getattr(data, name) != getattr(own, name):
                raise DataError(f"data.{name} is for folders; {data.source} has classes of its own")
    if data.source in ("land", "land17"):
        return LandSource(split, detailed=data.source == "land17")
    if data.source == "mosaic":
        return MosaicSource(split)
    return FolderSource(data.source, split, data)


def check_classes(source: SegmentationSource, classes: int, class_names: list[str] | None) -> None:
    """Raise DataError unless a source has the classes that a segmenter was trained on, in the same order.

    If the names are not known (None), only the numbers are compared.
    """
    if len(source.class_names) == classes and class_names in (None, source.class_names):
        return
    pairs = zip(source.class_names, class_names or [], strict=False)
    different = next((pair for pair in pairs if pair[0] != pair[1]), None)
    detail = f"; where it has `{different[1]}`, the data has `{different[0]}`" if different else ""
    raise DataError(
        f"{source.name} has {len(source.class_names)} classes and the segmenter {classes}, and they are not the same"
        f"{detail}"
    )
