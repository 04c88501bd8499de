"""Conversion of foreign weights: names, inferred configuration, the script, bad input."""

import json
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
from conftest import ROOT, golden_file
from safetensors.torch import load_file, save_file
from torch import Tensor

from hamgan.checkpoint import load_checkpoint, load_generator_file
from hamgan.config import Config, load_config
from hamgan.convert import ConversionError, biggan_pytorch, hamgan_tf
from hamgan.convert.biggan import convert_biggan
from hamgan.convert.files import read_weights
from hamgan.convert.mapping import check_fit, empty_network
from hamgan.convert.official import convert_hamgan_tf, split_networks
from hamgan.networks import build_networks
from hamgan.sampling import load_generator
from hamgan.step import GanStep

Variables = dict[str, Tensor]


def weights(name: str) -> Variables:
    return load_file(golden_file(f"biggan_pytorch/{name}.safetensors"))


def official_variables(name: str) -> Variables:
    with np.load(golden_file(f"hamgan_tf/{name}.npz")) as arrays:
        return {key[4:]: torch.from_numpy(arrays[key]) for key in arrays.files if key.startswith("var/")}


def full_size_variables(network: str) -> Variables:
    """Names and shapes of the official full-size network, without memory."""
    layout = json.loads(golden_file("hamgan_tf/layout.json").read_text())[network]
    return {name: torch.empty(shape, device="meta") for part in layout.values() for name, shape in part}


FOREIGN_NAMES = [
    ("shortcut", "conv_sc"),
    ("norm1", "bn1"),
    ("norm2", "bn2"),
    ("running_", "stored_"),
    (".vector", ".u0"),
    ("output_norm.", "output_layer.0."),
    ("output_conv.", "output_layer.2."),
    (".query.", ".theta."),
    (".key.", ".phi."),
    (".value.", ".g."),
    (".output.", ".o."),
    (".gate", ".gamma"),
]


def foreign_state(config: Config, network: str) -> Variables:
    """A BigGAN-PyTorch state dict of this configuration, from our names by plain replacement."""
    state = {}
    for name, tensor in empty_network(network, config).state_dict().items():
        head, _, rest = name.partition(".")
        if head == "blocks":
            index, _, rest = rest.partition(".")
            name = f"blocks.{index}.0.{rest}"
        elif head == "contexts":
            size, _, rest = rest.partition(".")
            ratio = int(size) // 4 if network == "generator" else config.resolution // int(size)
            name = f"blocks.{ratio.bit_length() - 2}.1.{rest}"
        elif head == "class_embedding":
            name = f"{'shared' if network == 'generator' else 'embed'}.{rest}"
        for ours, theirs in FOREIGN_NAMES:
            name = name.replace(ours, theirs)
        state[name] = torch.zeros(1, *tensor.shape) if name.endswith("u0") else torch.zeros(tensor.shape)
    return state


@pytest.mark.parametrize(
    "options",
    [
        ["resolution=32", "generator.context_resolutions=[16]", "discriminator.context_resolutions=[8]"],
        ["resolution=64", "generator.hierarchical=false", "generator.latent_dim=17"],
        ["resolution=128", "generator.context_resolutions=[32,64]", "discriminator.context_resolutions=[32]"],
        ["resolution=256", "generator.context=none", "discriminator.context=none", "generator.latent_dim=140"],
        ["resolution=256", "generator.spectral_norm.enabled=false", "generator.latent_dim=140"],
    ],
)
def test_configuration_is_inferred_from_names_and_shapes(options: list[str]) -> None:
    fixed = ["generator.context=attention", "discriminator.context=attention", "data.num_classes=7"]
    small = ["generator.channels=8", "discriminator.channels=8", "generator.class_embedding_dim=12"]
    if any("32" in option for option in options[:1]):
        small.append("generator.latent_dim=20")
    config = load_config(None, [*fixed, *small, *(["discriminator.context_resolutions=[32]"]), *options])
    generator, _ = biggan_pytorch(foreign_state(config, "generator"))
    discriminator, _ = biggan_pytorch(foreign_state(config, "discriminator"))
    expected = config.generator
    if expected.context == "none":
        expected.context_resolutions = generator.generator.context_resolutions
        config.discriminator.context_resolutions = discriminator.discriminator.context_resolutions
    assert generator.generator == expected
    assert discriminator.discriminator == config.discriminator
    assert generator.resolution == discriminator.resolution == config.resolution
    assert generator.data.num_classes == discriminator.data.num_classes == 7


def test_gain_tables_without_shared_embedding_gain_one() -> None:
    """launch_cifar_ema.sh: plain embeddings of the class, used as 1 + gain."""
    config = load_config(
        None,
        [
            "resolution=32",
            "data.num_classes=5",
            "generator.channels=4",
            "generator.latent_dim=20",
            "generator.hierarchical=false",
            "generator.conditioning=per_class",
            "generator.context=none",
            "discriminator.context=none",
        ],
    )
    source = foreign_state(config, "generator")
    for name in [name for name in source if name.endswith((".gamma", ".beta"))]:
        table = source.pop(name)
        source[name.replace("gamma", "gain.weight").replace("beta", "bias.weight")] = torch.randn(table.shape)
    recorded = json.loads(golden_file("biggan_pytorch/configs.json").read_text())["biggan32_cifar"]
    parameters = {name: value for name, value in source.items() if not name.endswith(("u0", "mean", "var"))}
    assert sum(value.numel() for value in parameters.values()) == recorded["G_params"]
    inferred, state = biggan_pytorch(source)
    assert inferred.generator.conditioning == "per_class"
    assert not inferred.generator.hierarchical
    assert torch.equal(state["blocks.1.norm2.gamma"], 1 + source["blocks.1.0.bn2.gain.weight"])
    assert torch.equal(state["blocks.1.norm2.beta"], source["blocks.1.0.bn2.bias.weight"])


def test_own_batch_norm_with_standing_sums() -> None:
    """BigGAN-PyTorch's --mybn keeps sums, a counter and the biased variance in a child module."""
    source = weights("biggan32_hier_g")
    for name in [name for name in source if name.endswith("stored_mean")]:
        stem = name.removesuffix("stored_mean")
        for kind in ("stored_mean", "stored_var"):
            source[f"{stem}bn.{kind}"] = 4 * source.pop(stem + kind)
        source[f"{stem}bn.accumulation_counter"] = torch.tensor([4.0])
    config, state = biggan_pytorch(source)
    assert config.generator.norm.biased
    plain = biggan_pytorch(weights("biggan32_hier_g"))[1]
    assert state.keys() == plain.keys()
    assert all(torch.equal(state[name], plain[name]) for name in state)


@pytest.mark.parametrize("network", ["generator", "discriminator"])
@pytest.mark.parametrize("run", ["strong", "baby"])
def test_full_size_official_variables_make_the_shipped_configuration(network: str, run: str) -> None:
    config, state = hamgan_tf(full_size_variables(network))
    shipped = load_config(ROOT / f"configs/hamgan_{run}_imagenet128.yaml")
    assert getattr(config, network) == getattr(shipped, network)
    assert config.resolution == shipped.resolution
    assert config.data.num_classes == shipped.data.num_classes
    for key in ("adam_eps", "adam_eps_placement", "ema_decay", "beta1", "beta2", "generator_lr", "discriminator_lr"):
        assert getattr(config.train, key) == getattr(shipped.train, key)
    assert len(state) == len(full_size_variables(network))


def test_estimator_prefixes_and_optimiser_slots() -> None:
    """Inside the estimator names have another prefix, and Adam's slots and counters stand beside the variables."""
    variables: Variables = {"global_step": torch.tensor(7), "generator_train/beta1_power": torch.tensor(0.5)}
    for file in ("generator_v1_nmf", "discriminator_v1_nmf"):
        scope = file.split("_")[0]
        for name, value in official_variables(file).items():
            longer = name.replace(f"{scope}/", f"{scope.capitalize()}/{scope}/")
            variables[longer] = value
            if name.endswith("kernel"):
                variables[f"{longer}/Adam"] = variables[f"{longer}/Adam_1"] = torch.zeros_like(value)
    networks = split_networks(variables)
    assert set(networks) == {"generator", "discriminator"}
    for network, own in networks.items():
        conversion = convert_hamgan_tf(network, own)
        check_fit(conversion)
        expected = hamgan_tf(official_variables(f"{network}_v1_nmf"))[1]
        assert conversion.state.keys() == expected.keys()
        assert all(torch.equal(conversion.state[name], expected[name]) for name in expected)
        assert "global_step" in conversion.ignored


def test_variables_of_both_networks_are_asked_for_one_by_one() -> None:
    both = official_variables("generator_v1_nmf") | official_variables("discriminator_v1_nmf")
    with pytest.raises(ConversionError, match="generator and discriminator"):
        hamgan_tf(both)


def test_leftovers_are_errors_unless_allowed() -> None:
    source = weights("biggan32_hier_d")
    source["blocks.0.0.extra.weight"] = source.pop("linear.bias")
    with pytest.raises(ConversionError, match=r"does not use 1 tensors: `blocks.0.0.extra.weight`"):
        biggan_pytorch(source)
    conversion = convert_biggan(source)
    check_fit(conversion, allow_leftovers=True)
    assert conversion.unused == ["blocks.0.0.extra.weight"]
    assert conversion.missing == ["linear.bias"]


def test_a_second_tensor_for_one_place_is_left_over() -> None:
    source = weights("biggan32_hier_g")
    source["blocks.0.0.bn1.bn.stored_mean"] = source["blocks.0.0.bn1.stored_mean"] + 1
    with pytest.raises(ConversionError, match=r"does not use 1 tensors: `blocks\.0\.0\.bn1\.bn\.stored_mean`"):
        biggan_pytorch(source)


def test_official_variables_may_be_arrays() -> None:
    tensors = official_variables("discriminator_v1_nmf")
    state = hamgan_tf({name: value.numpy() for name, value in tensors.items()})[1]
    assert all(torch.equal(value, state[name]) for name, value in hamgan_tf(tensors)[1].items())


class Convert:
    """Runs scripts/convert.py in this process."""

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
    assert "generator: 83 tensors mapped" in report
    assert "generator.spectral_norm.eps=1e-06" in report
    loaded, config, header = load_generator_file(convert.output)
    expected_config, state = biggan_pytorch(weights("biggan32_hier_g"))
    assert config == expected_config
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())
    assert header["kimg"] == 12
    assert set(header["converted_from"]["sha256"]) == {"G_ema.pth"}
    grid = convert.folder / "grid.png"
    assert convert("--checkpoint", convert.output, "--classes", "bee,0-1", "--out", grid, script="sample") == 0
    assert grid.is_file()


def test_official_variables_become_a_file_that_samples(convert: Convert) -> None:
    file = convert.folder / "hamgan.npz"
    np.savez(file, **{name: value.numpy() for name, value in official_variables("generator_v1_nmf").items()})
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
    """Makes a folder when it is unpickled by a careless reader."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
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
    "unknown ending": (lambda c: [c.generator.rename(c.folder / "G.weights")], "no ending that tells"),
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
