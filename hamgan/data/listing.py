"""What a preparation works through: the pictures of folders and archives, with class and split, in a fixed order."""

import glob
import hashlib
import re
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from hamgan.data.archives import Member, Place, read_label_file, tar_members, zip_members
from hamgan.data.folder import SPLIT_FOLDERS, class_folders, is_image_name, split_folders, split_names, walk_pictures
from hamgan.data.sources import SPLITS, DataError


class Picture(NamedTuple):
    """One candidate: where its bytes are, and what it is."""

    key: str
    """Name for messages and for the hash that splits train from val; unique within the source."""
    label: int
    place: Place
    """("file", path), ("range", path, offset, bytes), ("zip", path, member) or ("row", source, split, row)."""


@dataclass
class Listing:
    """All candidates of a source."""

    class_names: list[str]
    pictures: dict[str, list[Picture]]
    """Per split, sorted by class and name."""
    left_out: list[str] = field(default_factory=list)
    """Class folders without pictures."""
    unclassed: int = 0
    """Pictures outside every class folder, left out too."""

    def sha256(self) -> str:
        """Over names, classes and places: a changed source must not continue an old preparation."""
        digest = hashlib.sha256("\0".join(self.class_names).encode("utf-8", "surrogateescape"))
        for split, pictures in self.pictures.items():
            digest.update(f"\1{split}".encode())
            for picture in pictures:
                digest.update(repr(picture).encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


@lru_cache(maxsize=4)
def _open_zip(path: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def read_bytes(picture: Picture) -> bytes:
    """The picture's encoded bytes; raises OSError or DataError when they cannot be read."""
    kind, path = picture.place[0], str(picture.place[1])
    if kind == "file":
        return Path(path).read_bytes()
    if kind == "range":
        offset, size = int(picture.place[2]), int(picture.place[3])
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(size)
    if kind == "zip":
        try:
            return _open_zip(path).read(str(picture.place[2]))
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            raise DataError(f"cannot be read from the zip file ({error})") from error
    from hamgan.data.tables import read_row

    return read_row(path, str(picture.place[2]), int(picture.place[3]))


def expand(source: str) -> list[Path]:
    """Existing files or folders that a path, a ``*`` pattern or a ``{00..12}`` pattern names, in order."""
    names = [source]
    while any(re.search(r"\{(\d+)\.\.(\d+)\}", name) for name in names):
        name = names[0]
        match = re.search(r"\{(\d+)\.\.(\d+)\}", name)
        assert match is not None  # every name has the same braces
        width, span = len(match[1]), range(int(match[1]), int(match[2]) + 1)
        names = [other.replace(match[0], f"{i:0{width}d}", 1) for other in names for i in span]
    paths: list[Path] = []
    for name in names:
        found = sorted(glob.glob(name)) if re.search(r"[*?\[]", name) and not Path(name).exists() else [name]
        paths += [Path(item).expanduser() for item in found]
    missing = [path for path in paths if not path.exists()]
    if missing or not paths:
        raise DataError(f"no file or folder at {missing[0] if missing else source}")
    return paths


def members_of(paths: Iterable[Path], spool: Path) -> list[Member]:
    """Every picture below folders and inside archives; `spool` takes unpacked compressed tar files."""
    members: list[Member] = []
    for path in paths:
        if path.is_dir():
            members += [Member(name, ("file", str(path / name))) for name, _ in walk_pictures(path)]
        elif zipfile.is_zipfile(path):
            members += zip_members(path)
        else:
            members += tar_members(path, spool)
    return [member for member in members if member.label is not None or is_image_name(member.name)]


def _strip_common_folder(names: Sequence[str]) -> int:
    """How many leading folders an archive puts around ``[split/]class/picture``."""
    depth = 0
    parts = [name.split("/") for name in names]
    words = {word for group in SPLIT_FOLDERS.values() for word in group}
    while len({tuple(part[: depth + 1]) for part in parts}) == 1 and all(len(part) > depth + 2 for part in parts):
        if parts[0][depth].lower() in words:
            break
        depth += 1
    return depth


def _label_of(member: Member, class_name: str | None, labels: dict[str, str] | None) -> str | None:
    if member.label is not None:
        return member.label
    if labels is not None:
        base = member.name.rsplit("/", 1)[-1]
        return labels.get(base) or labels.get(base.rsplit(".", 1)[0]) or class_name
    return class_name


def _held_out(key: str, fraction: float) -> bool:
    digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def _assign(
    members: list[Member], labels: dict[str, str] | None, split: str | None
) -> tuple[dict[str, list[tuple[str, Member]]], list[str]]:
    """(class, member) per split, and the names of pictures without a class."""
    found: dict[str, list[tuple[str, Member]]] = {name: [] for name in SPLITS}
    flat: list[str] = []
    depth = _strip_common_folder([member.name for member in members])
    parts = [member.name.split("/")[depth:] for member in members]
    names = split_names({part[0] for part in parts if len(part) > 1}) if split is None else {}
    folders = {folder: name for name, folder in names.items()}
    for member, part in zip(members, parts, strict=True):
        if folders and part[0] not in folders:
            continue  # beside train/ and val/ stand things such as test/ without classes
        rest = part[1:] if folders else part
        name = _label_of(member, rest[0] if len(rest) > 1 else None, labels)
        if name is None:
            flat.append(member.name)
        else:
            found[split or folders.get(part[0], "train")].append((name, member))
    return found, flat


def list_pictures(
    source: str, spool: Path, *, val_source: str | None = None, labels: Path | None = None, val_fraction: float = 0.0
) -> Listing:
    """Candidates of folders, archives, WebDataset shards or a table (``cifar10``, ``cifar100``, ``hf:NAME``).

    val_source: a second place whose pictures are the val split. labels: a file that gives pictures without a class
    folder their class (see `read_label_file`). val_fraction: share of train that becomes val, by a hash of the names.
    """
    from hamgan.data.tables import is_table, list_table

    if is_table(source):
        listing = list_table(source)
    else:
        table = read_label_file(labels) if labels else None
        found, flat = _assign(members_of(expand(source), spool), table, "train" if val_source else None)
        if val_source:
            more, more_flat = _assign(members_of(expand(val_source), spool), table, "val")
            found["val"], flat = more["val"], flat + more_flat
        listing = _sorted_listing(source, found, flat)
        if Path(source).is_dir():
            listing.left_out = _empty_folders(Path(source), set(listing.class_names))
    if val_fraction:
        _hold_out(listing, val_fraction)
    return listing


def _sorted_listing(source: str, found: dict[str, list[tuple[str, Member]]], flat: list[str]) -> Listing:
    class_names = sorted({name for entries in found.values() for name, _ in entries})
    if not class_names and flat:
        raise DataError(
            f"{source}: {len(flat)} pictures without a class, e.g. {flat[0]}; "
            "put each class's pictures in a folder of its own, or name their classes in a file with --labels"
        )
    if not class_names:
        raise DataError(f"{source} holds no pictures")
    numbers = {name: number for number, name in enumerate(class_names)}
    pictures = {
        split: sorted(
            (Picture(member.name, numbers[name], member.place) for name, member in entries),
            key=lambda picture: (picture.label, picture.key),
        )
        for split, entries in found.items()
    }
    return Listing(class_names, pictures, unclassed=len(flat))


def _empty_folders(root: Path, used: set[str]) -> list[str]:
    return sorted({name for folder in split_folders(root).values() for name in class_folders(folder)} - used)


def _hold_out(listing: Listing, fraction: float) -> None:
    if listing.pictures["val"]:
        raise DataError("the source has a val split of its own; leave --val-fraction out")
    train = listing.pictures["train"]
    listing.pictures["val"] = [picture for picture in train if _held_out(picture.key, fraction)]
    listing.pictures["train"] = [picture for picture in train if not _held_out(picture.key, fraction)]
