"""Hold the files of a source: its pictures, other files, and the classes from label files."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hamgan.data.decoding.kinds import count_endings
from hamgan.data.finding.archives import Member, archive_members
from hamgan.data.finding.folders import NOWHERE, is_hidden_path, is_image_name, walk_files
from hamgan.data.finding.labels import FOUND_BY_NAME, is_label_file, parse_labels, read_label_file
from hamgan.data.finding.locations import expand
from hamgan.data.finding.matching import LabelFile, match
from hamgan.data.finding.names import decode_names, normalise_path
from hamgan.data.finding.picture import Picture
from hamgan.data.finding.reading import read_bytes
from hamgan.errors import DataError, UnclassedError
from hamgan.files import LMDB


def _folder_members(root: Path, spool: Path) -> list[Member]:
    """List files below a folder, or in its tar files if it has no pictures (ImageNet's train, unpacked once)."""
    walked = walk_files(root)
    names = decode_names([name for name, _ in walked])
    files = [
        Member(normalise_path(name), ("file", str(root / written), size))
        for name, (written, size) in zip(names, walked, strict=True)
    ]
    if any(is_image_name(member.name) for member in files):
        return files
    packed = {m.name: Path(str(m.place[1])) for m in files if _is_archive_name(m.name) and m.place[-1] != NOWHERE}
    return _archives_members(packed, spool) + [member for member in files if member.name not in packed]


def _is_archive_name(name: str) -> bool:
    return name.lower().endswith((".tar", ".zip"))


def _archives_members(archives: dict[str, Path], spool: Path) -> list[Member]:
    """List the members of several archives; an archive without folders and classes is a class itself."""
    members = []
    for name, path in archives.items():
        inside = archive_members(path, spool)
        flat = all("/" not in member.name and member.label is None for member in inside)
        above = os.path.splitext(name)[0] if flat else os.path.dirname(name)
        members += [member._replace(name=f"{above}/{member.name}".lstrip("/")) for member in inside]
    return members


@dataclass
class SourceFiles:
    """Hold the files of a source, and what is known of its pictures' classes."""

    source: str
    pictures: list[Member]
    others: list[Member]
    root: tuple[str, ...]
    """The folders above the pictures' names, for label files with longer paths."""
    labels: list[str | None] = field(default_factory=list)
    """Class per picture, from a label file or the archive; None if unknown."""
    files: list[tuple[LabelFile, set[int]]] = field(default_factory=list)
    """Label files, with the indices of the pictures that each one names."""

    @classmethod
    def find(cls, source: str, spool: Path) -> "SourceFiles":
        """List the files of a source; compressed tar files are unpacked into ``spool``."""
        paths = expand(source)
        if len(paths) == 1 and not paths[0].is_dir():
            members = archive_members(paths[0], spool)
        else:
            members = [member for path in paths if path.is_dir() for member in _folder_members(path, spool)]
            members += _archives_members({path.name: path for path in paths if not path.is_dir()}, spool)
        pictures = [member for member in members if is_image_name(member.name)]
        if not pictures and any(member.name.endswith("data.mdb") for member in members):
            raise DataError(f"{source} is {LMDB}")
        others = [item for item in members if not is_image_name(item.name) and not is_hidden_path(item.name)]
        path = paths[0].absolute()
        whole = normalise_path(str(path if path.is_dir() else path.with_suffix("")))
        root = tuple(whole.split("/")) if len(paths) == 1 else ()
        return cls(source, pictures, others, root, [member.label for member in pictures])

    @property
    def names(self) -> list[str]:
        """Return the names of the pictures."""
        return [member.name for member in self.pictures]

    def take(self, file: LabelFile, labels: Sequence[str | None]) -> None:
        """Store the classes that a file gives to the pictures; None for pictures that it does not name."""
        named = {i for i, label in enumerate(labels) if label is not None}
        for i in named:
            self.labels[i] = labels[i]
        self.files.append((file, named))


def list_members(source: str, spool: Path) -> tuple[list[Member], Counter[str]]:
    """List the pictures in folders and archives, and count the extensions of all other files.

    Compressed tar files are unpacked into ``spool``.
    """
    place = SourceFiles.find(source, spool)
    return place.pictures, count_endings([member.name for member in place.others])


def read_labels(path: Path, places: Sequence[SourceFiles]) -> None:
    """Assign the classes in a label file to the pictures of all places."""
    names = [name for place in places for name in place.names]
    file = read_label_file(path, names)
    roots = [place.root for place in places for _ in place.pictures]
    labels = match(file, names, roots, " and ".join(place.source for place in places))
    for place in places:
        place.take(file, labels[: len(place.pictures)])
        labels = labels[len(place.pictures) :]


def find_labels(place: SourceFiles, notes: list[str]) -> None:
    """Assign the classes of label files that are found in the source: NVIDIA's and Tiny ImageNet's."""
    for member in [other for other in place.others if os.path.basename(other.name) in FOUND_BY_NAME]:
        folder = member.name.rpartition("/")[0]
        inside = [i for i, name in enumerate(place.names) if not folder or name.startswith(f"{folder}/")]
        names = [place.pictures[i].name[len(folder) :].lstrip("/") for i in inside]
        where = f"{place.source}/{member.name}"
        if not names or not is_label_file(member.name, data := read_bytes(Picture(member.name, 0, member.place))):
            continue
        place.others.remove(member)
        file = parse_labels(where, data, names)
        if file is None:
            numbered = all(name.split("/")[0].isdecimal() for name in names)
            if numbered:
                raise UnclassedError(
                    f"{where} says that its pictures have no classes (`labels` is null), and a conditional model needs "
                    "them; name them in a file with --labels"
                )
            notes.append(f"{where} has no labels; the folders are the classes")
            continue
        roots = [(*place.root, *(folder.split("/") if folder else []))] * len(names)
        labels: list[str | None] = [None] * len(place.pictures)
        for i, label in zip(inside, match(file, names, roots, place.source), strict=True):
            labels[i] = label
        place.take(file, labels)
