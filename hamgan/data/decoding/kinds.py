"""List the supported picture formats, and describe files that are not read, for training and evaluation."""

import contextlib
import importlib
import os
import re
from collections import Counter
from collections.abc import Mapping
from functools import cache

from PIL import Image

FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "DIB", "PPM", "AVIF", "JPEG2000", "ICO", "TGA"),
    *("QOI", "PCX", "SGI", "PSD", "DDS", "ICNS", "HEIF", "JXL"),
)
"""Pillow's names of the supported formats. Others are excluded: EPS runs Ghostscript, and rare ones accept noise."""
PLUGINS = ("pillow_heif.HeifImagePlugin", "pillow_jxl", "pillow_avif")
"""Modules that add a format to Pillow when they are imported."""
READERS = {
    **dict.fromkeys((".heic", ".heif", ".hif", ".heics", ".heifs"), "pillow-heif"),
    ".jxl": "pillow-jxl-plugin",
    **dict.fromkeys((".avif", ".avifs"), "pillow-avif-plugin"),
}
"""File extension -> package that reads it."""
NAMED = 6
"""Number of file extensions that are listed, the most frequent first."""


@cache
def formats() -> tuple[str, ...]:
    """Return the formats of `FORMATS` that this Pillow and its installed plugins read."""
    Image.init()
    for module in PLUGINS:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    return tuple(name for name in FORMATS if name in Image.OPEN)


@cache
def endings() -> frozenset[str]:
    """Return the file extensions of supported pictures, in lower case with their dot."""
    known = {*formats(), "MPO"}  # two views in one JPEG, opened by Pillow's JPEG reader
    return frozenset(ending for ending, name in Image.EXTENSION.items() if name in known)


def ending_of(name: str) -> str:
    """Return the extension of a file name in lower case, with its dot; an empty string if there is none.

    Only a short ASCII word after the last dot counts as one.
    """
    ending = os.path.splitext(name)[1].lower()
    return ending if re.fullmatch(r"\.[a-z0-9_+~-]{1,12}", ending) else ""


def describe_unread(unread: Mapping[str, int]) -> str:
    """Describe files that are not read, such as ``16 .heic (pip install pillow-heif), 5 without ending``.

    ``unread`` maps extensions to numbers of files.
    """
    ranked = sorted(unread.items(), key=lambda item: (item[0] not in READERS, -item[1], item[0]))
    parts = [f"{count:,} {ending or 'without ending'}{_advice(ending)}" for ending, count in ranked[:NAMED]]
    if rest := ranked[NAMED:]:
        parts.append(f"{sum(count for _, count in rest):,} with {len(rest)} other endings")
    return ", ".join(parts)


def describe_left_out(unclassed: int, unread: Mapping[str, int]) -> str:
    """Describe the unused files of a source: pictures without a class and files that are not read; "" if none.

    ``unread`` maps extensions to numbers of files.
    """
    parts = [f"{unclassed:,} pictures outside any class folder"] if unclassed else []
    return ", ".join([*parts, describe_unread(unread)] if unread else parts)


def _advice(ending: str) -> str:
    return f" (pip install {READERS[ending]})" if ending in READERS else ""


def count_endings(names: list[str]) -> Counter[str]:
    """Count the extensions of file names."""
    return Counter(map(ending_of, names))
