"""Check the extractors of sFID, FD-DINOv2, CLIP-FID and CMMD on random weights in the published formats."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support.evaluations import FID, OPTIONS, small_generator
from support.paths import golden_file
from support.photo_crops import crop_photographs, save_flat
from support.published_weights import take_for_published, write_random_weights
from support.small_runs import run_small
from torch import Tensor
from torch_fidelity.feature_extractor_clip import FeatureExtractorCLIP
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from benchmarks.timing import count_flops
from hamgan.errors import ConfigError
from hamgan.evaluation import FeatureExtractor, Resources, evaluate, load_extractor, make_protocol
from hamgan.evaluation.features import dinov2
from hamgan.evaluation.features.efficientnet import EfficientNetLite0Extractor
from hamgan.evaluation.features.extractor import ARCHITECTURES
from hamgan.evaluation.features.resizing import RESIZING
from hamgan.evaluation.features.weights import PublishedWeights
from hamgan.evaluation.report import numbers_of
from hamgan.evaluation.studies.cost import EXTRACTOR_FLOPS
from hamgan.evaluation.studies.truncation_sweep import truncation_sweep
from hamgan.files import sha256
from hamgan.sampling import LoadedGenerator

NAMES = ("inception", "inception-spatial", "dinov2-vit-l-14", "clip-vit-b-32", "clip-vit-l-14-336")


def crops(count: int, size: int = 64) -> Tensor:
    return torch.from_numpy(crop_photographs(0, -(-count // 6), size)[:count]).permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_random_weights(tmp_path_factory.mktemp("weights"), NAMES)


@pytest.fixture
def installed(published: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Take the random files for the published ones."""
    take_for_published(published, monkeypatch)
    return published


def test_dinov2_equals_meta_s_network_with_dgm_eval_s_resize() -> None:
    recorded = load_file(golden_file("dinov2/small.safetensors"))
    network = dinov2.VisionTransformer(32, 2, 2).double()
    prefix = "weights."
    network.load_state_dict({k.removeprefix(prefix): v for k, v in recorded.items() if k.startswith(prefix)})
    pixels = RESIZING["pillow"][0](recorded["images"], 224).double()
    with torch.no_grad():
        (found,) = network.forward_resized(pixels)
    # Recorded in float64, but for the position embeddings, which that code resizes in float32.
    torch.testing.assert_close(found, recorded["features"], rtol=1e-6, atol=1e-7)


def test_dinov2_has_the_names_and_sizes_of_the_published_file() -> None:
    with torch.device("meta"):
        tensors = dinov2.VisionTransformer(dinov2.WIDTH, dinov2.DEPTH, dinov2.HEADS).state_dict()
    # The file has 1,217,586,395 bytes, 111,835 of them names and the like.
    assert 4 * sum(tensor.numel() for tensor in tensors.values()) == 1_217_474_560
    assert tensors["pos_embed"].shape == (1, 1370, 1024)
    assert {"blocks.23.ls2.gamma", "blocks.0.attn.qkv.bias", "blocks.7.mlp.fc2.weight", "mask_token"} <= set(tensors)


def test_spatial_inception_equals_the_layer_of_torch_fidelity_s_network(installed: dict[str, Path]) -> None:
    images = crops(3)
    library = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(installed["inception"])
    )
    seen: list[Tensor] = []
    library.Mixed_6d.branch1x1.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    library(images)
    # TensorFlow lays channels last: ADM flattens [17, 17, 7].
    expected = seen[0][:, :7].permute(0, 2, 3, 1).reshape(3, -1)
    extractor = load_extractor("inception-spatial", weights_sha256=sha256(installed["inception"])[:8], device="cpu")
    found = extractor(images)[0]
    assert found.shape == (3, 2023)
    assert count_flops(lambda: extractor(images[:1])) == EXTRACTOR_FLOPS["inception-spatial"]
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("name", ["clip-vit-b-32", "clip-vit-l-14-336"])
def test_clip_equals_torch_fidelity(name: str, installed: dict[str, Path]) -> None:
    images = crops(3)
    architecture = ARCHITECTURES[name]
    library = FeatureExtractorCLIP(
        architecture.label, ["clip"], feature_extractor_weights_path=str(installed[name]), verbose=False
    )
    found = load_extractor(name, resizer="tensorflow", device="cpu")(images)[0]
    assert found.shape == (3, architecture.dimension)
    torch.testing.assert_close(found, library(images)[0], rtol=1e-5, atol=1e-5)


def test_resizers_equal_their_sources() -> None:
    images = crops(2, 48)
    expected = np.stack(
        [
            np.asarray(Image.fromarray(image).resize((224, 224), Image.Resampling.BICUBIC))
            for image in images.permute(0, 2, 3, 1).numpy()
        ]
    )
    assert np.array_equal(RESIZING["pillow"][0](images, 224).permute(0, 2, 3, 1).numpy(), expected)
    plain = interpolate_bilinear_2d_like_tensorflow1x(images.float(), (224, 224), align_corners=False)
    assert torch.equal(RESIZING["tensorflow"][0](images, 224), plain)
    results = [resize(images, 30) for resize, _ in RESIZING.values()]
    assert all(not torch.equal(a, b) for i, a in enumerate(results) for b in results[:i])


def test_one_command_gives_every_number_with_its_own_protocol(installed: dict[str, Path], tmp_path: Path) -> None:
    samples = save_flat(crop_photographs(0, 2), tmp_path / "a")
    reference = save_flat(crop_photographs(1, 2), tmp_path / "b")
    metrics = ("fid", "mind", "density_coverage", "sfid", "fd_dinov2", "clip_fid", "cmmd")
    options = OPTIONS | {"inception_sha256": sha256(installed["inception"])[:8]}
    row = evaluate(samples, reference, metrics, **options)
    for key in ("fid", "mind", "density", "coverage"):
        assert row[f"{key}_efficientnet_lite0"] >= 0
    for key in ("sfid", "fd_dinov2", "clip_fid", "cmmd"):
        assert row[key] > 0
    assert set(row["protocols"]) == {"sfid", "fd_dinov2", "clip_fid", "cmmd"}
    assert "dinov2-vit-l-14 fp32, bicubic on 8 bits (Pillow) to 224" in row["protocols"]["fd_dinov2"]
    assert "bicubic without antialiasing (torch) to 336" in row["protocols"]["cmmd"]
    alone = evaluate(samples, reference, ("fid",), **OPTIONS | {"features": "dinov2-vit-l-14"})
    assert alone["fd_dinov2"] == pytest.approx(row["fd_dinov2"], rel=1e-9)
    options = OPTIONS | {"features": "dinov2-vit-l-14", "resizer": "antialiased"}
    other = evaluate(samples, reference, ("fid",), **options)
    assert "fd_dinov2" not in other
    assert other["fd_dinov2_antialiased"] == pytest.approx(row["fd_dinov2"], rel=0.2)
    (number,) = numbers_of(other)
    assert (number.key, number.title) == ("fd_dinov2_antialiased", "FD-DINOv2 (dinov2-vit-l-14, antialiased)")


def test_features_of_no_classifier_have_no_inception_score(installed: dict[str, Path], tmp_path: Path) -> None:
    images = save_flat(crop_photographs(0, 2), tmp_path / "a")
    options = OPTIONS | {"features": "clip-vit-b-32"}
    row = evaluate(images, images, ("fid", "is"), **options)
    assert [number.key for number in numbers_of(row)] == ["clip_fid"]
    assert "Inception Score: clip-vit-b-32 is no classifier, so there is none" in row["warnings"]
    assert "IS in" not in row["protocol"]
    extractor = load_extractor("clip-vit-b-32", device="cpu")
    with pytest.raises(ConfigError, match="FID over the Inception Score; features clip-vit-b-32 give none"):
        truncation_sweep(small_generator(), images, make_protocol(features="clip-vit-b-32"), Resources(extractor))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return how many images a generator draws at a time, as it does; alone it draws one to know the size."""
    counts: list[int] = []
    images = LoadedGenerator.images

    def counted(self: LoadedGenerator, z: Tensor, labels: Tensor) -> Tensor:
        if len(z) > 1:
            counts.append(len(z))
        return images(self, z, labels)

    monkeypatch.setattr(LoadedGenerator, "images", counted)
    return counts


def test_one_pass_over_the_samples_serves_all_extractors(
    installed: dict[str, Path], tmp_path: Path, drawn: list[int]
) -> None:
    real = save_flat(crop_photographs(1, 1), tmp_path)
    both = evaluate(small_generator(), real, ("fid", "prc", "clip_fid"), num_samples=6, **OPTIONS)
    assert drawn == [6]
    for metrics in (("fid", "prc"), ("clip_fid",)):
        alone = evaluate(small_generator(), real, metrics, num_samples=6, **OPTIONS)
        shared = {key: value for key, value in alone.items() if key in ("clip_fid", FID)}
        assert shared.items() <= both.items()
        assert shared


def test_a_reference_that_one_extractor_cannot_use_is_refused_before_samples_are_drawn(
    installed: dict[str, Path], tmp_path: Path, drawn: list[int]
) -> None:
    np.savez(tmp_path / "own.npz", mu=np.zeros(1280), sigma=np.eye(1280))
    with pytest.raises(ConfigError, match="features of length 1280, clip-vit-b-32 gives 512"):
        evaluate(small_generator(), tmp_path / "own.npz", ("fid", "clip_fid"), num_samples=6, **OPTIONS)
    assert drawn == []


def test_memory_counts_both_sides_of_all_extractors(
    installed: dict[str, Path], tmp_path: Path, drawn: list[int]
) -> None:
    real = save_flat(crop_photographs(1, 1), tmp_path)
    needed = {"prc": 12 * 4 * 1280 / 2**30, "cmmd": 12 * 4 * 768 / 2**30}
    for metrics in (("prc",), ("cmmd",), ("prc", "cmmd")):
        enough = 1.001 * sum(needed[name] for name in metrics)
        evaluate(small_generator(), real, metrics, num_samples=6, memory_gib=enough, **OPTIONS)
        drawn.clear()
        with pytest.raises(ConfigError, match=f"features of samples and reference for {', '.join(metrics)} take"):
            evaluate(small_generator(), real, metrics, num_samples=6, memory_gib=0.99 * enough, **OPTIONS)
        assert drawn == []
    with pytest.raises(ConfigError, match="features of 6 images of the reference take"):
        evaluate(small_generator(), real, ("prc",), num_samples=2, memory_gib=0.4 * needed["prc"], **OPTIONS)


def test_missing_weights_are_named_before_anything_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAMGAN_DINOV2_WEIGHTS", str(tmp_path / "absent.pth"))
    missing = (
        r"HAMGAN_DINOV2_WEIGHTS names .*absent.* bring dinov2_vitl14_pretrain\.pth \(sha256 d5383ea.*\) from https"
    )
    with pytest.raises(ConfigError, match=missing):
        evaluate(tmp_path / "no samples", tmp_path, ("fid", "fd_dinov2"), **OPTIONS)
    (tmp_path / "absent.pth").write_bytes(b"something else")
    with pytest.raises(ConfigError, match=r"not d5383ea8f4877b24.*: it is not dinov2_vitl14_pretrain\.pth or damaged"):
        evaluate(tmp_path / "no samples", tmp_path, ("fd_dinov2",), **OPTIONS)


def test_a_run_stops_before_its_first_step_where_the_weights_of_any_metric_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAMGAN_CLIP_B32_WEIGHTS", str(tmp_path / "absent.pt"))
    settings = ("eval.features=efficientnet-lite0", "eval.metrics=[fid,clip_fid]", "eval.every_kimg=0.016")
    with pytest.raises(ConfigError, match=r"HAMGAN_CLIP_B32_WEIGHTS names .*absent\.pt"):
        run_small(tmp_path / "run", "train.total_kimg=0.008", *settings)


def test_a_file_of_another_network_is_refused(
    installed: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dinov2, "DEPTH", 2)
    with pytest.raises(ConfigError, match=r"dinov2\.pth does not hold the weights of dinov2-vit-l-14"):
        load_extractor("dinov2-vit-l-14", device="cpu")


@pytest.mark.parametrize(
    ("name", "resizer", "metric", "key", "title"),
    [
        ("inception", "native", "fid", "fid", "FID"),
        ("inception", "clean", "fid", "fid_clean", "FID (inception-v3-compat, clean)"),
        ("inception", "clean", "kid_std", "kid_std_clean", None),
        ("dinov2-vit-l-14", "tensorflow", "fid", "fd_dinov2_tensorflow", "FD-DINOv2 (dinov2-vit-l-14, tensorflow)"),
        ("clip-vit-b-32", "native", "fid", "clip_fid", "CLIP-FID"),
        ("clip-vit-b-32", "bicubic", "kid", "kid_clip_vit_b_32_bicubic", "KID (clip-vit-b-32, bicubic)"),
    ],
)
def test_numbers_by_another_resizer_have_a_key_of_their_own(
    name: str, resizer: str, metric: str, key: str, title: str | None
) -> None:
    architecture = ARCHITECTURES[name]
    assert isinstance(architecture.weights, PublishedWeights)
    resizer = architecture.resizers[0] if resizer == "native" else resizer
    network = EfficientNetLite0Extractor("efficientnet-lite0", ["1280"])  # which no key depends on
    extractor = FeatureExtractor(network, name, architecture.weights.sha256, resizer, torch.device("cpu"))
    assert extractor.key(metric) == key
    if title:
        (number,) = numbers_of({key: 1.0, "extractor": architecture.label})
        assert number.title == title


def test_a_resizer_that_no_number_was_made_with_is_refused() -> None:
    with pytest.raises(ConfigError, match="clip-vit-b-32 are not resized by 'clean'; allowed: native, pillow"):
        load_extractor("clip-vit-b-32", resizer="clean")
