"""Check that `hamgan convert` writes files that can be sampled and resumed, and explains bad input in a sentence."""

import pickle
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from support.foreign_weights import Variables, official_variables, weights
from support.paths import ROOT

from hamgan.checkpoint import load_checkpoint, load_generator_file
from hamgan.config import load_config
from hamgan.convert.biggan import biggan_pytorch
from hamgan.convert.files import read_weights
from hamgan.errors import ConfigError, ConversionError
from hamgan.evaluation.command import main as evaluate
from hamgan.networks import build_networks
from hamgan.sampling import load_generator
from hamgan.training.step import GanStep


class Convert:
    """Run ``scripts/convert.py`` in this process."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        self.generator = self.store("G.safetensors", weights("biggan32_hier_g"))
        self.discriminator = self.store("D.safetensors", weights("biggan32_hier_d"))
        self.output = folder / "out" / "generator.safetensors"

    def store(self, name: str, tensors: Variables) -> Path:
        save_file({key: value.contiguous() for key, value in tensors.items()}, self.folder / name)
        return self.folder / name

    def __call__(self, *arguments: Any, script: str = "convert") -> int:
        self.monkeypatch.setattr(sys, "argv", [f"{script}.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_info:
            runpy.run_path(str(ROOT / f"scripts/{script}.py"), run_name="__main__")
        code = exit_info.value.code
        assert isinstance(code, int)
        return code


@pytest.fixture
def convert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Convert:
    return Convert(tmp_path, monkeypatch)


def test_a_converted_file_samples_with_no_further_option(convert: Convert, capsys: pytest.CaptureFixture[str]) -> None:
    pickled = convert.folder / "G_ema.pth"
    torch.save(weights("biggan32_hier_g"), pickled)
    names = convert.folder / "names.txt"
    names.write_text("ant\nbee\ncat\ndog\nelk\n")
    assert convert(pickled, "--output", convert.output, "--class-names", names, "--kimg", 12) == 0
    report = capsys.readouterr().out
    assert "average: 83 tensors mapped" in report
    assert "generator.spectral_norm.eps=1e-06" in report
    loaded, config, header = load_generator_file(convert.output)
    expected_config, state = biggan_pytorch(weights("biggan32_hier_g"))
    assert config == expected_config
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())
    assert header["kimg"] == 12
    assert set(header["converted_from"]["sha256"]) == {"G_ema.pth"}
    converted = load_generator(convert.output, "cpu")
    assert (converted.is_average, converted.batch_norm) == (True, "ema")
    grid = convert.folder / "grid.png"
    assert convert("--checkpoint", convert.output, "--classes", "bee,0-1", "--output", grid, script="sample") == 0
    assert grid.is_file()


def test_weights_of_g_itself_are_not_called_an_average(convert: Convert) -> None:
    assert convert(convert.generator, "--output", convert.output) == 0
    converted = load_generator(convert.output, "cpu", average=False)  # as `--no-ema` and the preset hamgan-paper ask
    assert (converted.is_average, converted.batch_norm) == (False, "running")
    arguments = ["--checkpoint", str(convert.output), "--features", "efficientnet-lite0", "--device", "cpu", "--quiet"]
    with pytest.raises(ConfigError, match="fid need a reference"):
        evaluate([*arguments, "--metrics", "fid"])  # and not against `photos`, the default of a configuration


def test_official_variables_become_a_file_that_samples(convert: Convert) -> None:
    file = convert.folder / "hamgan.npz"
    _npz(file, **official_variables("generator_v1_nmf"))
    assert convert(file, "--output", convert.output, "--set", "generator.hamburger.rank=4") == 0
    images = load_generator(convert.output)([0], [4], output="tensor")
    assert images.shape == (1, 3, 128, 128)


def test_a_converted_run_resumes_with_both_networks_and_the_average(convert: Convert) -> None:
    average = weights("biggan32_hier_g")
    average["linear.bias"] = average["linear.bias"] + 1
    ema = convert.store("G_ema.safetensors", average)
    run = convert.folder / "run"
    networks = [convert.generator, convert.discriminator, "--ema", ema]
    assert convert(*networks, "--output-run", run, "--set", "data.source=photos", "--kimg", 3) == 0
    config = load_config(run / "config.yaml")
    assert config.data.source == "photos"
    generator, discriminator = build_networks(config)
    step = GanStep(generator, discriminator, config.train, Accelerator(cpu=True))
    assert load_checkpoint(run / "checkpoints/00000003", step).images == 3000
    assert step.average is not None
    for network, source in ((generator, "G"), (discriminator, "D"), (step.average, "G_ema")):
        state = biggan_pytorch(load_file(convert.folder / f"{source}.safetensors"))[1]
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    sampled = load_file(run / "generator.safetensors")
    assert torch.equal(sampled["linear.bias"], average["linear.bias"])


class Payload:
    """Make a folder when it is unpickled by a careless reader."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Path]]:
        return Path.mkdir, (self.path,)


def _truncated(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-2000])
    return path


def _pickled(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def _npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


BAD_FILES: dict[str, tuple[Callable[[Convert], list[Any]], str]] = {
    "missing": (lambda c: [c.folder / "nothing.pth"], "there is no file"),
    "unknown ending": (lambda c: [c.generator.rename(c.folder / "G.weights")], "unknown file extension"),
    "truncated safetensors": (lambda c: [_truncated(c.generator)], "not a readable safetensors"),
    "truncated pth": (lambda c: [_truncated(_pickled(c.folder / "G.pth", weights("biggan32_hier_g")))], "damaged"),
    "truncated npz": (lambda c: [_truncated(_npz(c.folder / "v.npz", a=np.zeros(1000)))], "damaged"),
    "text": (lambda c: [c.folder / "t.pth"], "damaged or no PyTorch file"),
    "code": (lambda c: [_pickled(c.folder / "G.pth", {"a": Payload(c.folder / "pwned")})], "is not run"),
    "code in npz": (lambda c: [_npz(c.folder / "v.npz", a=np.array([Payload(c.folder / "pwned")]))], "plain arrays"),
    "list": (lambda c: [_pickled(c.folder / "G.pth", [1, 2])], "holds no state dict but a list"),
    "numbers": (lambda c: [_pickled(c.folder / "G.pth", {"epoch": 3})], "'epoch' is a int, not a tensor"),
    "classifier": (lambda c: [c.store("r.safetensors", {"conv1.weight": torch.zeros(3)})], "neither of BigGAN"),
    "BigGAN-deep": (
        lambda c: [
            c.store("deep.safetensors", weights("biggan32_hier_g") | {"blocks.0.0.conv4.weight": torch.ones(1)})
        ],
        "BigGAN-deep",
    ),
    "blocks missing": (
        lambda c: [c.store("b.safetensors", {k: v for k, v in weights("biggan128_g").items() if "blocks.4." not in k})],
        "another architecture, or a part of one",
    ),
    "tensor missing": (
        lambda c: [
            c.store("b.safetensors", {k: v for k, v in weights("biggan32_hier_g").items() if k != "linear.bias"})
        ],
        "misses 1 tensors: `linear.bias`",
    ),
    "resolutions": (
        lambda c: [c.generator, c.store("D128.safetensors", weights("biggan128_d"))],
        "resolution is 32 in the generator, 128 in the discriminator",
    ),
    "classes": (
        lambda c: [
            c.generator,
            c.store("D7.safetensors", weights("biggan32_hier_d") | {"embed.weight": torch.ones(7, 16)}),
        ],
        "data.num_classes is 5 in the generator, 7 in the discriminator",
    ),
    "asked for other classes": (lambda c: [c.generator, "--set", "data.num_classes=9"], "are of data.num_classes 5"),
    "asked for 64 px": (
        lambda c: [c.generator, "--set", "resolution=64", "--set", "generator.hierarchical=false"],
        "weights are of resolution 32",
    ),
    "two generators": (lambda c: [c.generator, c.store("G2.safetensors", weights("biggan32_hier_g"))], "second"),
    "wrong average": (lambda c: [c.generator, "--ema", c.discriminator], "holds a discriminator"),
    "two families": (
        lambda c: [c.generator, _npz(c.folder / "v.npz", **official_variables("discriminator_v1_nmf"))],
        "different families",
    ),
    "names": (lambda c: [c.generator, "--class-names", c.folder / "t.pth"], "1 class names"),
    "no generator": (lambda c: [c.discriminator], "no generator"),
    "no discriminator": (
        lambda c: [c.generator, "--output-run", c.folder / "run", "--set", "data.source=photos"],
        "no discriminator",
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_end_with_a_sentence_and_no_output(
    case: str, convert: Convert, capsys: pytest.CaptureFixture[str]
) -> None:
    (convert.folder / "t.pth").write_text("hello\n")
    arguments, sentence = BAD_FILES[case]
    assert convert(*arguments(convert), "--output", convert.output) == 1
    printed = capsys.readouterr().err.strip()
    assert sentence in printed
    assert printed.startswith("error: ")
    assert len(printed.splitlines()) == 1
    assert not convert.output.exists()
    assert not (convert.folder / "run").exists()
    assert not (convert.folder / "pwned").exists()


def test_the_payload_of_the_tests_is_live(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(tmp_path / "pwned")))
    assert (tmp_path / "pwned").is_dir()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "name --output FILE"),
        (["--output", "g.safetensors", "--set", "generator.hamburger.rnk=3"], "did you mean"),
        (["--output", "g.safetensors", "--set", "rank"], "write key=value"),
    ],
)
def test_bad_usage_ends_with_2(
    convert: Convert, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(convert.generator, *arguments) == 2
    assert sentence in capsys.readouterr().err


def test_a_run_is_not_written_over_another(convert: Convert, capsys: pytest.CaptureFixture[str]) -> None:
    run = convert.folder / "run"
    run.mkdir()
    (run / "precious").write_text("kept")
    networks = [convert.generator, convert.discriminator, "--output-run", run]
    assert convert(*networks, "--set", "data.source=photos") == 2
    assert "not empty" in capsys.readouterr().err
    assert [path.name for path in run.iterdir()] == ["precious"]


def test_a_tensorflow_checkpoint_without_tensorflow_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    (tmp_path / "model.ckpt-5.index").write_bytes(b"")
    with pytest.raises(ConversionError, match=r"np\.savez"):
        read_weights(tmp_path / "model.ckpt-5")
