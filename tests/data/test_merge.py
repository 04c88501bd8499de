"""Check that parts prepared by several machines become one store, without classes that have no usable picture."""

import subprocess
from pathlib import Path

import pytest
from support.prepared import call_command, command, contents, encoded, images_of, write_classes

from hamgan.data import check_source, open_source
from hamgan.data.decoding.decode import Preparation, decode
from hamgan.data.preparation.inspection import check_hashes
from hamgan.data.store import read_manifest
from hamgan.errors import DataError

PREPARATION = Preparation(32)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """Return a source, and three parts of it that two processes prepared at the same time and one later."""
    root = tmp_path_factory.mktemp("parts")
    write_classes(root / "source" / "train", {"cat": 9, "cup": 4, "rocket": 7})
    write_classes(root / "source" / "val", {"cat": 1, "cup": 1}, first=20)
    folders = [root / f"part{number}" for number in (1, 2, 3)]
    commands = [
        command("--source", root / "source", "--output", folder, "--resolution", 32, "--shard", f"{number}/3")
        for number, folder in enumerate(folders, 1)
    ]
    processes = [subprocess.Popen(words, stdout=subprocess.DEVNULL) for words in commands[:2]]
    assert [process.wait(120) for process in processes] == [0, 0]
    subprocess.run(commands[2], stdout=subprocess.DEVNULL, check=True, timeout=120)
    return root / "source", folders


def test_parts_of_several_processes_are_one_store(parts: tuple[Path, list[Path]], tmp_path: Path) -> None:
    source, folders = parts
    call_command("--source", source, "--output", tmp_path / "whole", "--resolution", 32)
    call_command("merge", tmp_path / "merged", folders[2], folders[0], folders[1])
    whole = contents(tmp_path / "whole")
    assert len(whole) == 6
    assert contents(tmp_path / "merged") == whole


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ([0, 1], r"the parts are 1/3, 2/3; each of 1/3 to 3/3 is needed once"),
        ([0, 1, 1], r"the parts are 1/3, 2/3, 2/3; each of 1/3 to 3/3 is needed once"),
    ],
)
def test_missing_and_doubled_parts_are_named(
    parts: tuple[Path, list[Path]], tmp_path: Path, chosen: list[int], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        call_command("merge", tmp_path / "merged", *(parts[1][number] for number in chosen))
    assert list(tmp_path.iterdir()) == []


def test_parts_of_another_preparation_are_refused(parts: tuple[Path, list[Path]], tmp_path: Path) -> None:
    source, folders = parts
    options = ("--resolution", 48, "--shard", "3/3")
    call_command("--source", source, "--output", tmp_path / "other", *options)
    with pytest.raises(DataError, match="other was prepared with a different preparation than"):
        call_command("merge", tmp_path / "merged", *folders[:2], tmp_path / "other")
    with pytest.raises(DataError, match="is not a prepared store"):
        call_command("merge", tmp_path / "merged", *folders[:2], source)


def test_a_damaged_part_is_named_and_nothing_is_left(parts: tuple[Path, list[Path]], tmp_path: Path) -> None:
    images = parts[1][1] / "train" / "images.npy"
    before = images.read_bytes()
    images.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    try:
        with pytest.raises(DataError, match="part2: images of train differ from its manifest's hash"):
            call_command("merge", tmp_path / "merged", *parts[1])
    finally:
        images.write_bytes(before)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def with_a_useless_class(tmp_path: Path) -> Path:
    """Write three classes; `cup` has no usable picture to train on, but one to validate."""
    root = write_classes(tmp_path / "source" / "train", {"cat": 3, "cup": 2, "rocket": 2}).parent
    write_classes(root / "val", {"cat": 1, "cup": 1, "rocket": 2}, first=9)
    for number in range(2):
        (root / "train/cup" / f"{number:04d}.jpg").write_bytes(b"")
    return root


def check_without_cups(store: Path) -> None:
    manifest = read_manifest(store)
    assert manifest["class_names"] == ["cat", "rocket"]
    assert manifest["left_out"]["class_folders"] == ["cup"]
    for split, counts, first in (("train", {"cat": 3, "rocket": 2}, 0), ("val", {"cat": 1, "rocket": 2}, 9)):
        images, labels = images_of(store, split)
        for label, (name, count) in enumerate(counts.items()):
            wanted = {decode(encoded(name, first + i), PREPARATION).tobytes() for i in range(count)}
            assert {image.tobytes() for image in images[labels == label]} == wanted
        check_source(open_source(str(store), split, 32))
    check_hashes(store)


def test_a_class_without_one_usable_picture_is_left_out(
    with_a_useless_class: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("--source", with_a_useless_class, "--output", tmp_path / "store", "--resolution", 32)
    printed = capsys.readouterr().out
    assert "5 train, 3 val images of 2 classes" in printed
    assert "left out: 1 classes without usable pictures: cup" in printed
    assert "skipped: 2 pictures" in printed
    check_without_cups(tmp_path / "store")


def test_parts_leave_such_a_class_out_when_they_are_merged(with_a_useless_class: Path, tmp_path: Path) -> None:
    parts = [tmp_path / f"part{number}" for number in (1, 2)]
    for number, part in enumerate(parts, 1):
        options = ("--resolution", 32, "--workers", 1, "--shard", f"{number}/2")
        call_command("--source", with_a_useless_class, "--output", part, *options)
    call_command("merge", tmp_path / "store", *reversed(parts))
    check_without_cups(tmp_path / "store")
