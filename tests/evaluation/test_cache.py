"""Test that features of references are kept, found again and never out of date."""

import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.evaluations import FID, OPTIONS
from support.photo_crops import crop_photographs, save_by_class, save_flat

from hamgan.evaluation import FeatureExtractor, evaluate, load_extractor
from hamgan.evaluation.cache import cache_folder, drop_oldest
from hamgan.evaluation.command import main


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return load_extractor("efficientnet-lite0", device="cpu")


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the titles of the passes over images, as they are made."""
    from hamgan.evaluation import by_extractor, statistics

    made: list[str] = []
    measure_together = statistics.measure_together

    def counted(*arguments: Any, **options: Any) -> Any:
        made.append(options["title"])
        return measure_together(*arguments, **options)

    for module in (by_extractor, statistics):
        monkeypatch.setattr(module, "measure_together", counted)
    return made


@pytest.fixture
def run(tmp_path: Path, extractor: FeatureExtractor) -> Callable[..., dict[str, Any]]:
    """Measure the same samples against a reference, with a cache of the test's own."""
    samples = save_flat(crop_photographs(0, 1), tmp_path / "samples")

    def call(reference: Path, *metrics: str, **options: Any) -> dict[str, Any]:
        return evaluate(
            samples,
            reference,
            metrics or ("fid",),
            **{"cache": tmp_path / "cache", "extractor": extractor, **OPTIONS, **options},
        )

    return call


def test_a_reference_is_passed_over_once_and_gives_the_same_bits(
    tmp_path: Path, run: Callable[..., dict[str, Any]], passes: list[str]
) -> None:
    real = save_by_class(crop_photographs(1, 2), tmp_path / "real")
    first, second = run(real), run(real)
    assert passes == ["reference", "samples", "samples"]
    assert first[FID] == second[FID]
    assert first["reference_hash"] == second["reference_hash"]
    run(real, "kid")  # needs features, which FID does not keep
    run(real, "kid")
    assert passes[3:] == ["reference", "samples", "samples"]
    run(real, cache=False)
    assert passes[6:] == ["reference", "samples"]


def damage(cache: Path) -> None:
    for file in cache.iterdir():
        file.write_bytes(file.read_bytes()[:1000])


def test_a_damaged_file_is_made_again(tmp_path: Path, run: Callable[..., dict[str, Any]], passes: list[str]) -> None:
    real = save_by_class(crop_photographs(1, 2), tmp_path / "real")
    first = run(real)
    damage(tmp_path / "cache")
    assert run(real)[FID] == first[FID]
    assert run(real)[FID] == first[FID]
    assert passes.count("reference") == 2


@pytest.mark.parametrize("kind", ["folder", "classes", "archive"])
def test_a_pixel_that_changes_is_noticed_whatever_sizes_and_dates_say(
    tmp_path: Path, run: Callable[..., dict[str, Any]], passes: list[str], kind: str
) -> None:
    images = crop_photographs(1, 2)
    real = save_flat(images, tmp_path / "real") if kind == "folder" else save_by_class(images, tmp_path / "real/val")
    if kind != "folder":
        shutil.copytree(real, real.with_name("train"))
        real = real.parent
    file = sorted(real.rglob("*.png"))[-1]
    reference = real

    def pack() -> Path:
        if kind != "archive":
            return reference
        with tarfile.open(tmp_path / "real.tar", "w") as archive:
            archive.add(real, ".")
        os.utime(tmp_path / "real.tar", ns=(0, 0))
        return tmp_path / "real.tar"

    save_uncompressed(file)
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    first = run(pack())
    size = file.stat().st_size
    save_uncompressed(file, change=1)
    os.utime(file, ns=times)
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (size, times[1])
    second = run(pack())
    assert passes == ["reference", "samples"] * 2
    assert first["reference_hash"] != second["reference_hash"]


def save_uncompressed(file: Path, change: int = 0) -> None:
    with Image.open(file) as image:
        pixels = np.array(image)
    pixels[0, 0, 0] ^= change
    Image.fromarray(pixels).save(file, compress_level=0)


def test_another_extractor_and_other_samples_of_it_have_files_of_their_own(
    tmp_path: Path, run: Callable[..., dict[str, Any]], passes: list[str]
) -> None:
    real = save_by_class(crop_photographs(1, 2), tmp_path / "real")
    run(real)
    run(real, reference_samples=8)
    other = load_extractor("efficientnet-lite0", device="cpu", resizer="clean")
    run(real, extractor=other, resizer="clean")
    assert passes == ["reference", "samples"] * 3
    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_a_folder_that_cannot_be_written_costs_the_cache_alone(
    tmp_path: Path, run: Callable[..., dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    real = save_by_class(crop_photographs(1, 2), tmp_path / "real")
    (tmp_path / "file").touch()
    assert torch.isfinite(torch.tensor(run(real, cache=tmp_path / "file/inside")[FID]))
    assert "the features of the reference are not cached" in caplog.text


def test_files_that_nobody_has_read_go_first(tmp_path: Path) -> None:
    for number, name in enumerate("abcd"):
        (tmp_path / f"{name}.safetensors").write_bytes(bytes(100))
        os.utime(tmp_path / f"{name}.safetensors", (number, number))
    os.utime(tmp_path / "a.safetensors", (9, 9))  # read again
    drop_oldest(tmp_path, 200)
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["a", "d"]
    drop_oldest(tmp_path, 1)
    assert [path.stem for path in tmp_path.iterdir()] == ["a"]


def test_the_place_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "hamgan/features"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache/hamgan/features"


def test_neighbours_find_the_features_of_real_images_in_the_cache(tmp_path: Path, passes: list[str]) -> None:
    fake, real = (save_flat(crop_photographs(seed, 1), tmp_path / str(seed)) for seed in (0, 1))
    arguments = ["--checkpoint", str(fake), "--reference", str(real), "--features", "efficientnet-lite0", "--quiet"]
    arguments += ["--columns", "2", "--output", str(tmp_path / "near.png"), "--device", "cpu"]
    for _ in range(2):
        main(["neighbours", *arguments, "--cache", str(tmp_path / "cache")])
    assert passes == ["reference", "samples", "samples"]
    main(["neighbours", *arguments, "--no-cache"])
    assert passes[3:] == ["reference", "samples"]
