"""List the pictures of folders and archives with class and split, in a fixed order."""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hamgan.data.decoding.kinds import count_endings, describe_unread
from hamgan.data.finding.archives import Member, archive_members
from hamgan.data.finding.folders import (
    NOWHERE,
    SPLIT_FOLDERS,
    class_folders,
    is_hidden_path,
    is_image_name,
    split_folders,
    split_names,
    walk_files,
)
from hamgan.data.finding.labels import read_label_file
from hamgan.data.finding.locations import expand
from hamgan.data.finding.picture import Listing, Picture
from hamgan.data.finding.tables import is_table, list_tables
from hamgan.data.source import SPLITS
from hamgan.errors import DataError, UnclassedError
from hamgan.files import LMDB


def _folder_members(root: Path, spool: Path) -> list[Member]:
    """List files below a folder; where no picture is, those in its tar files (ImageNet's train, unpacked once)."""
    files = [Member(name, ("file", str(root / name), size)) for name, size in walk_files(root)]
    if any(is_image_name(member.name) for member in files):
        return files
    packed = {member.name for member in files if _is_archive_name(member.name) and member.place[-1] != NOWHERE}
    inside = _archives_members({name: root / name for name in sorted(packed)}, spool)
    return inside + [member for member in files if member.name not in packed]


def _is_archive_name(name: str) -> bool:
    return name.lower().endswith((".tar", ".zip"))


def _archives_members(archives: dict[str, Path], spool: Path) -> list[Member]:
    """List members of several archives by name; an archive without folders and classes in it is a class itself."""
    members = []
    for name, path in archives.items():
        inside = archive_members(path, spool)
        flat = all("/" not in member.name and member.label is None for member in inside)
        above = os.path.splitext(name)[0] if flat else os.path.dirname(name)
        members += [member._replace(name=f"{above}/{member.name}".lstrip("/")) for member in inside]
    return members


def list_members(source: str, spool: Path) -> tuple[list[Member], Counter[str]]:
    """List the pictures below folders and inside archives; count the endings of the files that are none.

    ``spool`` takes unpacked compressed tar files.
    """
    paths = expand(source)
    if len(paths) == 1 and not paths[0].is_dir():
        members = archive_members(paths[0], spool)
    else:
        members = [member for path in paths if path.is_dir() for member in _folder_members(path, spool)]
        members += _archives_members({path.name: path for path in paths if not path.is_dir()}, spool)
    pictures = [member for member in members if is_image_name(member.name)]
    if not pictures and any(member.name.endswith("data.mdb") for member in members):
        raise DataError(f"{source} is {LMDB}")
    others = [member.name for member in members if not is_image_name(member.name) and not is_hidden_path(member.name)]
    return pictures, count_endings(others)


def _common_depth(names: Sequence[str]) -> int:
    """Count the leading folders that an archive puts around ``[split/]class/picture``."""
    depth = 0
    parts = [name.split("/") for name in names]
    words = {word for group in SPLIT_FOLDERS.values() for word in group}
    while len({tuple(part[: depth + 1]) for part in parts}) == 1 and all(len(part) > depth + 2 for part in parts):
        if parts[0][depth].lower() in words:
            break
        depth += 1
    return depth


def _label_of(member: Member, class_name: str | None, labels: dict[str, str]) -> str | None:
    if member.label is not None:
        return member.label
    base = member.name.rsplit("/", 1)[-1]
    return labels.get(base) or labels.get(base.rsplit(".", 1)[0]) or class_name


_Found = dict[str, list[tuple[str, Member]]]
"""Split -> pairs of class and member."""


def _assign(members: list[Member], labels: dict[str, str], split: str | None) -> tuple[_Found, list[str], bool]:
    """Give members their class and split; return also the pictures without a class, and whether there are splits."""
    found: _Found = {name: [] for name in SPLITS}
    unclassed: list[str] = []
    depth = _common_depth([member.name for member in members])
    parts = [member.name.split("/")[depth:] for member in members]
    names = split_names({part[0] for part in parts if len(part) > 1}) if split is None else {}
    folders = {folder: name for name, folder in names.items()}
    for member, part in zip(members, parts, strict=True):
        if folders and part[0] not in folders:
            continue  # beside train/ and val/ stand things such as test/ without classes
        rest = part[1:] if folders else part
        name = _label_of(member, rest[0] if len(rest) > 1 else None, labels)
        if name is None:
            unclassed.append(member.name)
        else:
            found[split or folders.get(part[0], "train")].append((name, member))
    return found, unclassed, bool(folders)


def list_pictures(
    source: str, spool: Path, *, val_source: str | None = None, labels: Path | None = None, val_fraction: float = 0.0
) -> Listing:
    """List the candidates of folders, archives, WebDataset shards or a table (``cifar10``, ``cifar100``, ``hf:NAME``).

    val_source: a second place whose pictures are the val split. labels: a file that gives pictures without a class
    folder their class (see `read_label_file`). val_fraction: share of every class that becomes val, by a hash of the
    names. spool: a folder for what must be unpacked.
    """
    if is_table(source):
        if labels:
            raise DataError(f"{source} has classes of its own; leave --labels out")
        listing = list_tables(source, val_source)
    else:
        table = read_label_file(labels) if labels else {}
        members, unread = list_members(source, spool)
        found, unclassed, has_splits = _assign(members, table, "train" if val_source else None)
        if val_source:
            members, more_unread = list_members(val_source, spool)
            held_out, more, _ = _assign(members, table, "val")
            if not held_out["val"]:
                raise _without_classes(val_source, more, more_unread)
            found["val"], unclassed, unread = held_out["val"], unclassed + more, unread + more_unread
        listing = _sorted_listing(source, found, unclassed, unread)
        listing.has_splits = has_splits or val_source is not None
        root = Path(source).expanduser()
        if root.is_dir():
            folders = {name for folder in split_folders(root).values() for name in class_folders(folder)}
            listing.left_out = sorted(folders - set(listing.class_names))
    if val_fraction:
        _hold_out(listing, val_fraction)
    return listing


def _sorted_listing(source: str, found: _Found, unclassed: list[str], unread: Counter[str]) -> Listing:
    class_names = sorted({name for entries in found.values() for name, _ in entries})
    if not class_names:
        raise _without_classes(source, unclassed, unread)
    numbers = {name: number for number, name in enumerate(class_names)}
    pictures = {}
    for split, entries in found.items():
        counts = Counter(member.name for _, member in entries)
        listed = [Picture(_key(member, counts), numbers[name], member.place) for name, member in entries]
        pictures[split] = sorted(listed, key=lambda picture: (picture.label, picture.key))
    return Listing(class_names, pictures, unclassed=len(unclassed), unread=dict(unread))


def _key(member: Member, counts: Counter[str]) -> str:
    # Shards repeat the names of their members; with the shard's own name they are told apart.
    return member.name if counts[member.name] == 1 else f"{os.path.basename(str(member.place[1]))}/{member.name}"


def _without_classes(source: str, unclassed: list[str], unread: Counter[str]) -> UnclassedError:
    advice = "put each class's pictures in a folder of its own"
    if not unclassed:
        others = f" but {describe_unread(unread)}" if unread else ""
        return UnclassedError(f"{source} holds no pictures{others}; {advice}")
    return UnclassedError(
        f"{source}: {len(unclassed)} pictures without a class, e.g. {unclassed[0]}; {advice}, or name their classes in "
        "a file with --labels"
    )


def _hold_out(listing: Listing, fraction: float) -> None:
    """Move a share of every class to val, chosen by a hash of the names; one picture of a class always stays."""
    if listing.pictures["val"]:
        raise DataError("the source has a val split of its own; leave --val-fraction out")
    train = listing.pictures["train"]
    classes: dict[int, list[Picture]] = {}
    for picture in train:
        classes.setdefault(picture.label, []).append(picture)
    held_out = set()
    for pictures in classes.values():
        drawn = sorted(pictures, key=lambda picture: _name_hash(picture.key))
        held_out |= set(drawn[: min(round(len(drawn) * fraction), len(drawn) - 1)])
    listing.pictures["val"] = [picture for picture in train if picture in held_out]
    listing.pictures["train"] = [picture for picture in train if picture not in held_out]


def _name_hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
