"""Pictures inside tar and zip files as byte ranges, so that every process reads them at random without unpacking."""

import csv
import io
import json
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from hamgan.data.sources import DataError

Place = tuple[str | int, ...]


class Member(NamedTuple):
    """A file of a source: its name with /, where its bytes are, and a class that comes with it (WebDataset)."""

    name: str
    place: Place
    label: str | None = None


_MAGIC = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ": "xz"}


def _unpacked(path: Path, spool: Path) -> Path:
    """The tar file itself, or its decompressed copy in `spool`: byte ranges need an uncompressed one."""
    with path.open("rb") as file:
        start = file.read(6)
    kind = next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)
    if kind is None:
        return path
    target = spool / f"{path.name}.{path.stat().st_size}.tar"
    if not target.exists():
        import bz2
        import gzip
        import lzma

        spool.mkdir(parents=True, exist_ok=True)
        openers: dict[str, Callable[..., Any]] = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}
        partial = target.with_suffix(".partial")
        try:
            with openers[kind](path, "rb") as packed, partial.open("wb") as file:
                shutil.copyfileobj(packed, file, 1 << 20)
        except (OSError, EOFError, lzma.LZMAError) as error:
            partial.unlink(missing_ok=True)
            raise DataError(f"{path} cannot be unpacked: {error}") from error
        partial.rename(target)
    return target


def _scan(path: Path, start: int, prefix: str) -> list[Member]:
    """Regular files of the tar that begins at byte `start` of a file; a tar inside it is entered (ImageNet's train)."""
    members = []
    with path.open("rb") as file:
        file.seek(start)
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                for info in archive:
                    archive.members = []  # type: ignore[attr-defined]  # else the headers of 1.28 M files pile up
                    if not info.isfile():
                        continue
                    name = re.sub(r"^(\./)+|^/+", "", info.name)
                    members.append(Member(f"{prefix}{name}", ("range", str(path), info.offset_data, info.size)))
        except tarfile.TarError as error:
            if not members:
                raise DataError(f"{path} is not a folder, a zip or a tar file ({error})") from error
            raise DataError(f"{path} is damaged after {members[-1].name} ({error})") from error
    inner = [member for member in members if member.name.endswith(".tar")]
    files = [member for member in members if not member.name.endswith(".tar")]
    for member in inner:
        files += _scan(path, int(member.place[2]), f"{member.name.removesuffix('.tar')}/")
    return files


def _webdataset_labels(path: Path, files: list[Member]) -> list[Member] | None:
    """Members of a WebDataset shard with the class of their sample (``key.cls`` or ``"label"`` in ``key.json``)."""
    tables: dict[str, tuple[str, Member]] = {}
    for member in files:
        folder, _, base = member.name.rpartition("/")
        key, _, kind = base.partition(".")
        if kind in ("cls", "json", "cls.txt", "label"):
            tables.setdefault(f"{folder}/{key}", (kind, member))
    if not tables:
        return None
    labelled = []
    with path.open("rb") as file:
        for member in files:
            folder, _, base = member.name.rpartition("/")
            found = tables.get(f"{folder}/{base.partition('.')[0]}")
            if found is None or found[1] is member or base.endswith((".cls", ".json", ".txt", ".label")):
                continue
            file.seek(int(found[1].place[2]))
            text = file.read(int(found[1].place[3])).decode("utf-8", "replace").strip()
            label = _json_label(text, found[1].name) if found[0] == "json" else text
            # Numbers sort as numbers: 2 before 10.
            name = f"{path.name}/{member.name}"
            labelled.append(Member(name, member.place, f"{int(label):05d}" if label.isdigit() else label))
    return labelled


def _json_label(text: str, name: str) -> str:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{name} is not valid JSON ({error})") from error
    for key in ("label", "cls", "class", "class_name"):
        if isinstance(values, dict) and key in values:
            return str(values[key])
    raise DataError(f"{name} has no class: none of the keys label, cls, class, class_name")


def tar_members(path: Path, spool: Path) -> list[Member]:
    """Files of a tar (also .gz, .bz2, .xz, unpacked into `spool`), of tars inside it, or of a WebDataset shard."""
    path = _unpacked(path, spool)
    files = _scan(path, 0, "")
    return _webdataset_labels(path, files) or files


def zip_members(path: Path) -> list[Member]:
    """Files of a zip; raises DataError for a damaged one."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [
                Member(info.filename, ("zip", str(path), info.filename))
                for info in archive.infolist()
                if not info.is_dir() and "__MACOSX" not in info.filename
            ]
    except zipfile.BadZipFile as error:
        raise DataError(f"{path} is not a usable zip file ({error})") from error


def _devkit_labels(path: Path) -> dict[str, str]:
    """ImageNet's ILSVRC2012_devkit_t12.tar.gz: ground truth in its own class numbers, meta.mat has the synsets."""
    from scipy.io import loadmat

    with tarfile.open(path) as archive:
        names = {Path(info.name).name: info for info in archive if info.isfile()}
        truth, meta = (
            archive.extractfile(names[name]) if name in names else None
            for name in ("ILSVRC2012_validation_ground_truth.txt", "meta.mat")
        )
        if truth is None or meta is None:
            raise DataError(f"{path} is not ImageNet's devkit: it lacks the validation ground truth or meta.mat")
        synsets = loadmat(io.BytesIO(meta.read()), squeeze_me=True)["synsets"]
        wordnet = {int(row[0]): str(row[1]) for row in synsets}
        numbers = [int(line) for line in truth.read().split()]
    return {f"ILSVRC2012_val_{i:08d}": wordnet[number] for i, number in enumerate(numbers, 1)}


def read_label_file(path: Path) -> dict[str, str]:
    """Class by file name (with or without extension) from a file of one of these kinds.

    ImageNet's devkit (``ILSVRC2012_devkit_t12.tar.gz``); lines ``NAME CLASS`` or ``NAME,CLASS[,...]``, with or without
    a header, Kaggle's ``LOC_val_solution.csv`` among them (the first word of its second column is the synset).
    """
    if not path.is_file():
        raise DataError(f"no label file at {path}")
    if tarfile.is_tarfile(path):
        return _devkit_labels(path)
    lines = [line for line in path.read_text("utf-8", "replace").splitlines() if line.strip()]
    if lines and all(line.strip().isdigit() for line in lines[:50]):
        raise DataError(
            f"{path} holds ImageNet's class numbers without their synsets; give the devkit archive "
            "(ILSVRC2012_devkit_t12.tar.gz) or lines `NAME SYNSET` instead"
        )
    rows = list(csv.reader(lines)) if "," in (lines or [""])[0] else [line.split(maxsplit=1) for line in lines]
    table = {row[0].strip().rsplit("/", 1)[-1]: row[1].split()[0] for row in rows if len(row) > 1 and row[1].split()}
    if not table:
        raise DataError(f"{path} names no classes; its lines must be `NAME CLASS` or `NAME,CLASS`")
    return table
