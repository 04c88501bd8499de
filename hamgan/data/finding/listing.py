"""List the pictures of folders and archives with class and split, in a fixed order."""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hamgan.data.decoding.kinds import count_endings, describe_unread
from hamgan.data.finding.archives import Member, archive_members
from hamgan.data.finding.folders import NOWHERE, folders_in, is_hidden_path, is_image_name, walk_files
from hamgan.data.finding.labels import FOUND_BY_NAME, is_label_file, parse_labels, read_label_file
from hamgan.data.finding.layout import Arrangement, arrange
from hamgan.data.finding.locations import expand, say_namesake
from hamgan.data.finding.matching import LabelFile, check_coverage, match
from hamgan.data.finding.names import class_order, decode_names, fold, tidy
from hamgan.data.finding.picture import Listing, Picture
from hamgan.data.finding.reading import read_bytes
from hamgan.data.finding.tables import is_table, list_tables
from hamgan.data.source import SPLITS, name_some
from hamgan.errors import DataError, UnclassedError
from hamgan.files import LMDB


def _folder_members(root: Path, spool: Path) -> list[Member]:
    """List files below a folder; where no picture is, those in its tar files (ImageNet's train, unpacked once)."""
    walked = walk_files(root)
    names = decode_names([name for name, _ in walked])
    files = [
        Member(tidy(name), ("file", str(root / written), size))
        for name, (written, size) in zip(names, walked, strict=True)
    ]
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
    place = _Place.find(source, spool)
    return place.pictures, count_endings([member.name for member in place.others])


@dataclass
class _Place:
    """Hold the files of a source, and what is known of its pictures' classes."""

    source: str
    pictures: list[Member]
    others: list[Member]
    root: tuple[str, ...]
    """The folders above the pictures' names, for label files that give longer paths."""
    labels: list[str | None] = field(default_factory=list)
    """Class per picture, of a label file or of its own."""
    files: list[tuple[LabelFile, set[int]]] = field(default_factory=list)
    """Label files, and the pictures that each has named."""

    @classmethod
    def find(cls, source: str, spool: Path) -> "_Place":
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
        root = tuple(tidy(str(path if path.is_dir() else path.with_suffix(""))).split("/")) if len(paths) == 1 else ()
        return cls(source, pictures, others, root, [member.label for member in pictures])

    @property
    def names(self) -> list[str]:
        return [member.name for member in self.pictures]

    def take(self, file: LabelFile, first: int, labels: Sequence[str | None]) -> None:
        """Take the classes that a file gives to the pictures from number ``first`` on."""
        named = {first + i for i, label in enumerate(labels) if label is not None}
        for i in named:
            self.labels[i] = labels[i - first]
        self.files.append((file, named))


def _read_labels(path: Path, places: Sequence[_Place]) -> LabelFile:
    """Give the pictures of all places the classes of a file."""
    names = [name for place in places for name in place.names]
    file = read_label_file(path, names)
    roots = [place.root for place in places for _ in place.pictures]
    labels = match(file, names, roots, " and ".join(place.source for place in places))
    for place in places:
        place.take(file, 0, labels[: len(place.pictures)])
        labels = labels[len(place.pictures) :]
    return file


def _find_labels(place: _Place, notes: list[str]) -> None:
    """Give pictures the classes of label files that lie beside them: NVIDIA's and Tiny ImageNet's."""
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
        place.take(file, 0, labels)


_Found = dict[str, list[tuple[str, Member]]]
"""Split -> pairs of class and member."""


def _assign(place: _Place, split: str | None) -> tuple[_Found, list[str], Arrangement]:
    """Give members their class and split; return also the names of pictures without a class.

    split: the one that the place is meant for; where it holds several, the others are left out.
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


def _check_labels(place: _Place, arranged: Arrangement) -> None:
    """Refuse a label file that names some pictures of a split, unless the others stand in folders of its classes."""
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

    val_source: a second place whose pictures are the val split. labels: a file that gives pictures their classes (see
    `read_label_file`); NVIDIA's dataset.json and Tiny ImageNet's val_annotations.txt are found without it.
    val_fraction: share of every class that becomes val, by a hash of the names. spool: a folder for what must be
    unpacked.
    """
    if is_table(source):
        if labels:
            raise DataError(f"{source} has classes of its own; leave --labels out")
        listing = list_tables(source, val_source)
        listing.notes += say_namesake(source)
    else:
        listing = _list_places([_Place.find(place, spool) for place in (source, val_source) if place], labels)
    if val_fraction:
        _hold_out(listing, val_fraction)
    return listing


def _list_places(places: Sequence[_Place], labels: Path | None) -> Listing:
    """List a source, or a train source and a val source."""
    notes: list[str] = []
    if labels:
        _read_labels(labels, places)
    for place in [] if labels else places:
        _find_labels(place, notes)
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


def _empty_folders(place: _Place, arranged: Arrangement, class_names: Sequence[str]) -> list[str]:
    """Name folders beside those of classes that hold no picture, in no split."""
    path = Path(place.source).expanduser()
    if not path.is_dir() or place.files:
        return []
    roots = [path / root for root in arranged.class_roots if (path / root).is_dir()]
    known = {fold(name) for name in class_names}
    return sorted(
        {name for root in roots for name in folders_in(root) if fold(name) not in known and _is_empty(root / name)}
    )


def _is_empty(folder: Path) -> bool:
    return not any(is_image_name(name) for name, _ in walk_files(folder))


def _one_spelling(found: _Found, notes: list[str]) -> dict[str, str]:
    """Return for each name of a class how it is spelled: the splits' own spellings of a class are one class."""
    spelled: dict[str, dict[str, None]] = {}
    clashes = set()
    for entries in found.values():
        within: dict[str, str] = {}
        for name in dict.fromkeys(name for name, _ in entries):
            spelled.setdefault(fold(name), {})[name] = None
            if within.setdefault(fold(name), name) != name:
                clashes.add(fold(name))
    for folded in sorted(clashes):
        notes.append(f"the classes {name_some(list(spelled[folded]))} differ in capitals only, and stay apart")
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
