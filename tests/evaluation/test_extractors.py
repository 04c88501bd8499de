"""Check that extractors are the right networks, equal to the library's, and that weights files are checked."""

import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from cleanfid.resize import build_resizer  # type: ignore[import-untyped]  # ships none
from PIL import Image
from support.paths import golden_file
from support.photo_crops import crop_photographs
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from benchmarks.random_weights import save_random_inception
from benchmarks.timing import count_flops
from hamgan.errors import ConfigError
from hamgan.evaluation import load_extractor
from hamgan.evaluation.features import weights
from hamgan.evaluation.features.efficientnet import EfficientNetLite0Extractor
from hamgan.evaluation.features.inception import PUBLISHED
from hamgan.evaluation.features.resizing import clean
from hamgan.evaluation.features.weights import PublishedWeights, find_weights
from hamgan.evaluation.studies.cost import EXTRACTOR_FLOPS
from hamgan.files import sha256 as file_sha256

TABBY_TO_EGYPTIAN_CAT, ESPRESSO = [281, 282, 285], [967]


def crops(count: int, size: int = 32) -> torch.Tensor:
    return torch.from_numpy(crop_photographs(0, -(-count // 6), size)[:count]).permute(0, 3, 1, 2)


@pytest.fixture(scope="session")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write an Inception file of random weights."""
    return save_random_inception(tmp_path_factory.mktemp("inception") / "weights-random.pth")


def test_folded_inception_equals_torch_fidelity(inception_file: Path) -> None:
    images = crops(3)
    library = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(inception_file)
    )
    extractor = load_extractor(weights=inception_file, weights_sha256=file_sha256(inception_file)[:8], device="cpu")
    for found, expected in zip(extractor(images), library(images), strict=True):
        assert expected.std() > 1e-3
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-6 * float(expected.abs().max()))
    assert count_flops(lambda: extractor(images[:1])) == EXTRACTOR_FLOPS["inception"]


def test_numbers_of_other_weights_carry_their_hash(inception_file: Path) -> None:
    digest = file_sha256(inception_file)[:8]
    extractor = load_extractor(weights=inception_file, weights_sha256=digest, device="cpu")
    assert extractor.key("fid_seeds_std") == f"fid_seeds_std_inception_{digest}"


@pytest.mark.parametrize(
    ("name", "classes", "expected"), [("chelsea.png", TABBY_TO_EGYPTIAN_CAT, 0.888), ("coffee.png", ESPRESSO, 0.940)]
)
def test_efficientnet_recognises_photographs(name: str, classes: list[int], expected: float) -> None:
    # Padding on the wrong side gives espresso 0.896, pixels scaled to [0, 1] 0.851: right classes, wrong features.
    picture = Image.open(Path(skimage.__file__).parent / "data" / name)
    left = (picture.width - picture.height) // 2
    square = np.asarray(picture.crop((left, 0, left + picture.height, picture.height)))
    network = EfficientNetLite0Extractor("efficientnet-lite0", ["logits"])
    logits = network(torch.from_numpy(square.copy()).permute(2, 0, 1)[None])[0]
    assert float(logits.softmax(1)[0, classes].sum()) == pytest.approx(expected, abs=0.005)


def test_features_do_not_depend_on_the_batch_or_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    images = crops(7)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    together = load_extractor("efficientnet-lite0", device="cpu")(images)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    extractor = load_extractor("efficientnet-lite0", device="cpu")
    assert extractor.threads == 2
    torch.testing.assert_close(extractor(images), together, rtol=1e-5, atol=1e-5)
    for index in (0, 5):
        alone = extractor(images[index : index + 1])
        torch.testing.assert_close(
            [rows[0] for rows in alone], [rows[index] for rows in together], rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize(("size", "target"), [(32, 299), (450, 299)])
def test_clean_resize_equals_clean_fid(size: int, target: int) -> None:
    images = torch.from_numpy(crop_photographs(0, 1, size)[:1]).permute(0, 3, 1, 2)
    expected = build_resizer("clean")(images[0].permute(1, 2, 0).numpy())
    found = clean(images, target)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found, expected, atol=5e-3)


def test_weights_with_another_hash_are_refused(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"not the weights")
    with pytest.raises(ConfigError, match=r"w\.pth has sha256 .*not 6726825d.*--inception-sha256"):
        find_weights(PUBLISHED, tmp_path / "w.pth")


def test_an_empty_hash_does_not_switch_the_check_off(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"not the weights")
    with pytest.raises(ConfigError, match="8 digits or more"):
        find_weights(PUBLISHED, tmp_path / "w.pth", weights_sha256="")


def test_a_file_that_is_no_inception_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=r"does not hold the weights of inception-v3-compat"):
        load_extractor(weights=tmp_path / "w.pth", weights_sha256=file_sha256(tmp_path / "w.pth")[:8])


def test_the_environment_names_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAMGAN_INCEPTION_WEIGHTS", str(tmp_path / "absent.pth"))
    with pytest.raises(ConfigError, match=r"\$HAMGAN_INCEPTION_WEIGHTS names .*absent\.pth"):
        find_weights(PUBLISHED)


def test_without_network_the_message_names_the_file_to_bring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.delenv("HAMGAN_INCEPTION_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    sentence = r"Network is unreachable\); bring weights-inception-2015-12-05-6726825d\.pth \(sha256 6726825d.*lite0"
    with pytest.raises(ConfigError, match=sentence):
        find_weights(PUBLISHED)
    assert not list(tmp_path.rglob("*.pth*"))


@pytest.mark.timeout(60)
def test_a_server_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "SECONDS_TO_ANSWER", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host, port = silent.getsockname()
        published = PublishedWeights("DINOv2", f"http://{host}:{port}/w.pth", "0123456789", "HAMGAN_NONE")
        with pytest.raises(ConfigError, match=r"DINOv2 weights: .*/w\.pth could not be downloaded \(timed out\)"):
            find_weights(replace(published, file_name=str(tmp_path / "w.pth")))
    assert socket.getdefaulttimeout() is None
    assert not list(tmp_path.iterdir())


def test_unknown_features_name_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'vgg'.*there are inception, .*efficientnet-lite0"):
        load_extractor("vgg")


@pytest.mark.parametrize("size", [5, 19])
def test_resize_in_front_of_inception_is_the_official_one(size: int) -> None:
    with np.load(golden_file("hamgan_tf/preprocess.npz")) as recorded:
        image = torch.from_numpy(recorded["incresize/image"]).permute(0, 3, 1, 2)
        expected = torch.from_numpy(recorded[f"incresize{size}/out"]).permute(0, 3, 1, 2)
    resized = interpolate_bilinear_2d_like_tensorflow1x(image, (size, size), align_corners=False)
    torch.testing.assert_close(resized, expected, rtol=0, atol=1e-5)
