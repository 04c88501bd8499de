"""Read the classes of pictures without class folders: ImageNet's ground truth, CSV files, lines ``NAME CLASS``."""

import csv
import io
import re
import tarfile
from pathlib import Path

from hamgan.errors import DataError

TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"


def _imagenet_labels(truth: bytes, meta: bytes) -> dict[str, str]:
    """Return synsets by file name: the ground truth has the devkit's own numbers, and meta.mat their synsets."""
    from scipy.io import loadmat

    synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
    wordnet = {int(row[0]): str(row[1]) for row in synsets}
    return {f"ILSVRC2012_val_{i:08d}": wordnet[int(number)] for i, number in enumerate(truth.split(), 1)}


def _devkit_labels(path: Path) -> dict[str, str]:
    """Read ImageNet's ILSVRC2012_devkit_t12.tar.gz."""
    with tarfile.open(path) as archive:
        names = {Path(info.name).name: info for info in archive if info.isfile()}
        files = [archive.extractfile(names[name]) if name in names else None for name in (TRUTH, META)]
        if files[0] is None or files[1] is None:
            raise DataError(f"{path} is not ImageNet's devkit: it lacks {TRUTH} or {META}")
        return _imagenet_labels(files[0].read(), files[1].read())


def _class_of(value: str) -> str:
    """Return a class as it stands, and the first word of Kaggle's ``SYNSET x y x y ...``."""
    value = value.strip()
    return value.split()[0] if re.match(r"n\d{8}(\s|$)", value) else value


def read_label_file(path: Path) -> dict[str, str]:
    """Read classes by file name (with or without extension) from a file of one of these kinds.

    ImageNet's devkit (``ILSVRC2012_devkit_t12.tar.gz``) or its ground truth with meta.mat beside it; lines ``NAME
    CLASS`` or ``NAME,CLASS[,...]``, with or without a header, Kaggle's ``LOC_val_solution.csv`` among them.
    """
    if not path.is_file():
        raise DataError(f"no label file at {path}")
    if tarfile.is_tarfile(path):
        return _devkit_labels(path)
    lines = [line for line in path.read_text("utf-8-sig", "replace").splitlines() if line.strip()]
    if lines and all(line.strip().isdigit() for line in lines[:50]):
        meta = path.with_name(META)
        if not meta.is_file():
            raise DataError(
                f"{path} holds ImageNet's class numbers without their synsets; give the devkit archive "
                f"(ILSVRC2012_devkit_t12.tar.gz), put its {META} beside the file, or give lines `NAME SYNSET`"
            )
        return _imagenet_labels(path.read_bytes(), meta.read_bytes())
    rows = list(csv.reader(lines)) if "," in (lines or [""])[0] else [line.split(maxsplit=1) for line in lines]
    table = {row[0].strip().rsplit("/", 1)[-1]: _class_of(row[1]) for row in rows if len(row) > 1 and row[1].strip()}
    if not table:
        raise DataError(f"{path} names no classes; its lines must be `NAME CLASS` or `NAME,CLASS`")
    return table
