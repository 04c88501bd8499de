"""Find pictures in tar and zip files as byte ranges, for random access without unpacking."""

import bz2
import gzip
import io
import json
import lzma
import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from hamgan.data.finding.names import decode_names, normalise_path
from hamgan.errors import DataError
from hamgan.files import RECOGNISED_BYTES, make_once, recognise

Place = tuple[str | int, ...]


class Member(NamedTuple):
    """Describe a file of a source: its name with slashes, where its bytes are, and its class in a WebDataset."""

    name: str
    place: Place
    label: str | None = None


_OPENERS: dict[bytes, Callable[[Path], io.BufferedIOBase]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile,
}
"""First bytes of a compressed file -> function that opens it."""
_LABEL_KINDS = ("cls", "cls.txt", "label", "json")  # in the order of preference


def _unpacked(path: Path, spool: Path) -> Path:
    """Return an uncompressed tar file, which byte ranges need: the file itself or a decompressed copy in ``spool``."""
    with path.open("rb") as file:
        start = file.read(6)
    opener = next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), None)
    if opener is None:
        return path

    def unpack(partial: Path) -> None:
        with opener(path) as packed, partial.open("wb") as file:
            shutil.copyfileobj(packed, file, 1 << 20)

    target = spool / f"{path.name}.{path.stat().st_size}.tar"
    try:
        make_once(target, unpack)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{path} cannot be unpacked: {error}") from error
    return target


def _scan(path: str, start: int, prefix: str) -> list[Member]:
    """List regular files of the tar at byte ``start`` of a file, and of the tars inside it (ImageNet's train)."""
    members: dict[str, Member] = {}  # an appended member replaces an earlier one with its name, as when unpacking
    shown = f"{path} ({prefix.rstrip('/')})" if prefix else path
    with open(path, "rb") as file:
        file.seek(start)
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                for info in archive:
                    archive.members = []  # type: ignore[attr-defined]  # else headers of 1.28 M files pile up
                    if info.isfile():
                        name = prefix + re.sub(r"^(\./)+|^/+", "", info.name)
                        members[name] = Member(name, ("range", path, info.offset_data, info.size))
        except (tarfile.TarError, EOFError) as error:
            if not members:
                raise DataError(f"{shown} is not a folder, a zip or a tar file ({error})") from error
            raise DataError(f"{shown} is damaged after {next(reversed(members))} ({error})") from error
    files = []
    for member in members.values():
        if member.name.endswith(".tar"):
            files += _scan(path, int(member.place[2]), f"{member.name.removesuffix('.tar')}/")
        else:
            files.append(member)
    return files


def _sample_keys(name: str) -> list[str]:
    """Return the possible WebDataset keys of a picture, the longest first: ``a.b`` and ``a`` for ``a.b.jpg``.

    WebDataset ends a key at its first dot; writers that put dots into keys end it at the last.
    """
    folder, _, base = name.rpartition("/")
    parts = base.split(".")
    return [f"{folder}/{'.'.join(parts[:count])}" for count in range(len(parts) - 1, 0, -1)]


def _webdataset_labels(path: str, files: list[Member]) -> list[Member]:
    """Return members with the class of their sample, from ``key.cls`` or ``"label"`` in ``key.json``, if any."""
    tables: dict[str, dict[str, Member]] = {}
    for member in files:
        for kind in _LABEL_KINDS:
            if member.name.lower().endswith(f".{kind}"):
                folder, _, base = member.name[: -len(kind) - 1].rpartition("/")
                tables.setdefault(f"{folder}/{base}", {})[kind] = member
    if not tables:
        return files
    labels: dict[str, str] = {}
    used: set[str] = set()
    with open(path, "rb") as file:
        for key, found in tables.items():
            for kind in _LABEL_KINDS:
                if kind in found and key not in labels:
                    file.seek(int(found[kind].place[2]))
                    text = file.read(int(found[kind].place[3])).decode("utf-8", "replace").strip()
                    label = _json_label(text) if kind == "json" else text
                    if label:  # numbers sort as numbers: 2 before 10
                        labels[key] = f"{int(label):05d}" if label.isdecimal() else label
                        used |= {member.name for member in found.values()}
    return [
        member._replace(label=next((labels[key] for key in _sample_keys(member.name) if key in labels), None))
        for member in files
        if member.name not in used
    ]


def _json_label(text: str) -> str | None:
    try:
        values = json.loads(text)
    except json.JSONDecodeError:
        return None
    keys = ("label", "cls", "class", "class_name")
    return next((str(values[key]) for key in keys if key in values), None) if isinstance(values, dict) else None


def tar_members(path: Path, spool: Path) -> list[Member]:
    """List the files of a tar or WebDataset shard, including nested tars; decompressed into ``spool`` if needed."""
    unpacked = str(_unpacked(path, spool))
    members = _scan(unpacked, 0, "")
    names = decode_names([member.name for member in members])
    members = [member._replace(name=normalise_path(name)) for member, name in zip(members, names, strict=True)]
    return _webdataset_labels(unpacked, members)


def zip_members(path: Path) -> list[Member]:
    """List the files of a zip; raises DataError for a damaged one."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = {info.filename: info for info in archive.infolist() if not info.is_dir()}
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise DataError(f"{path} is not a usable zip file ({error})") from error
    unmarked = {name: raw for name, info in infos.items() if (raw := _unmarked_name(info)) is not None}
    decoded = dict(zip(unmarked, decode_names(list(unmarked.values()), otherwise="cp437"), strict=True))
    return [
        Member(normalise_path(decoded.get(name, name)), ("zip", str(path), name, info.file_size))
        for name, info in infos.items()
    ]


def _unmarked_name(info: zipfile.ZipInfo) -> str | None:
    """Return the raw name, with surrogates, of a member that is not marked as UTF-8 and that zipfile read as CP437."""
    if info.flag_bits & 0x800:
        return None
    try:
        return info.filename.encode("cp437").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # the name came from Info-ZIP's Unicode field
        return None


def archive_members(path: Path, spool: Path) -> list[Member]:
    """List the files of a tar or zip file; raises DataError for another kind of file, with a remedy."""
    with path.open("rb") as file:
        start = file.read(RECOGNISED_BYTES)
    if known := recognise(start):
        raise DataError(f"{path} is {known}")
    return zip_members(path) if start.startswith(b"PK") else tar_members(path, spool)
