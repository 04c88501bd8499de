"""Check that an ONNX model of a segmenter gives PyTorch's logits at any size, and is refused with a sentence."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from support.segmenters import miniature_config, recorded_weights

from hamgan.config import config_to_dict
from hamgan.errors import CheckpointError, ConfigError
from hamgan.segmentation import LoadedSegmenter, SegmenterHeader, build_segmenter, normalise
from hamgan.segmentation import export as exporting
from hamgan.segmentation.export import export_onnx


def loaded(*, decomposition: str = "nmf") -> LoadedSegmenter:
    config = miniature_config()
    config.head.hamburger.decomposition = decomposition  # type: ignore[assignment]
    segmenter = build_segmenter(config).eval().requires_grad_(False)
    segmenter.encoder.load_state_dict(recorded_weights("van"))
    config.data.source, config.encoder.weights, config.run_dir = "/home/me/photos", "/home/me/van.pth", "/home/me/run"
    names = [f"class {index}" for index in range(segmenter.classes)]
    return LoadedSegmenter(segmenter, SegmenterHeader(config, names, kimg=2.5))


@pytest.mark.slow
def test_an_onnx_model_gives_the_same_logits_at_any_size(tmp_path: Path) -> None:
    segmenter = loaded()
    assert export_onnx(segmenter, tmp_path / "new/s.onnx") < 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "new/s.onnx")
    for shape in ((1, 3, 33, 47), (2, 3, 64, 128), (3, 3, 50, 50)):
        images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
        with torch.no_grad():
            low = segmenter.network(normalise(images)).main
            expected = segmenter.network.resize_logits(low, *shape[2:])
        (found,) = session.run(None, {"images": images.numpy()})
        assert expected.std() > 1e-3
        assert (torch.from_numpy(found) - expected).abs().max() < 1e-4 * expected.abs().max()
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["format"] == "hamgan-segmenter"
    config = json.loads(metadata["config"])
    assert config["head"] == config_to_dict(segmenter.config)["head"]
    assert (config["data"]["source"], config["encoder"]["weights"], config["run_dir"]) == ("photos", "van.pth", None)
    assert json.loads(metadata["class_names"]) == segmenter.class_names
    with pytest.raises(ConfigError, match="exists already"):
        export_onnx(segmenter, tmp_path / "new/s.onnx")


@pytest.mark.slow
def test_a_model_whose_logits_differ_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "TOLERANCE", 0.0)
    with pytest.raises(CheckpointError, match=r"s\.onnx is not written: its logits differ by"):
        export_onnx(loaded(), tmp_path / "s.onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_onnx_cannot_say_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written as ONNX"):
        export_onnx(loaded(decomposition="cd"), tmp_path / "s.onnx")
