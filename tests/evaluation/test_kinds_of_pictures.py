"""Check that a picture has the same pixels for all that read it, whatever kind of file it is."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.evaluations import FID, OPTIONS
from support.odd_pictures import KINDS
from support.photo_crops import PHOTOGRAPHS, crop_photographs
from support.prepared import call_command, images_of

from hamgan.data import open_source
from hamgan.data.decoding.kinds import describe_left_out
from hamgan.data.store import read_manifest
from hamgan.errors import ConfigError
from hamgan.evaluation import FeatureExtractor, evaluate, load_extractor
from hamgan.evaluation.inputs.images import FolderImages
from hamgan.evaluation.inputs.references import open_reference_images
from hamgan.inversion.command import read_pictures


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a class folder of six photographs for every kind of picture, at 32 px."""
    root = tmp_path_factory.mktemp("kinds")
    for name, (ending, write) in KINDS.items():
        (root / name).mkdir()
        for number, pixels in enumerate(crop_photographs(0, 1)):
            (root / name / f"{number}{ending}").write_bytes(write(Image.fromarray(pixels)))
    return root


@pytest.fixture(scope="module")
def store(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("prepared") / "store"
    call_command("--source", pictures, "--output", store, "--resolution", 32, "--workers", 1)
    return store


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return load_extractor("efficientnet-lite0", device="cpu")


@pytest.mark.parametrize("name", KINDS)
def test_what_training_sees_has_fid_0_against_the_pictures_themselves(
    name: str, pictures: Path, store: Path, tmp_path: Path, extractor: FeatureExtractor
) -> None:
    training = open_source(str(pictures), "train", 32)
    of_kind = np.flatnonzero(training.labels == training.class_names.index(name))
    seen = training.read(of_kind)
    assert len(seen) == len(PHOTOGRAPHS)
    images, labels = images_of(store)
    assert np.array_equal(seen, images[labels == read_manifest(store)["class_names"].index(name)])
    whole = FolderImages(pictures / name)
    assert np.array_equal(seen, whole.read(range(len(whole))).permute(0, 2, 3, 1))
    files = sorted((pictures / name).iterdir())
    assert np.array_equal(seen, read_pictures(files, 32).permute(0, 2, 3, 1))
    np.savez(tmp_path / "seen.npz", arr_0=seen)
    row = evaluate(tmp_path / "seen.npz", pictures / name, ("fid",), extractor=extractor, **OPTIONS)
    assert row[FID] == 0
    assert row["samples_hash"] == row["reference_hash"]


def test_class_folders_and_their_store_have_fid_0(pictures: Path, store: Path, extractor: FeatureExtractor) -> None:
    row = evaluate(pictures, store, ("fid",), split="train", extractor=extractor, **OPTIONS)
    assert row[FID] == 0
    assert row["reference_count"] == len(KINDS) * len(PHOTOGRAPHS)


def test_what_is_not_read_is_counted_and_named(
    tmp_path: Path, extractor: FeatureExtractor, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        describe_left_out(2, {".txt": 1, ".heic": 16, "": 5})
        == "2 pictures outside any class folder, 16 .heic (pip install pillow-heif), 5 without ending, 1 .txt"
    )
    crops = crop_photographs(0, 2)
    for number, pixels in enumerate(crops):
        folder = tmp_path / "data" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (tmp_path / "data/a/drawing.svg").write_text("<svg/>")
    for number in range(3):
        (tmp_path / f"data/b/{number}").write_bytes(b"a picture without ending")
    (tmp_path / "data/b" / b"Mr. \xff\xe9\n".decode("utf-8", "surrogateescape")).write_bytes(b"an odd name")
    told = "4 without ending, 1 .svg"
    call_command("--source", tmp_path / "data", "--output", tmp_path / "store", "--resolution", 32, "--workers", 1)
    printed = capsys.readouterr()
    assert f"left out: {told}" in printed.out
    assert f"left out: {told}" in printed.err
    for source in ("data", "store"):
        assert open_source(str(tmp_path / source), "train", 32).describe()["left_out"] == told
        row = evaluate(tmp_path / "data", tmp_path / source, ("fid",), split="train", extractor=extractor, **OPTIONS)
        assert (row["samples_left_out"], row["reference_left_out"]) == (told, told)


def test_a_folder_without_a_picture_that_is_read_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_bytes(b"nothing")
    for opening in (FolderImages, lambda path: open_reference_images(path, "val", 32)):
        with pytest.raises(ConfigError, match=r"holds no pictures but 1 \.xyz"):
            opening(tmp_path)


def test_a_reference_keeps_its_splits_and_takes_a_source_without_them_whole(tmp_path: Path) -> None:
    for number, pixels in enumerate(crop_photographs(0, 1)):
        for folder in ("whole/a", "split/train/a", "split/val/a", "pair/a", "pair/b"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / folder / f"{number}.png")
    (tmp_path / "split/val/a/0.png").unlink()
    (tmp_path / "whole/empty").mkdir()
    assert len(open_reference_images(tmp_path / "whole", "val", 32)) == 6
    assert [len(open_reference_images(tmp_path / "split", split, 32)) for split in ("train", "val")] == [6, 5]
    (tmp_path / "split/val").rename(tmp_path / "elsewhere")  # train alone is no split
    assert len(open_reference_images(tmp_path / "split", "val", 32)) == 6
    call_command("--source", tmp_path / "pair", "--output", tmp_path / "store", "--resolution", 32, "--workers", 1)
    with pytest.raises(ConfigError, match="has no split `val`"):
        open_reference_images(tmp_path / "store", "val", 32)
