"""Pictures inside tar and zip files as byte ranges, so that every process reads them at random without unpacking."""

import bz2
import gzip
import json
import lzma
import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from hamgan.errors import DataError

Place = tuple[str | int, ...]


class Member(NamedTuple):
    """A file of a source: its name with /, where its bytes are, and a class that comes with it (WebDataset)."""

    name: str
    place: Place
    label: str | None = None


_PACKED: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
_LABEL_KINDS = ("cls", "cls.txt", "label", "json")  # in the order of preference


def _unpacked(path: Path, spool: Path) -> Path:
    """The tar file itself, or its decompressed copy in `spool`: byte ranges need an uncompressed one."""
    with path.open("rb") as file:
        start = file.read(6)
    opener = next((opener for magic, opener in _PACKED.items() if start.startswith(magic)), None)
    if opener is None:
        return path
    target = spool / f"{path.name}.{path.stat().st_size}.tar"
    if not target.exists():
        spool.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(".partial")
        try:
            with opener(path, "rb") as packed, partial.open("wb") as file:
                shutil.copyfileobj(packed, file, 1 << 20)
        except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
            partial.unlink(missing_ok=True)
            raise DataError(f"{path} cannot be unpacked: {error}") from error
        partial.rename(target)
    return target


def _scan(path: str, start: int, prefix: str) -> list[Member]:
    """Regular files of the tar that begins at byte `start` of a file; a tar inside it is entered (ImageNet's train)."""
    members: dict[str, Member] = {}  # an appended member replaces an earlier one of its name, as in unpacking
    shown = f"{path} ({prefix.rstrip('/')})" if prefix else path
    with open(path, "rb") as file:
        file.seek(start)
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                for info in archive:
                    archive.members = []  # type: ignore[attr-defined]  # else the headers of 1.28 M files pile up
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


def _sample_key(name: str) -> tuple[str, str]:
    """WebDataset's sample and kind: the name up to the first dot of its last part, and the rest."""
    folder, _, base = name.rpartition("/")
    key, _, kind = base.partition(".")
    return f"{folder}/{key}", kind.lower()


def _webdataset_labels(path: str, files: list[Member]) -> list[Member]:
    """Members with the class of their sample (``key.cls`` or ``"label"`` in ``key.json``) where there is one."""
    tables: dict[str, dict[str, Member]] = {}
    for member in files:
        key, kind = _sample_key(member.name)
        if kind in _LABEL_KINDS:
            tables.setdefault(key, {})[kind] = member
    if not tables:
        return files
    labels: dict[str, str] = {}
    with open(path, "rb") as file:
        for key, found in tables.items():
            for kind in _LABEL_KINDS:
                if kind in found and key not in labels:
                    file.seek(int(found[kind].place[2]))
                    text = file.read(int(found[kind].place[3])).decode("utf-8", "replace").strip()
                    label = _json_label(text) if kind == "json" else text
                    if label:  # numbers sort as numbers: 2 before 10
                        labels[key] = f"{int(label):05d}" if label.isdecimal() else label
    return [
        member._replace(label=labels.get(_sample_key(member.name)[0]))
        for member in files
        if _sample_key(member.name)[1] not in _LABEL_KINDS
    ]


def _json_label(text: str) -> str | None:
    try:
        values = json.loads(text)
    except json.JSONDecodeError:
        return None
    keys = ("label", "cls", "class", "class_name")
    return next((str(values[key]) for key in keys if key in values), None) if isinstance(values, dict) else None


def tar_members(path: Path, spool: Path) -> list[Member]:
    """Files of a tar (also .gz, .bz2, .xz, unpacked into `spool`), of tars inside it, or of a WebDataset shard."""
    unpacked = str(_unpacked(path, spool))
    return _webdataset_labels(unpacked, _scan(unpacked, 0, ""))


def zip_members(path: Path) -> list[Member]:
    """Files of a zip; raises DataError for a damaged one."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = {info.filename: info for info in archive.infolist() if not info.is_dir()}
            return [Member(name, ("zip", str(path), name, info.file_size)) for name, info in infos.items()]
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise DataError(f"{path} is not a usable zip file ({error})") from error


def archive_members(path: Path, spool: Path) -> list[Member]:
    """Files of a tar or zip file."""
    with path.open("rb") as file:
        return zip_members(path) if file.read(2) == b"PK" else tar_members(path, spool)
