"""Check that ONNX models and torch.export files draw the same images in any batch, or are refused with a sentence."""

import json
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from support.generators import VARIANTS, latents, trained_form
from support.small_runs import small_config

from hamgan.config import config_from_dict
from hamgan.errors import CheckpointError, ConfigError
from hamgan.networks.blocks import GeneratorBlock
from hamgan.networks.inference import fold_spectral_norm
from hamgan.sampling import LoadedGenerator
from hamgan.sharing import formats
from hamgan.sharing.formats import export_onnx, export_program

EVALUATION = {"protocol": "8 samples against photos", "fid": 12.5, "reference": "/home/me/photos"}


def loaded(folder: Path, *overrides: str) -> LoadedGenerator:
    config = small_config(folder, "data.num_classes=5", *overrides)
    network = fold_spectral_norm(trained_form(folder, *overrides))
    names = ["cat", "dog", "café", "a|b", "e"]
    return LoadedGenerator(network, config, class_names=names, kimg=2.5, evaluations=[EVALUATION])


def check_metadata(metadata: dict[str, str], generator: LoadedGenerator) -> None:
    values = {key: json.loads(value) for key, value in metadata.items() if key != "format"}
    assert metadata["format"] == "hamgan-generator"
    assert config_from_dict(values["config"]).generator == generator.config.generator
    assert (values["class_names"], values["kimg"]) == (generator.class_names, 2.5)
    assert values["evaluations"] == [EVALUATION | {"reference": "photos"}]


@pytest.mark.slow
@pytest.mark.parametrize(
    "variant",
    [
        "per class",
        "hamburger v2+",
        *(pytest.param(name, marks=pytest.mark.long) for name in ("hierarchical", "attention", "without context")),
    ],
)
def test_exported_forms_draw_the_same_images_in_any_batch(tmp_path: Path, variant: str) -> None:
    generator = loaded(tmp_path, *VARIANTS[variant])
    assert export_onnx(generator, tmp_path / "new/g.onnx") < 1e-4
    assert export_program(generator, tmp_path / "new/g.pt2") < 1e-5
    session = onnxruntime.InferenceSession(tmp_path / "new/g.onnx")
    program = torch.export.load(tmp_path / "new/g.pt2").module()
    for count in (1, 2, 7):
        z, labels = latents(count)
        expected = generator.network(z, labels)
        assert expected.std() > 0.01
        (found,) = session.run(None, {"z": z.numpy(), "labels": labels.numpy()})
        assert (torch.from_numpy(found) - expected).abs().max() < 1e-4
        assert (program(z, labels) - expected).abs().max() < 1e-5
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["g.onnx", "g.pt2"]
    check_metadata(session.get_modelmeta().custom_metadata_map, generator)
    extra = {"generator.json": ""}
    torch.export.load(tmp_path / "new/g.pt2", extra_files=extra)
    check_metadata(json.loads(extra["generator.json"]), generator)
    signature = [(item.name, item.shape, item.type) for item in (*session.get_inputs(), *session.get_outputs())]
    assert signature == [
        ("z", ["batch", 16], "tensor(float)"),
        ("labels", ["batch"], "tensor(int64)"),
        ("images", ["batch", 3, 32, 32], "tensor(float)"),
    ]


@pytest.mark.slow
def test_an_onnx_model_holds_its_merged_kernels(tmp_path: Path) -> None:
    """Check that the file stores merged kernels, which every run of the model would otherwise compute anew."""
    generator = loaded(tmp_path)
    export_onnx(generator, tmp_path / "g.onnx")
    values = {value.name: list(value.dims) for value in onnx.load(tmp_path / "g.onnx").graph.initializer}
    for block in generator.network.blocks.children():
        assert isinstance(block, GeneratorBlock)
        outputs, inputs, _, _ = block.conv1.weight.shape
        assert [inputs, outputs, 4, 4] in values.values()


def test_what_onnx_cannot_say_is_a_sentence_and_torch_can(tmp_path: Path) -> None:
    generator = loaded(tmp_path, "generator.hamburger.decomposition=cd")
    with pytest.raises(ConfigError, match=r"cannot be written as ONNX: ONNX has no operator for aten\.linalg_cholesky"):
        export_onnx(generator, tmp_path / "g.onnx")
    assert not list(tmp_path.glob("*g.onnx*"))
    assert export_program(generator, tmp_path / "g.pt2") < 1e-5


def test_an_export_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = loaded(tmp_path)
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(formats, "PROGRAM_TOLERANCE", -1.0)
    with pytest.raises(
        CheckpointError, match=r"g.pt2 is not written: its images differ by .* from PyTorch's, more than -1"
    ):
        export_program(generator, tmp_path / "g.pt2")
    assert sorted(tmp_path.iterdir()) == before


def test_half_precision_is_exported_in_full(tmp_path: Path) -> None:
    generator = loaded(tmp_path)
    generator.network.bfloat16()
    export_program(generator, tmp_path / "g.pt2")
    z, labels = latents(2)
    images = torch.export.load(tmp_path / "g.pt2").module()(z, labels)
    assert images.dtype == torch.float32
    assert (images - generator.network.float()(z, labels)).abs().max() < 1e-5
