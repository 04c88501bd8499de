"""Check that images of the generator itself are found again; test the files and refusals of `hamgan invert`."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from skimage.metrics import structural_similarity
from support.paths import ROOT
from support.small_runs import python, run_small

from hamgan.data import open_source
from hamgan.data.photos import photo_folder
from hamgan.errors import ConfigError
from hamgan.evaluation import load_extractor
from hamgan.inversion.command import main
from hamgan.inversion.optimise import Inversion, _Inverter, invert
from hamgan.inversion.quality import measure_quality
from hamgan.sampling import LoadedGenerator, load_generator

QUICK: dict[str, Any] = {"steps": 60, "restarts": 4, "samples": 16, "pixels_only": True}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_small(tmp_path_factory.mktemp("run"), "train.total_kimg=0.4", "checkpoint.every_kimg=0.4")


@pytest.fixture(scope="module")
def generator(run: Path) -> LoadedGenerator:
    return load_generator(run, device="cpu")


@pytest.fixture(scope="module")
def targets(generator: LoadedGenerator) -> torch.Tensor:
    """Draw an image of every second class, of seeds that no search draws."""
    images: torch.Tensor = generator(range(5000, 5006), range(0, 12, 2), output="tensor")
    return images


@pytest.fixture(scope="module")
def found(generator: LoadedGenerator, targets: torch.Tensor) -> list[Inversion]:
    return invert(generator, targets, steps=300, samples=16, pixels_only=True)


def psnr(first: torch.Tensor, second: torch.Tensor) -> float:
    error = float((first.double() - second.double()).square().mean())
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def test_images_of_the_generator_are_found_again(
    generator: LoadedGenerator, targets: torch.Tensor, found: list[Inversion]
) -> None:
    quality = [psnr(item.image, target) for item, target in zip(found, targets, strict=True)]
    assert sorted(quality)[2] > 30, quality
    assert [item.label for item in found].count(0) < 3
    for item, target in zip(found, targets, strict=True):
        assert psnr(item.image, target) > psnr(item.baseline, target)
        again = generator.images(item.z[None], torch.tensor([item.label]))[0]
        assert torch.equal(again, item.image)
        sample = generator([item.baseline_seed], [item.label], output="tensor")[0]
        assert torch.equal(sample, item.baseline)


def test_an_answer_is_a_function_of_the_image_and_the_seed(generator: LoadedGenerator, targets: torch.Tensor) -> None:
    together, alone = invert(generator, targets[:2], **QUICK), invert(generator, targets[1:2], **QUICK)
    assert torch.equal(together[1].z, alone[0].z)
    assert together[1].label == alone[0].label
    assert not torch.equal(invert(generator, targets[1:2], seed=7, **QUICK)[0].z, alone[0].z)


@pytest.mark.timeout(60)
def test_threads_find_what_one_thread_finds(
    generator: LoadedGenerator, targets: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = QUICK | {"steps": 4}
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    alone = invert(generator, targets[:3], **few)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    together = invert(generator, targets[:3], **few)
    assert [item.label for item in together] == [item.label for item in alone]
    assert all(torch.equal(one.image, other.image) for one, other in zip(together, alone, strict=True))


def test_latents_stay_where_the_generator_was_trained(generator: LoadedGenerator) -> None:
    # Nothing that G draws is near to black: without a limit z runs away from where N(0, I) is.
    black = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    (item,) = invert(generator, black, [3], **QUICK | {"steps": 150})
    radii = torch.randn(20_000, 16, generator=torch.Generator().manual_seed(0)).norm(dim=1)
    low, high = torch.quantile(radii, torch.tensor([0.005, 0.995])).tolist()
    assert low - 0.05 < float(item.z.norm()) < high + 0.05


def test_only_the_classes_that_are_allowed_are_found(generator: LoadedGenerator, targets: torch.Tensor) -> None:
    assert {item.label for item in invert(generator, targets[:3], [5, 7], **QUICK)} <= {5, 7}


def test_the_nearest_samples_start_and_no_class_has_more_than_half(
    generator: LoadedGenerator, targets: torch.Tensor
) -> None:
    inverter = _Inverter(generator, [0, 2, 4], 1, 4, 16, True, 0)
    target = targets[:1].float() / 127.5 - 1
    latents, labels, images = inverter.search
    order = (images.float() - targets[0]).square().mean(dim=(1, 2, 3)).argsort(stable=True)
    labels[order[:5]], labels[order[5:]] = 0, 2  # the five nearest are of one class
    z, chosen = inverter._starts(target, [])
    assert torch.equal(z, latents[order[[0, 1, 5, 6]]])
    assert chosen.tolist() == [0, 0, 2, 2]


def test_features_pull_the_features_nearer(generator: LoadedGenerator) -> None:
    """Check the average over a crop of every class, since a single one may go either way."""
    photographs = open_source("photos", "val", 32)
    targets = torch.from_numpy(photographs.read(np.arange(8))).permute(0, 3, 1, 2)
    extractor = load_extractor("efficientnet-lite0", device="cpu")
    cosine, fidelity = [], []
    for pixels_only in (True, False):
        items = invert(generator, targets, **QUICK | {"pixels_only": pixels_only})
        figures = measure_quality(torch.stack([item.image for item in items]), targets, extractor)
        cosine.append(np.mean([one.cosine for one in figures]))
        fidelity.append(np.mean([one.psnr for one in figures]))
    assert cosine[1] > cosine[0]
    assert fidelity[1] < fidelity[0]


def test_quality_of_equal_and_of_other_images() -> None:
    random = torch.Generator().manual_seed(0)
    first, second = torch.randint(0, 256, (2, 1, 3, 32, 32), generator=random, dtype=torch.uint8)
    extractor = load_extractor("efficientnet-lite0", device="cpu")
    (same,) = measure_quality(first, first, extractor)
    assert (same.psnr, same.ssim) == (math.inf, 1.0)
    assert same.cosine == pytest.approx(1.0)
    (other,) = measure_quality(first, second, extractor)
    assert other.psnr == pytest.approx(psnr(first, second))
    rows = [image[0].permute(1, 2, 0).numpy() for image in (first, second)]
    assert other.ssim == pytest.approx(structural_similarity(*rows, channel_axis=2))
    assert 0 < other.cosine < 0.999


def test_the_script_writes_a_sheet_and_what_draws_it_again(
    run: Path, generator: LoadedGenerator, tmp_path: Path
) -> None:
    with Image.open(photo_folder() / "chelsea.png") as picture:
        picture.convert("RGBA").save(tmp_path / "cat.png")
        picture.convert("L").rotate(90, expand=True).save(tmp_path / "grey.webp")
    options: list[str | Path] = ["--checkpoint", run, "--classes", "cat", "0-1"]
    options += ["--images", tmp_path / "cat.png", tmp_path / "grey.webp"]
    quick = ["--steps", 20, "--restarts", 2, "--samples", 4, "--pixels-only", "--device", "cpu"]
    done = python(ROOT / "scripts/invert.py", *options, *map(str, quick), "--output", tmp_path / "new/sheet.png")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == f"wrote {tmp_path / 'new/sheet.png'} and {tmp_path / 'new/sheet.safetensors'}"
    assert lines[-2].startswith("average: PSNR ")
    assert any(line.startswith("cat.png: ") and "(best of 4 random samples: PSNR " in line for line in lines)
    kept = load_file(tmp_path / "new/sheet.safetensors")
    assert set(kept["labels"].tolist()) <= {0, 1, 2}
    with safe_open(tmp_path / "new/sheet.safetensors", "pt") as file:
        assert [Path(name).name for name in json.loads(file.metadata()["images"])] == ["cat.png", "grey.webp"]
    with Image.open(tmp_path / "new/sheet.png") as sheet:
        pixels = np.asarray(sheet)
    again = generator.images(kept["z"], kept["labels"]).permute(0, 2, 3, 1).numpy()
    column = pixels.shape[1] - 2 * 96 - 12
    np.testing.assert_array_equal(pixels[18 : 18 + 96 : 3, column : column + 96 : 3], again[0])
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["sheet.png", "sheet.safetensors"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--images": "PLACE/cats.png"}, r"there is no picture at .*cats\.png; did you mean `.*cat\.png`"),
        ({"--images": "PLACE"}, r"is a folder; name pictures, e\.g\. .*/\*\.png"),
        ({"--images": "PLACE/text.png"}, r"text\.png is not a picture in a known format"),
        ({"--images": "PLACE/cut.png"}, r"cut\.png cannot be decoded"),
        ({"--images": "PLACE/tiny.png"}, r"tiny\.png is 9 x 9 pixels; the smallest side allowed is 16"),
        ({"--classes": "kat"}, "no class is called 'kat'; nearest: cat"),
        ({"--output": "PLACE/cat.png"}, r"cat\.png exists already"),
        ({"--output": "PLACE/taken.png"}, r"taken\.safetensors exists already"),
        ({"--output": "PLACE/sheet.jpg"}, r"sheet\.jpg must end in \.png"),
        ({"--out": "PLACE/sheet.png"}, "--out is called --output now"),
        ({"--steps": "0"}, "steps is 0; it must be 1 or more"),
        ({"--restarts": "-1"}, "restarts is -1"),
        ({"--samples": "0"}, "samples is 0"),
        ({"--seed": "-3"}, "seed is -3; it must be 0 or more"),
    ],
)
def test_what_cannot_be_inverted_is_a_sentence(
    run: Path, tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "cat.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "tiny.png")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "cut.png").write_bytes((photo_folder() / "chelsea.png").read_bytes()[:5000])
    (tmp_path / "taken.safetensors").touch()
    before = sorted(tmp_path.iterdir())
    options = {"--checkpoint": str(run), "--images": "PLACE/cat.png", "--output": "PLACE/sheet.png", "--steps": "2"}
    options |= {"--samples": "2", "--restarts": "1", "--device": "cpu"} | changes
    with pytest.raises(ConfigError, match=message):
        main([item.replace("PLACE", str(tmp_path)) for pair in options.items() for item in pair])
    assert sorted(tmp_path.iterdir()) == before


def test_images_of_another_size_are_refused(generator: LoadedGenerator) -> None:
    with pytest.raises(ConfigError, match=r"the images are \[3, 16, 16\]; this generator draws \[3, 32, 32\]"):
        invert(generator, torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
