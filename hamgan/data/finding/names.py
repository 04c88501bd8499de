"""Normalise names of files and classes written by different systems."""

import re
import unicodedata
from collections.abc import Sequence

DEBRIS = {"__macosx", "@eadir", "@__thumb", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "$recycle.bin"}
"""Names, in lower case, of folders that macOS, Windows, Synology and QNAP add to the user's."""
DEBRIS |= {"system volume information", "lost+found"}


def is_hidden(part: str) -> bool:
    """Return whether a file or folder is hidden or made by the operating system."""
    return part.startswith(".") or part.lower() in DEBRIS


def normalise_path(name: str) -> str:
    """Return a relative path with slashes in NFC; Windows has backslashes and drives, macOS decomposed accents."""
    if not name.isascii():
        name = unicodedata.normalize("NFC", name)
    parts = re.sub(r"^[A-Za-z]:(?=/)", "", name.replace("\\", "/")).split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))


def fold(name: str) -> str:
    """Return a name in NFC and case-folded, for comparison."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def decode_names(names: Sequence[str], otherwise: str | None = None) -> list[str]:
    """Decode the names of one source, some of which are not UTF-8 (they contain surrogates).

    They are decoded as GBK, which Chinese Windows writes, if that makes sense, else in the encoding ``otherwise``, or
    stay unchanged.
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
    """Return whether names are GBK, not CP437 or Latin-1: their bytes are pairs of common Chinese characters."""
    try:
        text = [letter for name in names for letter in name.decode("gbk") if not letter.isascii()]
    except UnicodeDecodeError:
        return False
    # The first byte of a common character is a line or box in CP437, which names do not contain.
    common = [letter for letter in text if 0xB0 <= letter.encode("gbk")[0] <= 0xF7 and letter.encode("gbk")[-1] > 0xA0]
    boxes = any("\u2500" <= letter <= "\u259f" for name in names for letter in name.decode("cp437"))
    return boxes and len(common) >= 0.8 * len(text)


def class_order(names: Sequence[str]) -> list[str]:
    """Sort class names: as numbers if all are integers, else like torchvision's ImageFolder."""
    if all(name.isdecimal() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)
