"""List the kinds of pictures that are read, and say what is left out: one list for training and evaluation."""

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
"""Pillow's names. It knows more, but its EPS reader runs Ghostscript on the file, and exotic ones recognise noise."""
PLUGINS = ("pillow_heif.HeifImagePlugin", "pillow_jxl", "pillow_avif")
"""Modules that teach Pillow a format when they are imported."""
READERS = {
    **dict.fromkeys((".heic", ".heif", ".hif", ".heics", ".heifs"), "pillow-heif"),
    ".jxl": "pillow-jxl-plugin",
    **dict.fromkeys((".avif", ".avifs"), "pillow-avif-plugin"),
}
"""Ending -> the package with which it would be read."""
NAMED = 6
"""This many endings of what is left out are named, the most frequent first."""


@cache
def formats() -> tuple[str, ...]:
    """Return those of `FORMATS` that this Pillow and its installed plugins read."""
    Image.init()
    for module in PLUGINS:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    return tuple(name for name in FORMATS if name in Image.OPEN)


@cache
def endings() -> frozenset[str]:
    """Return the endings of pictures that are read, in small letters with their dot."""
    known = {*formats(), "MPO"}  # cameras' two views in one JPEG, which Pillow's JPEG reader opens
    return frozenset(ending for ending, name in Image.EXTENSION.items() if name in known)


def ending_of(name: str) -> str:
    """Return the ending of a file name in small letters, with its dot; an empty string where there is none.

    What follows a dot and is no short word of ASCII, such as the end of a sentence, is none.
    """
    ending = os.path.splitext(name)[1].lower()
    return ending if re.fullmatch(r"\.[a-z0-9_+~-]{1,12}", ending) else ""


def describe_unread(unread: Mapping[str, int]) -> str:
    """Word how many files of which ending are not read, as in ``16 .heic (pip install pillow-heif), 5 without ending``.

    unread: ending -> files.
    """
    ranked = sorted(unread.items(), key=lambda item: (item[0] not in READERS, -item[1], item[0]))
    parts = [f"{count:,} {ending or 'without ending'}{_advice(ending)}" for ending, count in ranked[:NAMED]]
    if rest := ranked[NAMED:]:
        parts.append(f"{sum(count for _, count in rest):,} with {len(rest)} other endings")
    return ", ".join(parts)


def describe_left_out(unclassed: int, unread: Mapping[str, int]) -> str:
    """Word what of a source is not used: pictures without a class, files that are not read; empty where all is.

    unread: ending -> files.
    """
    parts = [f"{unclassed:,} pictures outside any class folder"] if unclassed else []
    return ", ".join([*parts, describe_unread(unread)] if unread else parts)


def _advice(ending: str) -> str:
    return f" (pip install {READERS[ending]})" if ending in READERS else ""


def count_endings(names: list[str]) -> Counter[str]:
    """Count the endings of file names."""
    return Counter(map(ending_of, names))
