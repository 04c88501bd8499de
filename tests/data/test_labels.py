"""Check that label files mean the pictures that they name, and that none is taken half."""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.prepared import encoded, run_command

from hamgan.data.finding.listing import list_pictures
from hamgan.errors import DataError

SMALL = encoded("cat", 0)
TRUTH = {"cam_a/000.png": "cup", "cam_a/001.png": "cat", "cam_b/000.png": "cat", "cam_b/001.png": "brick wall"}
UNIQUE = {"one/a.b.png": "cup", "one/3.png": "cat", "two/c.png": "cup", "two/d.PNG": "12"}


def write(root: Path, truth: dict[str, str]) -> Path:
    for name in truth:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(SMALL)
    return root


def classes_by(labels: Path, content: str | bytes, source: Path) -> dict[str, str]:
    """Return the class of every picture by a label file of this content."""
    labels.write_bytes(content if isinstance(content, bytes) else content.encode())
    listing = list_pictures(str(source), labels.parent / "spool", labels=labels)
    return {picture.key: listing.class_names[picture.label] for found in listing.pictures.values() for picture in found}


def table(truth: dict[str, str], line: str, header: str = "") -> str:
    """Write a line per picture, with {n}, {name}, {back} (backslashes), {base}, {stem} and {label}."""
    lines = [
        line.format(
            n=n, name=name, back=name.replace("/", "\\"), base=Path(name).name, stem=Path(name).stem, label=label
        )
        for n, (name, label) in enumerate(truth.items())
    ]
    return "\n".join([header, *lines] if header else lines) + "\n"


PATHS: dict[str, str | bytes] = {
    "csv": table(TRUTH, "{name},{label}", "path,label"),
    "csv without header": table(TRUTH, "{name},{label}"),
    "csv with the root": table(TRUTH, "images/{name},{label}", "filename,class"),
    "csv of another machine": table(TRUTH, "/home/me/Images/{name},{label}", "file,class"),
    "csv from Windows": table(TRUTH, '"D:\\work\\images\\{back}","{label}"', "path,label"),
    "csv with ./": table(TRUTH, "./{name}, {label}", "path, label"),
    "tsv": table(TRUTH, "{name}\t{label}\t0\t1\t2"),
    "semicolons": table(TRUTH, "{name};{label};1,5", "Datei;Klasse;Breite").replace("Klasse", "label"),
    "bars": table(TRUTH, "{name}|{label}"),
    "lines": table(TRUTH, "{name} {label}"),
    "lines for Excel": "sep=;\n" + table(TRUTH, "{name};{label}", "path;label"),
    "byte order mark": b"\xef\xbb\xbf" + table(TRUTH, "{name},{label}", "path,label").encode(),
    "Excel's Unicode": table(TRUTH, "{name}\t{label}", "path\tlabel").encode("utf-16"),
    "pandas' index": table(TRUTH, "{n},{name},{label}", ",image,label"),
    "index without header": table(TRUTH, "{n},{name},{label}"),
    "path last": table(TRUTH, "64,48,{label},{name}", "Width,Height,ClassId,Path"),
    "path and class of two columns": table(TRUTH, "{label},{name}"),
    "foreign header": table(TRUTH, "{name},{label}", "fichier,classe"),
    "number and name of the class": table(TRUTH, "7,{name},{label},train", "class id,filepaths,labels,data set"),
    "without ending": table(TRUTH, "{name},{label}", "id,label").replace(".png", ""),
    "capitals": table(TRUTH, "{name},{label}", "path,label").replace("cam_", "Cam_").replace("png", "PNG"),
    "json map": json.dumps({f"images/{name}": label for name, label in TRUTH.items()}),
    "json of NVIDIA": json.dumps({"labels": list(TRUTH.items())}),
    "json pairs": json.dumps(list(TRUTH.items())),
    "json records": json.dumps([{"file_name": name, "class": label, "n": 1} for name, label in TRUTH.items()]),
    "json map of records": json.dumps({name: {"label": label, "w": 3} for name, label in TRUTH.items()}),
    "json lines": "\n".join(json.dumps({"file_name": name, "label": label}) for name, label in TRUTH.items()),
    "json map of classes": json.dumps(
        {label: [name for name in TRUTH if TRUTH[name] == label] for label in sorted(set(TRUTH.values()))}
    ),
    "one-hot": "image,cup,cat,brick wall\n"
    + "".join(
        f"{name}," + ",".join("1.0" if label == other else "0.0" for other in ("cup", "cat", "brick wall")) + "\n"
        for name, label in TRUTH.items()
    ),
}


@pytest.mark.parametrize("kind", PATHS)
def test_paths_are_matched_whatever_file_gives_them(kind: str, tmp_path: Path) -> None:
    source = write(tmp_path / "images", TRUTH)
    assert classes_by(tmp_path / "labels.txt", PATHS[kind], source) == TRUTH


NAMES = {
    "base names": table(UNIQUE, "{base},{label}", "image,label"),
    "names without ending": table(UNIQUE, "HAM_{n},{stem},{label},histo,{n}", "lesion_id,image_id,dx,dx_type,age"),
    "names without ending, index like a name": table(UNIQUE, "3,{base},{label}", ",id,label"),
    "json map": json.dumps({Path(name).stem: label for name, label in UNIQUE.items()}),
    "lines": table(UNIQUE, "{base} {label}"),
}


@pytest.mark.parametrize("kind", NAMES)
def test_names_alone_do_where_they_are_unique(kind: str, tmp_path: Path) -> None:
    source = write(tmp_path / "images", UNIQUE)
    assert classes_by(tmp_path / "labels.txt", NAMES[kind], source) == UNIQUE


def test_archives_are_matched_like_folders(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for name in TRUTH:
            archive.writestr(f"set/{name}", SMALL)
    found = classes_by(tmp_path / "labels.csv", table(TRUTH, "images\\set\\{back},{label}"), tmp_path / "images.zip")
    assert found == {f"set/{name}": label for name, label in TRUTH.items()}


def test_numbers_of_classes_are_not_taken_for_pictures(tmp_path: Path) -> None:
    truth = {"0.png": "1", "1.png": "0", "2.png": "2", "3.png": "1"}
    source = write(tmp_path / "images", truth)
    for line, header in (
        ("{base},{label}", "file,label"),
        ("{stem},{label}", "id,label"),
        ("{stem} {label}", ""),
        ("{label} {stem}", ""),
    ):
        assert classes_by(tmp_path / "labels.csv", table(truth, line, header), source) == truth
    assert classes_by(tmp_path / "labels.csv", table(truth, "{base},{label}.0", "file,label"), source) == truth


def test_the_folder_nearest_to_the_line_is_meant(tmp_path: Path) -> None:
    truth = {"x.png": "cup", "sub/x.png": "cat", "sub/sub/x.png": "dog"}
    assert (
        classes_by(tmp_path / "labels.csv", table(truth, "{name},{label}"), write(tmp_path / "images", truth)) == truth
    )
    # The source is one of two folders whose pictures share their names; the other's lines are too many.
    lines = table(TRUTH, "{name},{label}", "path,label")
    with pytest.raises(
        DataError, match=r"2 of its 4 lines name no picture of .*cam_b, e\.g\. line 2 `cam_a/000\.png` `cup`"
    ):
        classes_by(tmp_path / "labels.csv", lines, write(tmp_path / "images", TRUTH) / "cam_b")


def fails(tmp_path: Path, source: Path, content: str) -> str:
    with pytest.raises(DataError) as caught:
        classes_by(tmp_path / "labels.csv", content, source)
    return str(caught.value).replace(str(tmp_path), "")


ALL = [f"{name},{label}" for name, label in TRUTH.items()]


@pytest.mark.parametrize(
    ("lines", "messages"),
    [
        (
            ["a/000.png,cup", "a/001.png,cat"],
            [
                "none of its 2 lines names one of the 4 pictures of /images",
                "line 1 `a/000.png` `cup`, picture `cam_a/000.png`",
            ],
        ),
        (
            ["cam_a/000.png,cup", "cam_a/001.png,cat"],
            ["2 of 4 pictures of /images have no line, e.g. `cam_b/000.png`", "line 1 `cam_a/000.png` `cup`"],
        ),
        (
            ["000.png,cup", "001.png,cat"],
            ["2 of its 2 lines name several pictures", "line 1 `000.png` `cup`: `cam_a/000.png`, `cam_b/000.png`"],
        ),
        (
            [*ALL, "cam_c/000.png,cat"],
            ["1 of its 5 lines name no picture", "e.g. line 5 `cam_c/000.png` `cat`; a picture is `cam_a/000.png`"],
        ),
        (
            [*ALL, "images/cam_a/000.png,cat"],
            [
                "gives two classes to 1 of the 4 pictures",
                "`cam_a/000.png`: line 1 `cam_a/000.png` `cup`, line 5 `images/",
            ],
        ),
    ],
)
def test_a_file_that_does_not_fit_shows_a_line_of_each_side(
    lines: Sequence[str], messages: Sequence[str], tmp_path: Path
) -> None:
    source = write(tmp_path / "images", TRUTH)
    found = fails(tmp_path, source, "\n".join(lines))
    assert [part for part in messages if part not in found] == [], found


def test_two_lines_that_agree_are_one(tmp_path: Path) -> None:
    source = write(tmp_path / "images", TRUTH)
    lines = table(TRUTH, "{name},{label}", "path,label") + table(TRUTH, "images/{name},{label}")
    assert classes_by(tmp_path / "labels.csv", lines, source) == TRUTH


def test_columns_that_leave_a_choice_are_named(tmp_path: Path) -> None:
    source = write(tmp_path / "images", UNIQUE)
    lines = "image,sex,colour\n" + "".join(f"{name},{n % 2},{'rg'[n // 2]}\n" for n, name in enumerate(UNIQUE))
    assert "any of `sex`, `colour` could be the class; name its column `label`" in fails(tmp_path, source, lines)
    assert "has no column of classes" in fails(tmp_path, source, "image,index\n" + table(UNIQUE, "{name},{n}"))


@pytest.mark.parametrize("content", ["{", "[1, 2]", '{"a.png": [0.5, 0.5]}', '{"labels": null}', "", "\n\n", "x\ny\n"])
def test_files_without_labels_get_a_sentence(content: str, tmp_path: Path) -> None:
    source = write(tmp_path / "images", UNIQUE)
    assert fails(tmp_path, source, content).startswith("/labels.csv")


def test_held_out_pictures_in_no_class_folder_stand_beside_class_folders(tmp_path: Path) -> None:
    write(
        tmp_path / "set",
        {"train/cat/0.png": "", "train/cup/1.png": "", "val/2.png": "", "val/3.png": "", "test/4.png": ""},
    )
    labels = tmp_path / "val.csv"
    labels.write_text("image,label\n2.png,cat\n3.png,cup\n")
    listing = list_pictures(str(tmp_path / "set"), tmp_path, labels=labels)
    assert {split: [picture.key for picture in found] for split, found in listing.pictures.items()} == {
        "train": ["train/cat/0.png", "train/cup/1.png"],
        "val": ["val/2.png", "val/3.png"],
    }
    assert listing.class_names == ["cat", "cup"]


def test_what_was_taken_is_printed(tmp_path: Path) -> None:
    source = write(tmp_path / "images", UNIQUE)
    (tmp_path / "labels.csv").write_text(table(UNIQUE, "{n},{base},{label}", ",image,label"))
    output = run_command(
        *("--source", source, "--labels", tmp_path / "labels.csv", "--output", tmp_path / "store", "--resolution", 32)
    )
    assert (
        f"note: classes from {tmp_path}/labels.csv: 4 lines, 3 classes, pictures in column `image`, classes in"
        in output
    )
    assert "found 4 train pictures of 3 classes: `12`, `cat`, `cup`" in output
