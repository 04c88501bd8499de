"""Read names of files and classes as they are meant, whatever system wrote them."""

import re
import unicodedata
from collections.abc import Sequence

DEBRIS = {"__macosx", "@eadir", "@__thumb", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "$recycle.bin"}
"""Folders, in lower case, that macOS, Windows, Synology and QNAP leave beside the user's own."""
DEBRIS |= {"system volume information", "lost+found"}


def is_hidden(part: str) -> bool:
    """Tell whether a file or folder is no part of the user's data: hidden, or what a system keeps for itself."""
    return part.startswith(".") or part.lower() in DEBRIS


def tidy(name: str) -> str:
    """Return a relative path with / and in NFC: Windows writes backslashes and drives, macOS decomposed accents."""
    if not name.isascii():
        name = unicodedata.normalize("NFC", name)
    parts = re.sub(r"^[A-Za-z]:(?=/)", "", name.replace("\\", "/")).split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))


def fold(name: str) -> str:
    """Return what two spellings of a name have in common: composed accents, no capitals."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def decode_names(names: Sequence[str], otherwise: str | None = None) -> list[str]:
    """Decode names of one source of which some are not UTF-8 (they have surrogates in them).

    Chinese Windows writes GBK, some of whose names are UTF-8 by chance. Where that makes no sense they are in the
    encoding ``otherwise``, or stay as they are.
    """
    written = {name: name.encode("utf-8", "surrogateescape") for name in names if not name.isascii()}
    broken = {name: data for name, data in written.items() if any("\udc80" <= letter <= "\udcff" for letter in name)}
    if not broken:
        return list(names)
    if _looks_like_gbk(list(broken.values())):
        chosen = written if _looks_like_gbk(list(written.values())) else broken
        encoding = "gbk"
    elif otherwise is not None:
        chosen, encoding = written, otherwise
    else:
        return list(names)
    return [chosen[name].decode(encoding) if name in chosen else name for name in names]


def _looks_like_gbk(names: Sequence[bytes]) -> bool:
    """Tell GBK from CP437 and Latin-1: the bytes are pairs, and common Chinese characters."""
    try:
        text = [letter for name in names for letter in name.decode("gbk") if not letter.isascii()]
    except UnicodeDecodeError:
        return False
    # The first byte of a common one draws lines and boxes in CP437, which nobody has in a name.
    common = [letter for letter in text if 0xB0 <= letter.encode("gbk")[0] <= 0xF7 and letter.encode("gbk")[-1] > 0xA0]
    boxes = any("\u2500" <= letter <= "\u259f" for name in names for letter in name.decode("cp437"))
    return boxes and len(common) >= 0.8 * len(text)


def class_order(names: Sequence[str]) -> list[str]:
    """Sort class names: as numbers where all are whole numbers, else as torchvision's ImageFolder does."""
    if all(name.isdecimal() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)
