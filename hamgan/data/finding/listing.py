"""List the pictures of folders and archives with class and split, in a fixed order."""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hamgan.data.decoding.kinds import count_endings, describe_unread
from hamgan.data.finding.archives import Member
from hamgan.data.finding.folders import folders_in, is_image_name, walk_files
from hamgan.data.finding.hdf5 import is_hdf5
from hamgan.data.finding.layout import Arrangement, arrange
from hamgan.data.finding.locations import namesake_notes
from hamgan.data.finding.matching import check_coverage
from hamgan.data.finding.names import class_order, fold
from hamgan.data.finding.picture import Listing, Picture
from hamgan.data.finding.source_files import SourceFiles, find_labels, read_labels
from hamgan.data.finding.tables import is_table, list_tables
from hamgan.data.source import SPLITS, name_some
from hamgan.errors import DataError, UnclassedError

_Found = dict[str, list[tuple[str, Member]]]
"""Split -> pairs of class and member."""


def _assign(place: SourceFiles, split: str | None) -> tuple[_Found, list[str], Arrangement]:
    """Assign members to split and class; also returns the names of pictures without a class.

    ``split`` is the one that the place should provide; other splits in it are left out.
    """
    arranged = arrange(place.names, place.labels, place.source)
    _check_labels(place, arranged)
    found: _Found = {name: [] for name in SPLITS}
    unclassed: list[str] = []
    for member, name, of_picture in zip(place.pictures, arranged.classes, arranged.splits, strict=True):
        if name is None or of_picture is None:
            unclassed.append(member.name)
        elif not arranged.has_splits or split in (None, of_picture):
            found[of_picture if arranged.has_splits else split or "train"].append((name, member))
    return found, unclassed, arranged


def _check_labels(place: SourceFiles, arranged: Arrangement) -> None:
    """Raise DataError if a label file names only some pictures of a split and the others are in no class folder."""
    for file, named in place.files:
        known = {fold(line.label) for line in file.lines}
        for split in {arranged.splits[i] for i in named} - {None}:
            members = [i for i, other in enumerate(arranged.splits) if other == split]
            unnamed = [
                place.pictures[i].name
                for i in members
                if place.labels[i] is None and fold(arranged.classes[i] or "") not in known
            ]
            check_coverage(file, place.source, unnamed, len(members))


def list_pictures(
    source: str, spool: Path, *, val_source: str | None = None, labels: Path | None = None, val_fraction: float = 0.0
) -> Listing:
    """List the candidates of folders, archives, WebDataset shards or a table (``cifar10``, ``cifar100``, ``hf:NAME``).

    ``val_source`` is a second place with the val split. ``labels`` is a file with the classes of the pictures (see
    `read_label_file`); NVIDIA's dataset.json and Tiny ImageNet's val_annotations.txt are found automatically.
    ``val_fraction`` is the share of every class that becomes val, chosen by a hash of the names. ``spool`` is a folder
    for unpacked files. Raises DataError.
    """
    if is_table(source):
        if labels:
            raise DataError(f"{source} has classes of its own; leave --labels out")
        listing = list_tables(source, val_source)
        listing.notes += [] if is_hdf5(Path(source)) else namesake_notes(source)
    else:
        listing = _list_places([SourceFiles.find(place, spool) for place in (source, val_source) if place], labels)
    if val_fraction:
        _hold_out(listing, val_fraction)
    return listing


def _list_places(places: Sequence[SourceFiles], labels: Path | None) -> Listing:
    """List a source, or a train source and a val source."""
    notes: list[str] = []
    if labels:
        read_labels(labels, places)
    for place in [] if labels else places:
        find_labels(place, notes)
    found: _Found = {name: [] for name in SPLITS}
    unclassed: list[str] = []
    unread: Counter[str] = Counter()
    arranged = []
    for place, split in zip(places, (None,) if len(places) == 1 else SPLITS, strict=True):
        of_place, without, arrangement = _assign(place, split)
        arranged.append(arrangement)
        unread += count_endings([member.name for member in place.others])
        if not any(of_place.values()):
            raise _without_classes(place.source, without, unread)
        unclassed += without
        for name, entries in of_place.items():
            found[name] += entries
        notes += arrangement.notes
    listing = _sorted_listing(found, unclassed, unread)
    listing.has_splits = arranged[0].has_splits or len(places) > 1
    listing.left_out = _empty_folders(places[0], arranged[0], listing.class_names)
    files = list({file.path: file for place in places for file, _ in place.files}.values())
    listing.notes = [f"classes from {file.path}: {file.describe()}" for file in files] + notes + listing.notes
    return listing


def _empty_folders(place: SourceFiles, arranged: Arrangement, class_names: Sequence[str]) -> list[str]:
    """Return the names of class folders without a picture in any split."""
    path = Path(place.source).expanduser()
    if not path.is_dir() or any(named for _, named in place.files):
        return []
    roots = [path / root for root in arranged.class_roots if (path / root).is_dir()]
    known = {fold(name) for name in class_names}
    return sorted(
        {name for root in roots for name in folders_in(root) if fold(name) not in known and _is_empty(root / name)}
    )


def _is_empty(folder: Path) -> bool:
    return not any(is_image_name(name) for name, _ in walk_files(folder))


def _one_spelling(found: _Found, notes: list[str]) -> dict[str, str]:
    """Map each class name to one spelling, so that spellings that differ between splits are one class."""
    spelled: dict[str, dict[str, None]] = {}
    clashes = set()
    for entries in found.values():
        within: dict[str, str] = {}
        for name in dict.fromkeys(name for name, _ in entries):
            spelled.setdefault(fold(name), {})[name] = None
            if within.setdefault(fold(name), name) != name:
                clashes.add(fold(name))
    for folded in sorted(clashes):
        notes.append(f"the classes {name_some(list(spelled[folded]))} differ in capitals only, and are kept separate")
    return {
        name: name if folded in clashes else next(iter(names)) for folded, names in spelled.items() for name in names
    }


def _sorted_listing(found: _Found, unclassed: list[str], unread: Counter[str]) -> Listing:
    notes: list[str] = []
    spelling = _one_spelling(found, notes)
    class_names = class_order(list(set(spelling.values())))
    numbers = {name: number for number, name in enumerate(class_names)}
    pictures = {}
    for split, entries in found.items():
        counts = Counter(member.name for _, member in entries)
        listed = [Picture(_key(member, counts), numbers[spelling[name]], member.place) for name, member in entries]
        pictures[split] = sorted(listed, key=lambda picture: (picture.label, picture.key))
    return Listing(class_names, pictures, unclassed=len(unclassed), unread=dict(unread), notes=notes)


def _key(member: Member, counts: Counter[str]) -> str:
    # Shards may repeat the names of their members; the shard's name makes them unique.
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
    """Move a share of every class to val, chosen by a hash of the names; at least one picture stays in train."""
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
