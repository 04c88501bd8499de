"""Check that a store is complete, the same after any kill, and that bad input is refused with a sentence."""

import contextlib
import json
import random
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from support.prepared import call_command, contents, encoded, images_of, kill_when, run_command, write_classes

from hamgan.data import check_source, class_histogram, open_source
from hamgan.data.decoding.decode import Preparation, decode
from hamgan.data.finding.listing import list_pictures
from hamgan.data.finding.picture import Listing, Picture
from hamgan.data.preparation.inspection import check_hashes
from hamgan.data.preparation.prepare import prepare
from hamgan.data.store import HEADER_BYTES, Manifest, array_header
from hamgan.errors import DataError, PreparationError
from hamgan.files import lock

PREPARATION = Preparation(32)
COUNTS = {"cat": 5, "cup": 3}


def make(source: Path, store: Path, preparation: Preparation = PREPARATION, strict: bool = False) -> Manifest:
    """Prepare a store in this process with one worker."""
    listing = list_pictures(str(source), store / "work" / "unpacked")
    return prepare(str(source), listing, store, preparation, workers=1, strict=strict)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    make(write_classes(root / "source", COUNTS), root / "store")
    return root / "store"


def test_a_store_holds_every_picture_with_its_class(store: Path) -> None:
    images, labels = images_of(store)
    wanted = [decode(encoded(name, number), PREPARATION) for name, count in COUNTS.items() for number in range(count)]
    assert np.array_equal(images, wanted)
    assert labels.tolist() == [0] * 5 + [1] * 3
    source = open_source(str(store), "train", 32)
    check_source(source)
    assert source.class_names == ["cat", "cup"]
    assert class_histogram(source).tolist() == [5, 3]
    indices = np.array([6, 0, 6])
    assert np.array_equal(source.read(indices), images[indices])
    out = np.zeros((3, 32, 32, 3), np.uint8)
    assert source.read(indices, out) is out
    assert np.array_equal(out, images[indices])
    with pytest.raises(IndexError, match="images 0 to 7"):
        source.read(np.array([8]))
    check_hashes(store)
    assert not (store / "work").exists()


def test_wrong_requests_to_a_store_get_a_sentence(store: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="was prepared at 32 px, not 64"):
        open_source(str(store), "train", 64)
    with pytest.raises(DataError, match="has no split `val`; it has train"):
        open_source(str(store), "val", 32)
    for name, damage, message in (
        ("short", lambda copy: (copy / "train/images.npy").write_bytes(b"\x93NUMPY"), "missing or damaged"),
        ("other", lambda copy: np.save(copy / "train/images.npy", np.zeros((8, 8, 8, 3), np.uint8)), "the manifest: 8"),
        ("text", lambda copy: (copy / "manifest.json").write_text("{"), "is damaged"),
        ("old", lambda copy: (copy / "manifest.json").write_text('{"format": "x"}'), "has format 'x'"),
    ):
        copy = Path(shutil.copytree(store, tmp_path / name))
        damage(copy)
        with pytest.raises(DataError, match=message):
            open_source(str(copy), "train", 32)


def test_a_store_larger_than_memory_opens_and_reads(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(store, tmp_path / "large"))
    count = 2**31  # 6.6 TB, nearly all of it a hole
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["splits"]["train"]["count"] = count
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with (copy / "train/images.npy").open("r+b") as file:
        file.write(array_header(count, 32))
        file.truncate(HEADER_BYTES + count * 32 * 32 * 3)
    labels = np.lib.stride_tricks.as_strided(np.zeros(1, np.int64), (count,), (0,))
    monkeypatch.setattr("hamgan.data.store.open_labels", lambda *_: labels)
    source = open_source(str(copy), "train", 32)
    images = source.read(np.array([0, count - 1]))
    assert np.array_equal(images[0], images_of(store)[0][0])
    assert not images[1].any()


def test_running_again_does_nothing_and_a_moved_source_is_the_same_one(store: Path, tmp_path: Path) -> None:
    before = contents(store)
    stamp = (store / "train/images.npy").stat().st_mtime_ns
    moved = shutil.copytree(store.parent / "source", tmp_path / "moved")
    make(moved, store)
    assert contents(store) == before
    assert (store / "train/images.npy").stat().st_mtime_ns == stamp


def test_unusable_pictures_are_listed_and_the_others_stay_complete(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "source", {"cat": 4, "cup": 4})
    (root / "cat" / "0001.jpg").write_bytes(b"")
    (root / "cup" / "0003.jpg").write_bytes(encoded("cup", 3)[:300])
    (root / "cup" / "page.jpg").write_text("<html>not found</html>")
    (root / "cup" / "empty").mkdir()
    (root / "nobody").mkdir()
    (root / "stray.png").write_bytes(encoded("cat", 1, "PNG"))
    odd_name = b"\xff\xe9 \n\xf0\x9f\x90\x88.jpg".decode("utf-8", "surrogateescape")
    (root / "cat" / odd_name).write_bytes(b"no picture")
    (root / "cat" / "ü 猫.JPG").write_bytes(encoded("cat", 9))
    output = run_command("--source", root, "--output", tmp_path / "store", "--resolution", 32)
    assert "7 train images of 2 classes" in output
    assert "left out: 1 classes without usable pictures: nobody" in output
    assert "left out: 1 pictures outside any class folder" in output
    assert "skipped: 4 pictures" in output
    skipped = [json.loads(line) for line in (tmp_path / "store/skipped.jsonl").read_text().splitlines()]
    reasons = {row["file"]: row["reason"] for row in skipped}
    assert reasons["cat/0001.jpg"] == "is empty (0 bytes)"
    assert reasons["cup/page.jpg"] == "is a web page, as a failed download leaves it; fetch the file again"
    assert "cannot be decoded" in reasons["cup/0003.jpg"]
    assert len(reasons) == 4
    images, labels = images_of(tmp_path / "store")
    wanted = {
        decode(encoded(name, i), PREPARATION).tobytes() for name, i in [("cat", 0), ("cat", 2), ("cat", 3), ("cat", 9)]
    }
    assert {image.tobytes() for image in images[labels == 0]} == wanted
    wanted = {decode(encoded("cup", i), PREPARATION).tobytes() for i in range(3)}
    assert {image.tobytes() for image in images[labels == 1]} == wanted


def test_strict_stops_at_an_unusable_picture(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "source", {"cat": 3, "cup": 2})
    (root / "cup" / "0001.jpg").write_bytes(b"")
    with pytest.raises(PreparationError, match=r"cup/0001.jpg is empty \(0 bytes\)"):
        call_command("--source", root, "--output", tmp_path / "store", "--resolution", 32, "--strict")
    assert not (tmp_path / "store/manifest.json").exists()
    with pytest.raises(DataError, match="its preparation has not finished; run the same command again"):
        open_source(str(tmp_path / "store"), "train", 32)


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a source of many units (at 700 px one has 11 pictures), and its store made without interruption."""
    root = tmp_path_factory.mktemp("larger")
    write_classes(root / "source" / "train", {"cat": 60, "cup": 60})
    write_classes(root / "source" / "val", {"cat": 8, "cup": 8}, first=60)
    for name in ("cat/0003.jpg", "cat/0040.jpg", "cup/0059.jpg"):
        (root / "source/train" / name).write_bytes(b"broken")
    make(root / "source", root / "store", Preparation(700))
    return root / "source", root / "store"


def test_interruptions_at_any_moment_lose_and_double_nothing(larger: tuple[Path, Path], tmp_path: Path) -> None:
    source, wanted = larger
    store = tmp_path / "store"
    options = ("--source", source, "--output", store, "--resolution", 700, "--workers", 2)

    def finished_units() -> int:
        return len(list(store.glob("work/*-*.json")))

    # One store is stopped in every way in turn: while it works, while gaps close and hashes are made, at the very end.
    for number, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 75), (signal.SIGTERM, 75)):
        enough = finished_units() + random.randint(1, 2)
        assert kill_when(partial(lambda least: finished_units() >= least, enough), *options, number=number) == code
    kill_when(lambda: (store / "train/labels.npy").exists(), *options)
    kill_when(lambda: (store / "manifest.json").exists(), *options)
    make(source, store, Preparation(700))
    assert contents(store) == contents(wanted)


def test_a_store_whose_work_folder_was_half_removed_is_finished(larger: tuple[Path, Path], tmp_path: Path) -> None:
    # A kill after the manifest: some markers are gone, the plan is still there. Nothing may be done again.
    source, wanted = larger
    copy = Path(shutil.copytree(wanted, tmp_path / "store"))
    (copy / "work").mkdir()
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "work/plan.json").write_text(json.dumps(manifest["plan"]))
    make(source, copy, Preparation(700))
    assert contents(copy) == contents(wanted)


def test_workers_end_with_a_killed_preparation(
    larger: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def alive() -> list[str]:
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if str(tmp_path).encode() in (entry / "environ").read_bytes():
                    found.append((entry / "cmdline").read_text())
        return [line for line in found if line]  # an ended process that nobody has waited for has no command line

    monkeypatch.setenv("HAMGAN_TEST_MARK", str(tmp_path))
    options = ("--source", larger[0], "--output", tmp_path / "store", "--resolution", 700, "--workers", 2)
    kill_when(lambda: len(list(tmp_path.glob("store/work/train-*.json"))) >= 1, *options)
    deadline = time.monotonic() + 10
    while alive() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert alive() == []


def test_another_store_or_other_options_are_refused(larger: tuple[Path, Path], tmp_path: Path) -> None:
    source, _ = larger
    with pytest.raises(PreparationError, match=r"train/cat/0003\.jpg is not a picture"):
        make(source, tmp_path / "store", Preparation(700), strict=True)
    options = ("--source", source, "--output", tmp_path / "store", "--resolution", 700)
    with pytest.raises(DataError, match="holds an unfinished preparation with a different preparation; repeat its"):
        call_command(*options, "--crop", "adm")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/thesis.tex").write_text("mine")
    with pytest.raises(DataError, match="is not empty and not a store"):
        call_command("--source", source, "--output", tmp_path / "taken")
    assert [item.name for item in (tmp_path / "taken").iterdir()] == ["thesis.tex"]


def test_a_second_process_is_kept_out(store: Path, tmp_path: Path) -> None:
    (tmp_path / "busy").mkdir()
    with lock(tmp_path / "busy"), pytest.raises(PreparationError, match="another process is preparing"):
        make(store.parent / "source", tmp_path / "busy")


def test_a_disk_that_is_too_small_is_noticed_first(tmp_path: Path) -> None:
    count = shutil.disk_usage(tmp_path).free // (1024**2 * 3) + 2
    place = ("file", "/nowhere.jpg", 1)
    listing = Listing(["a", "b"], {"train": [Picture("x", i % 2, place) for i in range(count)], "val": []})
    with pytest.raises(PreparationError, match=r"needs [\d.]+ GB, but only [\d.]+ GB are free there"):
        prepare("x", listing, tmp_path / "store", Preparation(1024))
    assert not (tmp_path / "store/train").exists()


def test_a_source_that_disappears_stops_and_continues(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "source", {"cat": 3, "cup": 3})
    listing = list_pictures(str(root), tmp_path)
    (root / "cup").rename(tmp_path / "away")
    with pytest.raises(PreparationError, match=r"cup/0000.jpg cannot be read \(.*; the same command continues"):
        prepare(str(root), listing, tmp_path / "store", PREPARATION, workers=1)
    (tmp_path / "away").rename(root / "cup")
    assert make(root, tmp_path / "store")["splits"]["train"]["count"] == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--resolution", 4), "--resolution is 4; allowed: 8 to 1024"),
        (("--val-fraction", 1), "--val-fraction is 1.0; allowed: 0 to below 1"),
        (("--shard", "3/2"), "`3/2` is not i/n with i from 1 to n"),
        (("--workers", 0), "--workers is 0; allowed: 1 and above"),
        (("--background", "greenish"), "`greenish` is not a colour such as white or #ff8000"),
        (("--labels", "/no/such.csv"), "no label file at /no/such.csv"),
    ],
)
def test_wrong_options_get_a_sentence(
    store: Path, tmp_path: Path, options: tuple[object, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises((DataError, SystemExit)) as caught:
        call_command("--source", store.parent / "source", "--output", tmp_path / "store", *options)
    assert message in f"{caught.value} {capsys.readouterr().err}"
    assert not (tmp_path / "store").exists()


def test_one_class_or_an_empty_one_is_refused_with_the_counts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has one class only \(`cat`, 3 pictures\)"):
        make(write_classes(tmp_path / "one", {"cat": 3}), tmp_path / "store")
    write_classes(tmp_path / "two" / "train", {"cat": 2, "cup": 1})
    write_classes(tmp_path / "two" / "val", {"cat": 1, "rocket": 1})
    with pytest.raises(DataError, match=r"1 of 3 classes have no train pictures, e.g. `rocket`"):
        make(tmp_path / "two", tmp_path / "store")


def test_holding_out_takes_a_share_of_every_class_and_never_all_of_one(tmp_path: Path) -> None:
    root = write_classes(tmp_path, {"cat": 20, "cup": 1, "rocket": 4})
    listing = list_pictures(str(root), tmp_path / "spool", val_fraction=0.25)
    counts = {
        split: np.bincount([picture.label for picture in pictures], minlength=3).tolist()
        for split, pictures in listing.pictures.items()
    }
    assert counts == {"train": [15, 1, 3], "val": [5, 0, 1]}
    assert not set(listing.pictures["train"]) & set(listing.pictures["val"])
    assert list_pictures(str(root), tmp_path / "spool", val_fraction=0.25) == listing


def test_one_usable_class_is_too_few(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "source", {"cat": 2, "cup": 1})
    (root / "cup" / "0000.jpg").write_bytes(b"")
    with pytest.raises(PreparationError, match=r"1 of 2 classes have no usable picture, skipped\.jsonl says why"):
        make(root, tmp_path / "store")
    assert not (tmp_path / "store/manifest.json").exists()
    assert "cup/0000.jpg" in (tmp_path / "store/skipped.jsonl").read_text()
