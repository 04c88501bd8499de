"""Find pairs of image and label files in a folder of your own or of an unpacked public data set."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from hamgan.data.source import SPLITS, name_some
from hamgan.errors import DataError
from hamgan.segmentation.data import known
from hamgan.segmentation.data.classes import EXAMPLE, find_class_file, ignore_values, read_classes
from hamgan.segmentation.data.source import Classes
from hamgan.segmentation.schema import DataConfig

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
LABEL_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif", ".npy", ".mat")
IMAGE_FOLDERS = ("images", "image", "imgs", "img", "img_dir", "JPEGImages")
LABEL_FOLDERS = ("annotations", "masks", "labels", "mask", "label", "ann_dir", "annotation", "SegmentationClass")
SPLIT_FOLDERS = {"train": ("train", "training"), "val": ("val", "validation", "valid", "test")}
ENDINGS = ("", "_mask", "_label", "_labels", "_gt", "_seg", "_L")
"""Suffixes that a label file's name may have after that of its image."""
ARRANGEMENTS = (
    "images/train/*.jpg with annotations/train/*.png, or train/images with train/masks, or images with masks, of which "
    "every fifth is held out"
)


@dataclass(frozen=True)
class Pair:
    """Hold one image with its labels."""

    key: str
    image: Path
    labels: Path


@dataclass(frozen=True)
class Listing:
    """Hold the pairs and classes of one split of a folder."""

    layout: str
    pairs: list[Pair]
    classes: Classes


def list_pairs(root: Path, split: str, data: DataConfig) -> Listing:
    """Find all pairs of a split, in the order of their names; DataError says what is missing, with counts."""
    layout = recognise_layout(root) if data.layout == "auto" else data.layout
    pairs, classes = LAYOUTS[layout](root, split)
    if not pairs:
        raise DataError(f"{root} ({layout}) has no images in the split `{split}`")
    file, where = find_class_file(data.classes, root), layout
    if file is not None and (data.classes is not None or classes is None):
        classes, where = read_classes(file, reduce_zero_label=data.reduce_zero_label), str(file)
    if classes is None:
        raise DataError(
            f"{root} has no classes.yaml: write one, or name it by --data.classes; it lists the classes in the "
            f"order of their label values, each as {EXAMPLE}"
        )
    return Listing(layout, sorted(pairs, key=lambda pair: pair.key), ignore_values(classes, data, where))


def recognise_layout(root: Path) -> str:
    """Return the layout of a folder."""
    if not root.is_dir():
        raise DataError(f"there is no folder {root}; data.source is land, land17, mosaic or a folder")
    if (root / "leftImg8bit").is_dir():
        return "cityscapes"
    if (root / "images/training").is_dir() and (root / "objectInfo150.txt").is_file():
        return "ade20k"
    if (root / "JPEGImages").is_dir():
        context = (root / "SegmentationClassContext").is_dir() or any(root.glob("trainval/*.mat"))
        return "pascal_context" if context else "voc"
    return "folders"


def find_folders(root: Path, split: str) -> tuple[list[Pair], Classes | None]:
    """Pair the files of a folder without a public layout; without splits every fifth pair, by name, is held out."""
    for name in SPLIT_FOLDERS.get(split, (split,)):
        for images in IMAGE_FOLDERS:
            for labels in LABEL_FOLDERS:
                for folders in (
                    (root / images / name, root / labels / name),
                    (root / name / images, root / name / labels),
                ):
                    if all(folder.is_dir() for folder in folders):
                        return match(*folders), None
    others = [name for names in SPLIT_FOLDERS.values() for name in names]
    for images in IMAGE_FOLDERS:
        for labels in LABEL_FOLDERS:
            folders = root / images, root / labels
            if all(folder.is_dir() for folder in folders) and not any((folders[0] / name).is_dir() for name in others):
                if split not in SPLITS:
                    raise DataError(f"{root} has no split `{split}`: of its pairs every fifth is val, the others train")
                pairs = match(*folders)
                return [pair for index, pair in enumerate(pairs) if (index % 5 == 4) == (split == "val")], None
    raise DataError(f"{root} has no images and labels of the split `{split}`; looked for {ARRANGEMENTS}")


def match(images: Path, labels: Path) -> list[Pair]:
    """Pair the files of two folders by their names; DataError counts those without a partner."""
    pictures, masks = _files(images, IMAGE_SUFFIXES), _files(labels, LABEL_SUFFIXES)
    if pictures and not masks:
        raise DataError(
            f"{labels} holds no label maps ({', '.join(LABEL_SUFFIXES)}); a JPEG changes values, so it is none"
        )
    ending = max(ENDINGS, key=lambda ending: sum(f"{key}{ending}" in masks for key in pictures))
    wanted = {f"{key}{ending}": key for key in pictures}
    lonely, unused = sorted(key for name, key in wanted.items() if name not in masks), sorted(set(masks) - set(wanted))
    if lonely or unused:
        parts = [f"{len(lonely):,} of {len(pictures):,} images in {images} have no labels ({name_some(lonely, 3)})"]
        parts += [f"{len(unused):,} of {len(masks):,} label files in {labels} have no image ({name_some(unused, 3)})"]
        raise DataError(" and ".join(part for part, names in zip(parts, (lonely, unused), strict=True) if names))
    return [Pair(wanted[name], pictures[wanted[name]], masks[name]) for name in sorted(wanted)]


def _files(folder: Path, suffixes: Iterable[str]) -> dict[str, Path]:
    """Return the files of a folder, keyed by their path in it without the extension."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.name[0] != ".")
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in found]
    if double := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{folder} has {len(double):,} names with two files each, such as {name_some(double, 1)}")
    return dict(zip(names, found, strict=True))


def _ade20k(root: Path, split: str) -> tuple[list[Pair], Classes]:
    folder = {"train": "training", "val": "validation"}.get(split, split)
    return match(_folder(root / "images" / folder), _folder(root / "annotations" / folder)), known.ade20k()


def _voc(root: Path, split: str) -> tuple[list[Pair], Classes]:
    # The augmented training set (Hariharan et al. 2011) has its masks in a separate folder.
    labels = [root / name for name in ("SegmentationClassAug", "SegmentationClass") if (root / name).is_dir()]
    listed = _listed(root / "ImageSets/Segmentation" / f"{split}.txt")
    return _pairs_of(listed, root, labels, ".png"), known.voc()


def _context(root: Path, split: str, background: bool) -> tuple[list[Pair], Classes]:
    converted = (root / "SegmentationClassContext").is_dir()
    sets = [root / "ImageSets" / name / f"{split}.txt" for name in ("SegmentationContext", "Main")]
    labels = root / ("SegmentationClassContext" if converted else "trainval")
    listed = _listed(next((path for path in sets if path.is_file()), sets[0]))
    suffix = ".png" if converted else ".mat"
    if not converted:  # lists of VOC 2010 name more images than were labelled
        listed = [key for key in listed if (labels / f"{key}{suffix}").is_file()]
    return _pairs_of(listed, root, [labels], suffix), known.pascal_context(background, raw=not converted)


def _cityscapes(root: Path, split: str) -> tuple[list[Pair], Classes]:
    images = _files(_folder(root / "leftImg8bit" / split), (".png",))
    folder = _folder(root / "gtFine" / split)
    train_ids = any(folder.rglob("*_labelTrainIds.png"))
    masks = _files(folder, (".png",))
    ending = f"_gtFine_{'labelTrainIds' if train_ids else 'labelIds'}"
    keys = {key.removesuffix("_leftImg8bit"): path for key, path in images.items()}
    lonely = [key for key in keys if f"{key}{ending}" not in masks]
    _refuse_lonely(lonely, len(keys), folder)
    pairs = [Pair(key, path, masks[f"{key}{ending}"]) for key, path in keys.items()]
    return pairs, known.cityscapes(train_ids=train_ids)


LAYOUTS: dict[str, Callable[[Path, str], tuple[list[Pair], Classes | None]]] = {
    "folders": find_folders,
    "ade20k": _ade20k,
    "voc": _voc,
    "pascal_context": lambda root, split: _context(root, split, background=True),
    "pascal_context_59": lambda root, split: _context(root, split, background=False),
    "cityscapes": _cityscapes,
}


def _pairs_of(keys: list[str], root: Path, labels: list[Path], suffix: str) -> list[Pair]:
    found = {
        key: next((f / f"{key}{suffix}" for f in labels if (f / f"{key}{suffix}").is_file()), None) for key in keys
    }
    images = {key: root / "JPEGImages" / f"{key}.jpg" for key in keys}
    lonely = [key for key, path in found.items() if path is None or not images[key].is_file()]
    _refuse_lonely(lonely, len(keys), root)
    return [Pair(key, images[key], path) for key, path in found.items() if path is not None]


def _refuse_lonely(lonely: list[str], total: int, where: Path) -> None:
    if lonely:
        raise DataError(
            f"{len(lonely):,} of {total:,} images have no image or label file in {where} ({name_some(lonely, 3)})"
        )


def _listed(path: Path) -> list[str]:
    if not path.is_file():
        there = sorted(other.stem for other in path.parent.glob("*.txt"))
        raise DataError(
            f"there is no split `{path.stem}`: {path} is missing" + (f"; there are {name_some(there)}" if there else "")
        )
    return [line.split()[0] for line in path.read_text().splitlines() if line.strip()]


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise DataError(f"there is no folder {path}")
    return path
