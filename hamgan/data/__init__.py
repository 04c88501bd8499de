"""Read training and reference images: embedded photographs, prepared stores, folders, archives, public data sets."""

from hamgan.data.loader import BatchLoader, image_order
from hamgan.data.opening import open_source
from hamgan.data.source import SPLITS, ImageSource, check_source, class_histogram

__all__ = [
    "SPLITS",
    "BatchLoader",
    "ImageSource",
    "check_source",
    "class_histogram",
    "image_order",
    "open_source",
]
