"""Describe the pictures of a source: where the bytes of each are, its class and its split."""

import hashlib
import os
from dataclasses import dataclass, field
from typing import NamedTuple

from hamgan.data.finding.archives import Place


class Picture(NamedTuple):
    """Describe one candidate: where its bytes are, and its class."""

    key: str
    """Name for messages and for the hash that splits train from val; unique within the source."""
    label: int
    place: Place
    """("file", path, bytes), ("range", path, offset, bytes), ("zip", path, member, bytes) or
    ("row", source, split, row)."""


@dataclass
class Listing:
    """List all candidates of a source."""

    class_names: list[str]
    pictures: dict[str, list[Picture]]
    """Per split, sorted by class and name."""
    left_out: list[str] = field(default_factory=list)
    """Names of class folders without pictures."""
    unclassed: int = 0
    """Number of pictures outside any class folder, which are left out."""
    has_splits: bool = True
    """Whether the source has splits; otherwise all of it is train."""
    unread: dict[str, int] = field(default_factory=dict)
    """File extension -> number of files that are not read."""
    notes: list[str] = field(default_factory=list)
    """Notes to print about how the layout was understood."""

    def sha256(self) -> str:
        """Hash names, classes and sizes, so that a moved source may continue a preparation, but not a changed one."""
        digest = hashlib.sha256("\0".join(self.class_names).encode("utf-8", "surrogateescape"))
        for split, pictures in self.pictures.items():
            digest.update(f"\1{split}".encode())
            for key, label, place in pictures:
                where = os.path.basename(str(place[1])), *place[2:]
                digest.update(repr((key, label, where)).encode("utf-8", "surrogateescape"))
        return digest.hexdigest()
