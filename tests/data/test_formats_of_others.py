"""Check that files of other tools are read, or named with the way out."""

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from support.evaluations import FID, OPTIONS
from support.photo_crops import PHOTOGRAPHS, crop_photographs, save_by_class, save_flat
from support.prepared import call_command, images_of

from hamgan.data import open_source
from hamgan.data.store import read_manifest
from hamgan.errors import CheckpointError, ConfigError, DataError
from hamgan.evaluation import Resources, evaluate, load_extractor
from hamgan.evaluation.inputs.images import FolderImages
from hamgan.files import recognise_file
from hamgan.sampling import load_generator

CROPS = crop_photographs(0, 4)
LABELS = np.repeat([2, 10, 0, 7, 11, 5], 4)


def write_hdf5(path: Path, images: np.ndarray, labels: np.ndarray, compression: str | None = None) -> Path:
    """Write images [N, H, W, 3] as BigGAN-PyTorch's and StudioGAN's scripts do: in chunks, that grow by appending."""
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    pixels, size = images.transpose(0, 3, 1, 2), images.shape[1]
    with h5py.File(path, "w") as file:
        shape = {"maxshape": (len(pixels), 3, size, size), "chunks": (5, 3, size, size), "compression": compression}
        file.create_dataset("imgs", (7, 3, size, size), dtype="uint8", **shape)[...] = pixels[:7]
        file.create_dataset("labels", (7,), dtype="int64", maxshape=(len(labels),), chunks=(5,))[...] = labels[:7]
        file["imgs"].resize(len(pixels), axis=0)
        file["labels"].resize(len(pixels), axis=0)
        file["imgs"][7:], file["labels"][7:] = pixels[7:], labels[7:]
    return path


@pytest.mark.parametrize("compression", [None, "lzf"])
def test_hdf5_trains_and_prepares_with_its_classes(tmp_path: Path, compression: str | None) -> None:
    mixed = np.random.default_rng(0).permutation(len(CROPS))
    file = write_hdf5(tmp_path / "ILSVRC32.hdf5", CROPS[mixed], LABELS[mixed], compression)
    source = open_source(str(file), "train", 32)
    assert source.class_names == ["0", "2", "5", "7", "10", "11"]
    call_command("--source", file, "--output", tmp_path / "store", "--resolution", 32, "--workers", 1)
    stored, labels = images_of(tmp_path / "store")
    assert read_manifest(tmp_path / "store")["class_names"] == source.class_names
    for number in LABELS[::4]:
        label = source.class_names.index(str(number))
        wanted = sorted(image.tobytes() for image in CROPS[number == LABELS])
        for images in (source.read(np.flatnonzero(source.labels == label)), stored[labels == label]):
            assert sorted(image.tobytes() for image in images) == wanted


def test_a_second_hdf5_is_the_val_split(tmp_path: Path) -> None:
    train = write_hdf5(tmp_path / "train.hdf5", CROPS, LABELS)
    held_out = write_hdf5(tmp_path / "val.hdf5", CROPS[8:20], LABELS[8:20])
    options = ("--output", tmp_path / "store", "--resolution", 32, "--workers", 1)
    call_command("--source", train, "--val-source", held_out, *options)
    images, labels = images_of(tmp_path / "store", "val")
    names = read_manifest(tmp_path / "store")["class_names"]
    assert sorted(names[label] for label in labels) == sorted(map(str, LABELS[8:20]))
    assert np.array_equal(images[labels == names.index("7")], CROPS[12:16])
    other = write_hdf5(tmp_path / "other.hdf5", CROPS, LABELS + 1)
    with pytest.raises(DataError, match=r"other\.hdf5 has classes that .*train\.hdf5 lacks: `1`, `3`"):
        call_command("--source", train, "--val-source", other, "--output", tmp_path / "x")


def test_hdf5_is_a_reference_taken_whole(tmp_path: Path) -> None:
    file = write_hdf5(tmp_path / "images.hdf5", CROPS, LABELS)
    samples = save_flat(CROPS, tmp_path / "flat")
    row = evaluate(samples, file, ("fid",), **OPTIONS)
    assert (row[FID], row["reference_count"], row["reference_split"]) == (0, len(CROPS), None)


def test_hdf5_with_something_else_says_what_it_holds(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["images"] = np.zeros((4, 8, 8, 3), np.float32)
    with pytest.raises(DataError, match=r"must hold imgs, .*; it has images float32 \[4, 8, 8, 3\]"):
        open_source(str(tmp_path / "x.h5"), "train", 32)
    (tmp_path / "y.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(4000))
    with pytest.raises(DataError, match="is a damaged HDF5 file"):
        open_source(str(tmp_path / "y.h5"), "train", 32)


def test_archives_of_pictures_serve_on_both_sides(tmp_path: Path) -> None:
    flat, classes = save_flat(CROPS, tmp_path / "flat"), save_by_class(CROPS, tmp_path / "classes")
    archives = []
    for folder in (flat, classes):
        archives.append(tmp_path / f"{folder.name}.zip")
        with zipfile.ZipFile(archives[-1], "w") as archive:
            for file in sorted(folder.rglob("*.png")):
                archive.write(file, file.relative_to(folder))
    for samples in archives:
        for reference in archives:
            row = evaluate(samples, reference, ("fid",), **OPTIONS)
            assert (row[FID], row["num_samples"], row["reference_count"]) == (0, len(CROPS), len(CROPS))


def test_a_zip_of_dataset_tool_is_a_reference(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "stylegan.zip", "w") as archive:
        names = [f"{i // 10:05d}/img{i:08d}.png" for i in range(len(CROPS))]
        for name, pixels in zip(names, CROPS, strict=True):
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "PNG")
            archive.writestr(name, file.getvalue())
        archive.writestr("dataset.json", json.dumps({"labels": None}))
    row = evaluate(save_flat(CROPS, tmp_path / "flat"), tmp_path / "stylegan.zip", ("fid",), **OPTIONS)
    assert (row[FID], row["reference_count"]) == (0, len(CROPS))


@pytest.mark.parametrize("names", [("arr_0", "arr_1"), ("x", "y")])
def test_arrays_of_images_serve_on_both_sides(tmp_path: Path, names: tuple[str, str]) -> None:
    others = crop_photographs(1, 4)
    for file, images in (("samples", others), ("reference", CROPS)):
        pixels = images if names[0] == "arr_0" else images.transpose(0, 3, 1, 2)
        arrays: dict[str, Any] = {names[0]: pixels, names[1]: np.repeat(np.arange(len(PHOTOGRAPHS)), 4)}
        np.savez(tmp_path / f"{file}.npz", **arrays)
    extractor = load_extractor("efficientnet-lite0", device="cpu")
    metrics, options = ("fid", "kid", "per_class"), {**OPTIONS, "extractor": extractor}
    row = evaluate(tmp_path / "samples.npz", tmp_path / "reference.npz", metrics, **options)
    folders = (save_by_class(others, tmp_path / "fake"), save_by_class(CROPS, tmp_path / "real"))
    expected = evaluate(*folders, metrics, **options)
    for key in (FID, "kid_efficientnet_lite0", "class_distance_efficientnet_lite0"):
        assert row[key] == pytest.approx(expected[key], rel=1e-6), key
    assert row["reference_hash"] == expected["reference_hash"]


def test_statistics_of_others_are_a_reference(tmp_path: Path) -> None:
    extractor = load_extractor("efficientnet-lite0", device="cpu")
    found = Resources(extractor).measure(FolderImages(save_flat(CROPS, tmp_path / "real")), keep_features=True)
    moments: dict[str, Any] = {"mu": found.mean.numpy(), "sigma": found.covariance.numpy()}
    hidden: Any = {"hparams": {"nsample": 24}}  # dgm-eval keeps a pickled dictionary beside reps
    np.savez(tmp_path / "dgm_eval.npz", reps=found.kept_features.double().numpy(), **hidden)
    np.savez(tmp_path / "adm.npz", arr_0=CROPS, **moments, mu_s=np.zeros(3), sigma_s=np.eye(3))
    np.savez(tmp_path / "edm.npz", **moments)
    samples = save_flat(crop_photographs(1, 4), tmp_path / "samples")
    options: dict[str, Any] = {**OPTIONS, "extractor": extractor}
    expected = evaluate(samples, tmp_path / "real", ("fid", "kid"), **options)
    for name in ("dgm_eval", "adm", "edm"):
        metrics = ("fid",) if name == "edm" else ("fid", "kid")
        row = evaluate(samples, tmp_path / f"{name}.npz", metrics, **options)
        for key in (FID, "kid_efficientnet_lite0")[: len(metrics)]:
            assert row[key] == pytest.approx(expected[key], rel=1e-5), (name, key)


class Payload:
    """Create a file when it is unpickled: nothing outside `hamgan convert` may do that."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def foreign_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Write files that others take for generators, data or references; with what must be said of each."""
    payload = Payload(folder / "pwned")
    (folder / "pointer.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    torch.save({"weight": torch.ones(2)}, folder / "G_ema.pth")
    torch.save({"weight": torch.ones(2)}, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    styles = {"training_set_kwargs": {"class_name": "dnnlib.EasyDict"}, "G_ema": payload}
    (folder / "network-snapshot.pkl").write_bytes(pickle.dumps(styles, protocol=4))
    statistics = {"num_images": 9, "fid": {"mu": np.zeros(2048), "sigma": np.eye(4)}, "more": payload}
    for protocol in (3, 4):
        (folder / f"img512-{protocol}.pkl").write_bytes(pickle.dumps(statistics, protocol=protocol))
    (folder / "other.pkl").write_bytes(pickle.dumps([payload]))
    (folder / "page.zip").write_text("<!DOCTYPE html>\n<html>quota exceeded</html>")
    said = {
        "pointer.safetensors": "is a Git LFS pointer, .* `git lfs pull`",
        "G_ema.pth": r"`hamgan convert G_ema\.pth --output generator\.safetensors`",
        "legacy.pth": "`hamgan convert ",
        "network-snapshot.pkl": "is a pickle of StyleGAN or EDM, .*`hamgan evaluate --checkpoint FOLDER`",
        "img512-3.pkl": "is a pickle of statistics",
        "img512-4.pkl": "is a pickle of statistics",
        "other.pkl": "is a pickle, which may run code and is not opened",
        "page.zip": "is a web page",
    }
    return {name: (folder / name, words) for name, words in said.items()}


def test_files_of_others_are_recognised_wherever_they_are_given_and_never_run(tmp_path: Path) -> None:
    samples = save_flat(CROPS[:4], tmp_path / "samples")
    for file, words in foreign_files(tmp_path).values():
        with pytest.raises(CheckpointError, match=words):
            load_generator(file, device="cpu")
        with pytest.raises((ConfigError, CheckpointError), match=words):
            evaluate(file, samples, ("fid",), **OPTIONS)
        with pytest.raises(ConfigError, match=words):
            evaluate(samples, file, ("fid",), **OPTIONS)
        with pytest.raises(DataError, match=words):
            open_source(str(file), "train", 32)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("length", [0x280, 0x380, 0x480, 0x580])
def test_a_header_that_begins_like_a_pickle_is_none(tmp_path: Path, length: int) -> None:
    file = tmp_path / "x.safetensors"
    for size in range(length):  # a header is padded to a multiple of 8
        save_file({"x": torch.zeros(1)}, file, {"note": "n" * size})
        if file.read_bytes()[:2] == length.to_bytes(2, "little"):
            break
    assert file.read_bytes()[:2] == length.to_bytes(2, "little")
    assert recognise_file(file) is None


def test_lmdb_is_named_with_the_way_out(tmp_path: Path) -> None:
    folder = tmp_path / "lsun" / "church_outdoor_train_lmdb"
    folder.mkdir(parents=True)
    (folder / "data.mdb").write_bytes(bytes(16) + b"\xde\xc0\xef\xbe" + bytes(4000))
    (folder / "lock.mdb").touch()
    for place in (folder, folder.parent, folder / "data.mdb"):
        with pytest.raises(DataError, match=r"is an LMDB database, .*`python data\.py export FOLDER"):
            open_source(str(place), "train", 32)
    with pytest.raises(ConfigError, match="is an LMDB database"):
        evaluate(folder, None, ("is",), **OPTIONS)
