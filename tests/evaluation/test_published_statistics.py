"""Check reference statistics in the formats and under the names of those who publish them, on real photographs."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.evaluations import OPTIONS
from support.photo_crops import crop_photographs, save_flat
from support.published_weights import take_for_published, write_random_weights

from hamgan.errors import ConfigError
from hamgan.evaluation import FeatureStatistics, Resources, evaluate, load_extractor, load_reference
from hamgan.evaluation.inputs.images import ArrayImages, FolderImages
from hamgan.evaluation.reference import check_comparable

REAL = crop_photographs(1, 2)
NAMES = ("inception", "inception-spatial", "dinov2-vit-l-14")
INCEPTION = OPTIONS | {"features": "inception", "split": "train"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write samples, reference images and random weights."""
    place = tmp_path_factory.mktemp("published")
    save_flat(crop_photographs(0, 1), place / "samples")
    save_flat(REAL, place / "real")
    return place


@pytest.fixture(scope="module")
def weights(folder: Path) -> dict[str, Path]:
    return write_random_weights(folder, NAMES)


@pytest.fixture(autouse=True)
def installed(weights: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the random files for the published ones."""
    take_for_published(weights, monkeypatch)


@pytest.fixture
def options(weights: dict[str, Path]) -> dict[str, Any]:
    from hamgan.evaluation.features.extractor import ARCHITECTURES

    return INCEPTION | {"inception_sha256": ARCHITECTURES["inception"].weights.sha256}  # type: ignore[union-attr]


@pytest.fixture
def made(folder: Path, options: dict[str, Any]) -> Callable[..., FeatureStatistics]:
    """Measure the reference images by an extractor and a resizer."""

    def make(name: str, resizer: str = "native", keep: bool = False) -> FeatureStatistics:
        digest = options["inception_sha256"] if name.startswith("inception") else None
        extractor = load_extractor(name, resizer=resizer, weights_sha256=digest, device="cpu")
        return Resources(extractor).measure(FolderImages(folder / "real"), keep_features=keep)

    return make


def arrays(statistics: FeatureStatistics, end: str = "") -> dict[str, Any]:
    return {f"mu{end}": statistics.mean.numpy(), f"sigma{end}": statistics.covariance.numpy()}


def test_adm_s_file_gives_both_distances_and_neighbours_of_its_images(
    folder: Path, options: dict[str, Any], made: Callable[..., FeatureStatistics]
) -> None:
    file = folder / "VIRTUAL_imagenet32_labeled.npz"
    values = arrays(made("inception")) | arrays(made("inception-spatial"), "_s")
    np.savez(file, arr_0=REAL[:8], **values)
    metrics = ("fid", "sfid", "prc")
    row = evaluate(folder / "samples", file, metrics, **options)
    whole = evaluate(folder / "samples", folder / "real", metrics, **options | {"split": "val"})
    np.savez(folder / "eight.npz", arr_0=REAL[:8])
    eight = evaluate(folder / "samples", folder / "eight.npz", metrics, **options)
    assert len(ArrayImages(file)) == 8
    for key in ("fid", "sfid"):
        assert row[key] == pytest.approx(whole[key], rel=1e-9)
        assert abs(row[key] - eight[key]) > 1e-3 * row[key]
    for key in ("precision", "recall"):
        assert isinstance(row[key], float)
        assert row[key] == eight[key]
    assert (row["reference_count"], row["reference_split"]) == (1_281_167, "train")
    assert "train (1,281,167 images, hash " in row["protocol"]
    assert "ADM's statistics of ImageNet)" in row["protocol"]
    assert "ADM's statistics of ImageNet)" in row["protocols"]["sfid"]
    assert not any("split" in warning for warning in row["warnings"])
    with pytest.raises(ConfigError, match="--features inception --resizer tensorflow resizes as the reference was"):
        evaluate(folder / "samples", file, ("fid",), **options | {"resizer": "clean"})
    with pytest.raises(ConfigError, match="holds statistics of inception and inception-spatial, not of dinov2"):
        evaluate(folder / "samples", file, ("fd_dinov2",), **options)
    wrong = file.with_name("VIRTUAL_imagenet256_labeled.npz")
    wrong.write_bytes(file.read_bytes())
    with pytest.raises(ConfigError, match="is named as ADM's ImageNet at 256 pixels, but its images have 32"):
        load_reference(wrong)


def test_edm2_s_pickle_gives_fid_and_fd_dinov2(
    folder: Path, options: dict[str, Any], made: Callable[..., FeatureStatistics]
) -> None:
    file, dinov2 = folder / "img32.pkl", made("dinov2-vit-l-14", "antialiased")
    content = {"num_images": 12, "fid": arrays(made("inception")), "fd_dinov2": arrays(dinov2)}
    for protocol in (2, 3, 4, 5):
        file.write_bytes(pickle.dumps(content, protocol=protocol))
        assert np.array_equal(load_reference(file, "dinov2-vit-l-14").mean.numpy(), dinov2.mean.numpy())
    row = evaluate(folder / "samples", file, ("fid",), **options)
    whole = evaluate(folder / "samples", folder / "real", ("fid",), **options | {"split": "val"})
    assert row["fid"] == pytest.approx(whole["fid"], rel=1e-9)
    assert (row["reference_count"], row["reference_origin"]) == (12, "EDM2's statistics of ImageNet")
    with pytest.raises(ConfigError, match="--features dinov2-vit-l-14 --resizer antialiased resizes as the reference"):
        evaluate(folder / "samples", file, ("fd_dinov2",), **options)
    own = options | {"features": "dinov2-vit-l-14", "resizer": "antialiased"}
    assert evaluate(folder / "samples", file, ("fid",), **own)["fd_dinov2_antialiased"] > 0


class Payload:
    """Make a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def test_a_pickle_that_holds_more_than_arrays_is_not_opened(tmp_path: Path) -> None:
    content = {"num_images": 9, "fid": {"mu": np.zeros(4), "sigma": np.eye(4)}, "more": Payload(tmp_path / "ran")}
    (tmp_path / "img64.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(ConfigError, match=r"is a pickle of statistics that is not opened: it names pathlib.*no array"):
        load_reference(tmp_path / "img64.pkl")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "resizer", "told"),
    [
        (
            "photos_clean_train_32",
            "clean",
            {"split": "train", "resolution": 32},
        ),
        ("photos_legacy_tensorflow_test_32", "native", {"split": "test"}),
        ("mine_clean_custom_na", "clean", {"split": "custom", "resolution": None}),
        ("CIFAR10_32_clean_valid_clean_InceptionV3_tf_moments", "clean", {"split": "val", "resolution": 32}),
        ("cifar10-32x32", "native", {"split": "train", "count": 50_000, "resolution": 32}),
        ("unknown", "native", {"split": None, "count": None, "extractor": None}),
    ],
)
def test_names_of_publishers_tell_how_their_statistics_were_made(
    name: str, resizer: str, told: dict[str, Any], tmp_path: Path, options: dict[str, Any]
) -> None:
    np.savez(tmp_path / f"{name}.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    found = load_reference(tmp_path / f"{name}.npz")
    known = found.description | {"count": found.count}
    assert {key: known.get(key) for key in told} == told
    check_comparable(described(resizer, options), found, 2048)
    if resizer == "clean":
        with pytest.raises(ConfigError, match=r"cannot be compared: resizer bicubic.*--resizer clean"):
            check_comparable(described("native", options), found, 2048)


def described(resizer: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return what is compared of samples by Inception."""
    extractor = load_extractor("inception", resizer=resizer, weights_sha256=options["inception_sha256"], device="cpu")
    return {**extractor.describe(), "resolution": 32}


@pytest.mark.parametrize("name", ["photos_legacy_pytorch_train_32", "X_32_clean_train_friendly_InceptionV3_tf_moments"])
def test_statistics_of_a_resize_that_nothing_here_does_are_refused(
    name: str, tmp_path: Path, options: dict[str, Any]
) -> None:
    np.savez(tmp_path / f"{name}.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    for resizer in ("native", "clean"):
        with pytest.raises(ConfigError, match=r"cannot be compared: resizer bilinear.*\(reference\)"):
            check_comparable(described(resizer, options), load_reference(tmp_path / f"{name}.npz"), 2048)


def test_a_name_that_contradicts_the_content_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "photos_clean_clip_vit_b_32_train_32.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    with pytest.raises(ConfigError, match="named as clean-fid's of clip-vit-b-32, but its features have length 2048"):
        load_reference(tmp_path / "photos_clean_clip_vit_b_32_train_32.npz")


def test_features_of_dgm_eval_serve_fd_dinov2_and_neighbours(
    folder: Path, options: dict[str, Any], made: Callable[..., FeatureStatistics]
) -> None:
    features = made("dinov2-vit-l-14", keep=True).kept_features.double().numpy()
    file = folder / "reps_photos_dinov2_nimage-12_train.npz"
    theirs: dict[str, Any] = {"model": "dinov2", "reps": features, "hparams": {"nimages": 12}}  # pickled
    np.savez(file, **theirs)
    row = evaluate(folder / "samples", file, ("fd_dinov2",), **options)
    whole = evaluate(folder / "samples", folder / "real", ("fd_dinov2",), **options | {"split": "val"})
    assert row["fd_dinov2"] == pytest.approx(whole["fd_dinov2"], rel=1e-5)
    assert (row["reference_count"], row["reference_split"]) == (12, "train")
    assert row["reference_origin"] == "dgm-eval's features of photos"
    np.savez(file, model="mae", reps=features)
    with pytest.raises(ConfigError, match=r"extractor dgm-eval's mae .reference. and dinov2-vit-l-14"):
        evaluate(folder / "samples", file, ("fd_dinov2",), **options)
