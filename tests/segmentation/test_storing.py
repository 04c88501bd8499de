"""Check files of segmenters: written and read back, fetched from a hub, and what is said of damaged ones."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.local_hub import TOKEN, local_hub
from support.paths import ROOT
from support.segmenters import in_transformers_names, miniature_config, recorded_weights
from support.small_runs import environment

import hamgan
from hamgan.checkpoint.tensors import read_metadata
from hamgan.errors import CheckpointError, ConfigError
from hamgan.segmentation import Segmenter, SegmenterHeader, build_segmenter, load_segmenter, save_segmenter
from hamgan.segmentation.storing import load_segmenter_file

NAMES = [f"class {index}" for index in range(7)]
PALETTE = [[index, 0, 255 - index] for index in range(7)]
EVALUATION = {
    "protocol": "8 images of /home/me/photos/val",
    "data": {"source": "/home/me/photos"},
    "miou": 0.5,
    "macc": 0.6,
    "aacc": 0.7,
}


def trained() -> tuple[Segmenter, SegmenterHeader]:
    config = miniature_config()
    config.auxiliary.weight = 0.4
    return build_segmenter(config).eval(), SegmenterHeader(config, NAMES, PALETTE, 2.5, [EVALUATION])


def test_a_segmenter_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    segmenter, header = trained()
    save_segmenter(tmp_path / "segmenter.safetensors", segmenter, header)
    for place in (tmp_path, tmp_path / "segmenter.safetensors"):
        loaded = hamgan.load_segmenter(place, "cpu")
        assert loaded.header == header
        state = segmenter.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in loaded.network.state_dict().items())
    # Recorded of the encoder and the head, 65,336 and 7,143, and the auxiliary head: (24 * 9 + 2) * 256 + 257 * 7.
    assert repr(loaded) == "<LoadedSegmenter mosaic: 7 classes, 130,086 parameters, at 2.5 kimg, cpu>"


def test_a_file_without_the_auxiliary_head_labels_the_same(tmp_path: Path) -> None:
    segmenter, header = trained()
    state = {name: value for name, value in segmenter.state_dict().items() if not name.startswith("auxiliary.")}
    save_segmenter(tmp_path / "segmenter.safetensors", state, header)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        found = load_segmenter_file(tmp_path / "segmenter.safetensors")[0](images).main
        assert torch.equal(found, segmenter(images).main)


def test_damaged_files_are_a_sentence(tmp_path: Path) -> None:
    segmenter, header = trained()
    path = tmp_path / "segmenter.safetensors"
    save_segmenter(path, segmenter, header)
    tensors, metadata = load_file(path), read_metadata(path)

    def check(message: str, changed: dict[str, object], state: dict[str, torch.Tensor] = tensors) -> None:
        save_file(state, path, metadata | {key: json.dumps(value) for key, value in changed.items()})
        with pytest.raises(CheckpointError, match=message):
            load_segmenter(path)

    check("class names are not one per class", {"class_names": NAMES[:3]})
    check("colours are not all", {"palette": [[0, 0, 256]] * 7})
    check("not every evaluation has its protocol", {"evaluations": [{"miou": 1}]})
    check("unknown key `head.chanels`", {"config": json.loads(metadata["config"]) | {"head": {"chanels": 3}}})
    check("unexpected keyword", {"unheard_of": 1})
    fewer = {name: value for name, value in tensors.items() if name != "head.classifier.bias"}
    check(r"1 weights in .* do not fit its configuration: head\.classifier\.bias", {}, fewer)
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match="not a HamGAN segmenter"):
        load_segmenter(path)
    path.write_bytes(b"something else")
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_segmenter(path)


def test_a_folder_without_a_segmenter_and_an_unknown_device_are_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"it has no segmenter\.safetensors"):
        load_segmenter(tmp_path)
    save_segmenter(tmp_path / "segmenter.safetensors", *trained())
    with pytest.raises(ConfigError, match="device nonsense cannot be used"):
        load_segmenter(tmp_path, "nonsense")


FETCH = """
import hamgan.errors
from hamgan.segmentation import build_segmenter, load_encoder_weights, load_segmenter
found = load_segmenter("owner/segmenter", "cpu")
print(found)
segmenter = build_segmenter(found.config)
for name in ("hf:owner/van", "hf:owner/both"):
    print(load_encoder_weights(segmenter, name))
for fetch in (lambda: load_segmenter("owner/van"), lambda: load_encoder_weights(segmenter, "hf:owner/none")):
    try:
        fetch()
    except hamgan.errors.CheckpointError as error:
        print(error)
"""


def test_segmenters_and_encoders_weights_come_from_a_hub(tmp_path: Path) -> None:
    save_segmenter(tmp_path / "segmenter.safetensors", *trained())
    torch.save(in_transformers_names(recorded_weights("van")), tmp_path / "pytorch_model.bin")
    with local_hub() as hub:
        hub.files["owner/van"] = {"pytorch_model.bin": (tmp_path / "pytorch_model.bin").read_bytes()}
        save_file(recorded_weights("van"), tmp_path / "model.safetensors")
        hub.files["owner/both"] = {
            "model.safetensors": (tmp_path / "model.safetensors").read_bytes(),
            "pytorch_model.bin": b"damaged",
        }
        names = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_DISABLE_XET": "1"}
        export = ["scripts/segment.py", "export", "--checkpoint", str(tmp_path), "--push", "owner/segmenter"]
        subprocess.run(
            [sys.executable, *export, "--license", "mit"],
            env=environment() | names | {"HF_TOKEN": TOKEN},
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        card = hub.files["owner/segmenter"]["README.md"].decode()
        # A process of its own, as huggingface_hub reads the hub's address once, when it is imported.
        run = subprocess.run(
            [sys.executable, "-c", FETCH],
            env=environment() | names,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    assert "license: mit" in card
    assert 'hamgan.load_segmenter("owner/segmenter")' in card
    assert "Classes: class 0; class 1;" in card
    assert "mIoU 50.00" in card
    assert "Protocol: 8 images of photos/val." in card
    published = hub.files["owner/segmenter"]
    assert not any(b"/home/me" in content for content in published.values())
    count = len(recorded_weights("van"))
    assert run.stdout.splitlines() == [
        "<LoadedSegmenter mosaic: 7 classes, 130,086 parameters, at 2.5 kimg, cpu>",
        f"weights from hf:owner/van: {count} tensors loaded, 4 unused (van.layernorm.weight, van.layernorm.bias, "
        "classifier.weight, ...)",
        f"weights from hf:owner/both: {count} tensors loaded",
        "there is no checkpoint at owner/van, and the hub gives none: "
        f"{hub.address}/owner/van has no segmenter.safetensors",
        "there is no checkpoint at owner/none, and the hub gives none: "
        f"no repository is at {hub.address}/owner/none, or it is private: then log in (hf auth login, or a token in "
        "$HF_TOKEN)",
    ]
