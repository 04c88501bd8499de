"""Compare predictions with the plain form of every view, and check evaluations and what is written of pictures."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from support.segmenters import miniature_config
from torch import Tensor

from hamgan.data.photos import photo_folder
from hamgan.errors import DataError
from hamgan.segmentation import inference
from hamgan.segmentation.augment import resize
from hamgan.segmentation.data.mosaic import MosaicSource
from hamgan.segmentation.evaluation import count, describe_scores, evaluate, protocol_line
from hamgan.segmentation.inference import predict_labels, predict_probabilities, window_starts
from hamgan.segmentation.loading import LoadedSegmenter
from hamgan.segmentation.pictures import find_pictures
from hamgan.segmentation.predict import write_labels
from hamgan.segmentation.schema import EvalConfig
from hamgan.segmentation.segmenter import Segmenter, build_segmenter, normalise
from hamgan.segmentation.storing import SegmenterHeader

PLAIN = EvalConfig(short_side=None)
MULTI = EvalConfig(short_side=60, long_side=200, scales=[0.5, 1.0, 1.5], flip=True, size_divisor=32)
CLASSES = 12


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    """Return a miniature with weights that prefer different classes in different places."""
    config = miniature_config()
    config.data.num_classes = CLASSES
    network = build_segmenter(config).eval().requires_grad_(False)
    torch.manual_seed(0)
    torch.nn.init.normal_(network.head.classifier.weight, std=1.0)
    return network


def pictures(height: int = 70, width: int = 90, batch: int = 2) -> Tensor:
    image = Image.open(photo_folder() / "chelsea.png").convert("RGB")
    found = [image.rotate(9 * number).resize((width, height)) for number in range(batch)]
    return torch.stack([torch.from_numpy(np.array(picture)).permute(2, 0, 1) for picture in found])


def plain_form(segmenter: Segmenter, images: Tensor, settings: EvalConfig) -> Tensor:
    """Write the mean of the softmaxes of all views out, each resized whole, twice."""
    total = torch.zeros(len(images), CLASSES, *images.shape[2:])
    for scale in settings.scales:
        for flip in (False, True) if settings.flip else (False,):
            seen = inference.resize_for(images, settings, scale)
            seen = seen.flip(3) if flip else seen
            with torch.no_grad():
                logits = segmenter(normalise(seen)).main
            for size in (seen.shape[2:], images.shape[2:]):
                logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)
            probabilities = logits.softmax(1)
            total += probabilities.flip(3) if flip else probabilities
    return total / (len(settings.scales) * (1 + settings.flip))


@pytest.mark.parametrize("settings", [PLAIN, MULTI], ids=["plain", "multi"])
@pytest.mark.parametrize("strip", [2**25, 2 * CLASSES * 90 * 7])
def test_probabilities_equal_the_plain_form_in_strips_of_any_height(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch, settings: EvalConfig, strip: int
) -> None:
    monkeypatch.setattr(inference, "STRIP", strip)
    images = pictures()
    expected = plain_form(segmenter, images, settings)
    found = predict_probabilities(segmenter, images, settings)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-5
    labels = predict_labels(segmenter, images, settings)
    sure = expected.topk(2, 1).values.diff(dim=1).abs()[:, 0] > 1e-4
    assert torch.equal(labels[sure].long(), expected.argmax(1)[sure])
    assert len(labels.unique()) > 2


def test_views_have_the_sizes_of_the_protocol() -> None:
    images = torch.zeros(1, 3, 300, 400, dtype=torch.uint8)
    for settings, scale, size in (
        (EvalConfig(), 1.0, (512, 683)),
        (EvalConfig(size_divisor=32), 1.0, (512, 704)),
        (EvalConfig(), 0.5, (256, 341)),
        (PLAIN, 1.25, (375, 500)),
    ):
        assert inference.resize_for(images, settings, scale).shape[2:] == size


@pytest.mark.parametrize(
    ("length", "window", "stride"), [(100, 40, 25), (100, 40, 40), (39, 40, 10), (40, 40, 10), (41, 40, 10)]
)
def test_windows_leave_no_gap_and_stay_inside(length: int, window: int, stride: int) -> None:
    starts = window_starts(length, window, stride)
    seen = {place for start in starts for place in range(start, min(start + window, length))}
    assert seen == set(range(length))
    assert starts == sorted(set(starts))
    assert all(start == 0 or start + window <= length for start in starts)


def test_one_window_over_everything_is_the_whole_image(segmenter: Segmenter) -> None:
    images = pictures(64, 96)
    slide = dataclasses.replace(PLAIN, mode="slide", window=96, stride=50)
    found, whole = (predict_probabilities(segmenter, images, settings) for settings in (slide, PLAIN))
    assert (found - whole).abs().max() < 1e-6


def test_overlapping_windows_are_averaged(segmenter: Segmenter) -> None:
    images = pictures(64, 96, 1)
    settings = dataclasses.replace(PLAIN, mode="slide", window=64, stride=32)
    pixels = normalise(images)
    with torch.no_grad():
        left, right = (
            F.interpolate(segmenter(pixels[..., start : start + 64]).main, (64, 64), mode="bilinear")
            for start in (0, 32)
        )
    expected = torch.cat([left[..., :32], (left[..., 32:] + right[..., :32]) / 2, right[..., 32:]], 3).softmax(1)
    assert (predict_probabilities(segmenter, images, settings) - expected).abs().max() < 1e-6


@pytest.mark.parametrize("size", [(33, 47), (32, 32), (31, 200)])
def test_images_of_odd_sizes_are_labelled(segmenter: Segmenter, size: tuple[int, int]) -> None:
    assert predict_labels(segmenter, pictures(*size, 1), PLAIN).shape == (1, *size)


def test_the_mirrored_image_of_a_mirrored_image_is_seen(segmenter: Segmenter) -> None:
    images = pictures(64, 96, 1)
    settings = dataclasses.replace(PLAIN, flip=True)
    found, mirrored = (predict_probabilities(segmenter, seen, settings) for seen in (images, images.flip(3)))
    assert (found - mirrored.flip(3)).abs().max() < 1e-5


def test_evaluations_are_the_same_for_any_batch_and_each_time(segmenter: Segmenter) -> None:
    source = MosaicSource("val")
    settings = EvalConfig(short_side=None, images=9)
    matrices = [count(segmenter, source, dataclasses.replace(settings, batch_size=size)).counts for size in (1, 4, 4)]
    assert matrices[0].sum() > 0
    assert torch.equal(matrices[1], matrices[2])
    assert torch.equal(matrices[0], matrices[1])
    assert segmenter.training is False


def test_bases_seeds_give_a_spread_and_the_same_numbers_each_time(segmenter: Segmenter) -> None:
    source = MosaicSource("val")
    settings = EvalConfig(short_side=None, images=4, bases_seeds=[0, 1, 2])
    row = evaluate(segmenter, source, settings)
    assert len(set(row["miou_by_seed"])) > 1, "another seed is another number"
    assert row["miou_spread"] == pytest.approx(np.std(row["miou_by_seed"], ddof=1))
    assert evaluate(segmenter, source, settings)["miou_by_seed"] == row["miou_by_seed"]
    alone = evaluate(segmenter, source, dataclasses.replace(settings, bases_seeds=[0]))
    assert alone["miou"] == row["miou_by_seed"][0]
    assert "+-" in describe_scores(row)
    assert "+-" not in describe_scores(alone)


def test_the_protocol_names_all_that_moves_the_number(segmenter: Segmenter) -> None:
    settings = dataclasses.replace(MULTI, images=2, mode="slide", window=64, stride=48)
    row = evaluate(segmenter, MosaicSource("val"), settings)
    for part in (
        "2 images of mosaic/val",
        "60 x 200 px",
        "multiples of 32",
        "scales 0.5, 1, 1.5",
        "mirrored too",
        "slide 64/48",
        "K 7",
        "seed 0",
    ):
        assert part in row["protocol"]
    assert protocol_line(row) == row["protocol"]


def test_a_segmenter_labels_pictures_of_any_kind_and_size(segmenter: Segmenter, tmp_path: Path) -> None:
    names = [f"class {number}" for number in range(CLASSES)]
    loaded = LoadedSegmenter(segmenter, SegmenterHeader(segmenter.config, names))
    array = pictures(64, 80, 1)[0].permute(1, 2, 0).numpy()
    Image.fromarray(array).save(tmp_path / "a.png")
    found = loaded([array, Image.fromarray(array).resize((50, 40)), tmp_path / "a.png"], scales=[1.0], settings=PLAIN)
    assert [label_map.labels.shape for label_map in found] == [(64, 80), (40, 50), (64, 80)]
    assert np.array_equal(found[0].labels, found[2].labels)
    assert np.array_equal(found[0].probabilities().argmax(0), found[0].labels)
    assert sum(found[0].shares().values()) == pytest.approx(1.0)
    assert loaded(tmp_path / "a.png", settings=PLAIN)[0].overlay().size == (80, 64)
    with pytest.raises(DataError, match="cannot be read"):
        loaded(tmp_path / "b.png")


def test_label_maps_are_written_with_colours_and_read_back(segmenter: Segmenter, tmp_path: Path) -> None:
    loaded = LoadedSegmenter(segmenter, SegmenterHeader(segmenter.config))
    (tmp_path / "in/deep").mkdir(parents=True)
    for name in ("in/one.jpg", "in/deep/two.png"):
        Image.fromarray(pictures(64, 80, 1)[0].permute(1, 2, 0).numpy()).save(tmp_path / name)
    found = find_pictures([str(tmp_path / "in")])
    assert [name for name, _ in found] == ["deep/two", "one"]
    maps = {name: loaded.label(path, PLAIN) for name, path in found}
    assert write_labels(iter(maps.items()), tmp_path / "out", overlays=True, arrays=False, probabilities=True) == 2
    stored = Image.open(tmp_path / "out/deep/two.png")
    assert stored.mode == "P"
    assert np.array_equal(np.asarray(stored), maps["deep/two"].labels)
    assert np.array_equal(np.asarray(stored.convert("RGB")), np.asarray(maps["deep/two"].coloured()))
    assert Image.open(tmp_path / "out/one_overlay.png").size == (80, 64)
    arrays = np.load(tmp_path / "out/one.npz")
    assert arrays["probabilities"].shape == (CLASSES, 64, 80)
    assert np.array_equal(arrays["labels"], maps["one"].labels)


def test_pictures_that_are_not_there_are_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no pictures"):
        find_pictures([str(tmp_path)])
    with pytest.raises(DataError, match="no picture and no folder at"):
        find_pictures([str(tmp_path / "x.png")])


def test_resizing_keeps_what_fits() -> None:
    images = pictures(20, 30)
    assert resize(images, (20, 30)) is images
