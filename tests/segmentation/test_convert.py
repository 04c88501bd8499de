"""Check that weights of other projects load whole, give the recorded numbers, and that misfits are told."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.paths import golden_file
from support.segmenters import (
    CLASSES,
    in_openmmlab_names,
    in_transformers_names,
    miniature_config,
    official_segmenter,
    recorded_weights,
    trainers_file,
)
from torch import Tensor

from hamgan.errors import ConfigError, ConversionError
from hamgan.segmentation import Segmenter, build_segmenter, load_encoder_weights, load_segmenter
from hamgan.segmentation.config import load_config
from hamgan.segmentation.convert import convert_file, convert_segmenter

NAMES = ["wall", "building", "sky", "floor", "tree", "ceiling", "bed "]
DIALECTS: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "official": lambda state: state | {"head.weight": torch.zeros(1000, 32), "head.bias": torch.zeros(1000)},
    "transformers": in_transformers_names,
    "transformers without a classifier": lambda state: {
        name.removeprefix("van."): value
        for name, value in in_transformers_names(state).items()
        if not name.startswith("classifier")
    },
    "openmmlab": in_openmmlab_names,
    "data parallel": lambda state: {f"module.{name}": value for name, value in state.items()},
}


def small_segmenter() -> Segmenter:
    return build_segmenter(miniature_config())


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_vans_weights_load_whole_from_every_dialect(dialect: str, suffix: str, tmp_path: Path) -> None:
    official = recorded_weights("van")
    foreign = DIALECTS[dialect](official)
    path = tmp_path / f"van{suffix}"
    if suffix == ".safetensors":
        save_file(foreign, path)
    else:
        torch.save(foreign, path)
    segmenter = small_segmenter()
    report = load_encoder_weights(segmenter, str(path))
    assert len(report.loaded) == len(official)
    assert report.new == []
    assert len(report.unused) == len(foreign) - len(official)
    loaded = segmenter.encoder.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in official.items())
    assert str(report).startswith(f"weights from {path}: {len(official)} tensors loaded")


def test_a_timm_trainers_file_loads_with_its_options_beside_the_weights(tmp_path: Path) -> None:
    path = tmp_path / "van_tiny_754.pth.tar"
    torch.save({"state_dict": recorded_weights("van"), "args": argparse.Namespace(lr=1e-3), "epoch": 300}, path)
    assert len(load_encoder_weights(small_segmenter(), str(path)).loaded) == len(recorded_weights("van"))


def test_openmmlabs_resnet_stem_is_timms(tmp_path: Path) -> None:
    config = load_config("hamnet_resnet101_ade20k", ["encoder.name=resnet50c"])
    ours = build_segmenter(config)
    state = ours.encoder.get_submodule("network").state_dict()
    stems = {"conv1.0.": "stem.0.", "conv1.1.": "stem.1.", "conv1.3.": "stem.3.", "conv1.4.": "stem.4."}
    stems |= {"conv1.6.": "stem.6.", "bn1.": "stem.7."}
    foreign = {
        next((theirs + name.removeprefix(own) for own, theirs in stems.items() if name.startswith(own)), name): value
        for name, value in state.items()
    } | {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}
    torch.save({"state_dict": foreign, "meta": {}}, tmp_path / "resnet50_v1c.pth")
    config.seed = 1
    other = build_segmenter(config)
    report = load_encoder_weights(other, str(tmp_path / "resnet50_v1c.pth"))
    assert report.unused == ["fc.weight", "fc.bias"]
    loaded = other.encoder.get_submodule("network").state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())


def test_a_whole_segmenter_gives_the_recorded_label_map(tmp_path: Path) -> None:
    palette = [[index, 2 * index, 255] for index in range(CLASSES)]
    path = trainers_file(tmp_path / "iter_160000.pth", official_segmenter(), {"CLASSES": NAMES, "PALETTE": palette})
    output = tmp_path / "out" / "segmenter.safetensors"
    report = convert_file(path, output, miniature_config())
    assert (len(report.loaded), report.new, report.unused) == (len(official_segmenter()), [], [])
    loaded = load_segmenter(output)
    assert loaded.class_names == [name.strip() for name in NAMES]
    assert loaded.header.palette == palette
    with np.load(golden_file("light_ham/light_ham_io.npz")) as data:
        images, bases, expected = (
            torch.from_numpy(data[key]) for key in ("van/img", "light_ham_head/bases0", "e2e/eval/argmax")
        )
    with torch.no_grad():
        logits = loaded.network(images, bases=bases).main
    assert torch.equal(loaded.network.resize_logits(logits, 64, 64).argmax(dim=1), expected.long())


@pytest.mark.parametrize("preset", ["light_ham_van_tiny_d256_ade20k", "hamnet_van_tiny_ade20k"])
def test_the_preset_of_a_published_segmenter_is_recognised(preset: str, tmp_path: Path) -> None:
    config = load_config(preset)
    segmenter = build_segmenter(config)
    theirs = {"lower_bread.": "ham_in.conv.", "upper_bread.": "ham_out.conv.", "norm.": "ham_out.gn."}
    inside = "hamburger." if config.head.kind == "light_ham" else ""
    state = {}
    for name, value in segmenter.state_dict().items():
        name = name.replace("head.classifier", "decode_head.conv_seg").replace("encoder.", "backbone.")
        name = name.replace("auxiliary.classifier", "auxiliary_head.conv_seg")
        name = name.replace("auxiliary.conv.conv", "auxiliary_head.convs.0.conv")
        name = name.replace("auxiliary.conv.norm", "auxiliary_head.convs.0.gn").replace("head.join", "head.conv_cat")
        for ours, foreign in theirs.items():
            name = name.replace(f"head.hamburger.{ours}", f"head.{inside}{foreign}")
        if name.startswith("head."):
            name = f"decode_{name}".replace(".norm.", ".gn.")
        state[name] = value
    found, header, report = convert_segmenter(trainers_file(tmp_path / "a.pth", state))
    assert header.config == config
    assert report.unused == report.new == []
    assert all(torch.equal(found.state_dict()[name], value) for name, value in segmenter.state_dict().items())


@pytest.mark.parametrize("version", ["v1", "v2", "v2+"])
def test_the_official_hamnet_of_voc_converts_whole(version: str, tmp_path: Path) -> None:
    """Rename a network as the official code for PASCAL VOC has it (network.py, hamburger/burger.py), and convert it."""
    config = load_config("hamnet_resnet101_pascal_context", ["data.num_classes=21", "encoder.name=resnet50s"])
    config.head.hamburger.version = version  # type: ignore[assignment]
    segmenter = build_segmenter(config)
    parts = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
    upper, norm = ("upper_bread.0", "upper_bread.1") if version == "v1" else ("upper_bread", "cheese.bn")
    renames = {
        "head.hamburger.lower_bread": "hamburger.lower_bread.0",
        "head.hamburger.upper_bread": f"hamburger.{upper}",
    }
    renames |= {"head.hamburger.norm": f"hamburger.{norm}", "head.hamburger.cheese": "hamburger.cheese.conv"}
    renames |= {"head.hamburger.shortcut": "hamburger.coef_shortcut", "head.hamburger.gate": "hamburger.coef_ham"}
    renames |= {"head.classifier": "fc.1", "head.squeeze.norm": "squeeze.bn", "head.align.norm": "align.bn"}
    state = {}
    for name, value in segmenter.state_dict().items():
        for ours, number in parts.items():
            name = re.sub(rf"^encoder\.network\.{ours}\.", f"backbone.{number}.", name)
        for ours, theirs in renames.items():
            name = re.sub(rf"^{re.escape(ours)}(?=\.|$)", theirs, name)
        state[name.removeprefix("head.")] = value[None] if "coef_" in name else value
    torch.save({"net": state, "step": 60_000, "best_mIoU": 0.8}, tmp_path / "best.pth")
    config.data.num_classes = 59  # the preset's; the file tells its own
    found, header, report = convert_segmenter(tmp_path / "best.pth", config)
    assert (len(report.loaded), report.new, report.unused) == (len(state), [], [])
    assert header.config.data.num_classes == 21
    original = segmenter.state_dict()
    assert all(torch.equal(value, original[name]) for name, value in found.state_dict().items())


def test_weights_that_are_missing_or_not_named_are_told() -> None:
    segmenter = small_segmenter()
    with pytest.raises(ConfigError, match=r"there is no file van_b4\.pth; .* or `none` to start"):
        load_encoder_weights(segmenter, "van_b4.pth")
    segmenter.config.encoder.weights = None
    with pytest.raises(ConfigError, match=r"encoder\.weights is not set"):
        load_encoder_weights(segmenter)
    count = len(segmenter.encoder.state_dict())
    report = load_encoder_weights(segmenter, "none")
    assert str(report) == f"weights from none: all {count} tensors of the encoder are random"


def test_weights_that_do_not_fit_are_refused_and_change_nothing(tmp_path: Path) -> None:
    official = recorded_weights("van")
    segmenter = small_segmenter()
    before = {name: value.clone() for name, value in segmenter.state_dict().items()}
    files = {
        "it misses 1 tensors": {name: value for name, value in official.items() if name != "norm3.weight"},
        "has beyond ours 1 tensors": official | {"block1.7.norm1.weight": torch.zeros(8)},
        "of another size: 1 tensors": official | {"norm3.weight": torch.zeros(48)},
    }
    for message, state in files.items():
        torch.save(state, tmp_path / "van.pth")
        with pytest.raises(ConversionError, match=message):
            load_encoder_weights(segmenter, str(tmp_path / "van.pth"))
    after = segmenter.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_file_without_a_segmenter_and_one_of_no_preset_are_refused(tmp_path: Path) -> None:
    torch.save(recorded_weights("van"), tmp_path / "van.pth")
    with pytest.raises(ConversionError, match="holds no segmenter"):
        convert_segmenter(tmp_path / "van.pth")
    with pytest.raises(ConversionError, match="fits none of the presets"):
        convert_segmenter(trainers_file(tmp_path / "small.pth", official_segmenter()))
    with pytest.raises(ConversionError, match="there is no file"):
        convert_segmenter(tmp_path / "absent.pth")
