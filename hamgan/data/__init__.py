"""Training and reference images: embedded photographs, prepared stores, folders of class folders."""

from hamgan.data.loader import BatchLoader, image_order
from hamgan.data.sources import SPLITS, DataError, ImageSource, check_source, class_histogram, open_source

__all__ = [
    "SPLITS",
    "BatchLoader",
    "DataError",
    "ImageSource",
    "check_source",
    "class_histogram",
    "image_order",
    "open_source",
]
