"""Test decompositions and the Hamburger block against the numbers recorded from the official codes."""

from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.decompositions import DECOMPOSITIONS, Decomposition, gradients, weights_like
from support.paths import golden_file
from torch import Tensor, nn

from hamgan.config import HamburgerConfig
from hamgan.hamburger import Hamburger
from hamgan.hamburger.decompositions import Gradient, cd, nmf, vq
from hamgan.hamburger.ham import Ham

OFFICIAL = "hamburger_pytorch"
HAM_CASES = [
    f"{kind}_{variant}"
    for kind, variants in {"nmf": ("s1", "s2", "channel"), "vq": ("t100", "t10_s2", "channel")}.items()
    for variant in variants
] + ["cd_t100", "cd_t10_s2", "cd_channel"]


def archive(name: str) -> dict[str, Tensor]:
    with np.load(golden_file(name)) as data:
        return {key: torch.from_numpy(np.asarray(data[key])) for key in data.files}


def assert_close(actual: Tensor, expected: Tensor, atol: float) -> None:
    torch.testing.assert_close(actual, expected.to(actual.dtype), atol=atol, rtol=0)


def assert_gradient(actual: Tensor, expected: Tensor, relative: float = 1e-3) -> None:
    """Check the difference against the norm of the whole gradient, as the READMEs of the recordings do."""
    assert (actual - expected.to(actual.dtype)).norm() <= relative * expected.norm()


def decompose(case: str, x: Tensor, bases: Tensor, steps: int, gradient: Gradient = "one_step") -> Tensor:
    """Run an official case on a feature map [B, C, H, W], as its settings in facts.json say."""
    heads = 2 if case.endswith("s2") else 1
    channel = case.endswith("channel")
    columns = x.flatten(2).mT if channel else x.reshape(len(x) * heads, -1, x.shape[2] * x.shape[3])
    temperature = 100.0 if "t100" in case else 10.0
    if case.startswith("nmf"):
        out = nmf(columns, bases, steps, gradient)
    elif case.startswith("vq"):
        out = vq(columns, bases, steps, gradient, temperature=temperature)
    else:
        out = cd(columns, bases, steps, gradient, temperature=temperature, ridge=0.1)
    return (out.mT if channel else out).reshape(x.shape)


@pytest.mark.parametrize("case", HAM_CASES)
@pytest.mark.parametrize(("mode", "steps"), [("train", 6), ("eval", 7)])
def test_decompositions_equal_the_official_pytorch_code(case: str, mode: str, steps: int) -> None:
    data = archive(f"{OFFICIAL}/hams.npz")
    # CD normalises the initial bases (official HamGAN): they were stored as float32 unit vectors. vq_t100 amplifies
    # float32 rounding up to 1.6e-3 (README), so float64 decides there.
    exact = 1e-6 if case.startswith("cd") else 1e-10
    loose = (2e-4, 3e-3) if case == "vq_t100" else (1e-5, 1e-4)
    for dtype, suffix, (atol, relative) in ((torch.float64, "_f64", (exact, exact)), (torch.float32, "", loose)):
        x = data[f"{case}/x"].to(dtype).requires_grad_()
        out = decompose(case, x, data[f"{case}/bases0"].to(dtype), steps)
        (grad,) = gradients(out, [x])
        assert out.dtype == dtype
        assert_close(out, data[f"{case}/{mode}/out{suffix}"], atol)
        assert_gradient(grad, data[f"{case}/{mode}/grad_x{suffix}"], relative)


@pytest.mark.parametrize("kind", ["nmf", "cd"])
@pytest.mark.parametrize(("steps", "suffix"), [(6, ""), (1, "_steps1"), (0, "_steps0")])
def test_decompositions_equal_the_official_hamgan(kind: str, steps: int, suffix: str) -> None:
    data = archive(f"hamgan_tf/ham_{kind}.npz")
    if steps == 0 and kind == "cd":
        return  # recorded for NMF only
    x = data["x"].clone().requires_grad_()
    out = {"nmf": nmf, "cd": cd}[kind](x, data["bases"], steps)
    (grad,) = torch.autograd.grad((out * data["w"]).sum(), [x])
    assert_close(out, data[f"out{suffix}"], 1e-5)
    assert_gradient(grad, data[f"grad_x{suffix}"])


@pytest.mark.parametrize("case", ["nmf_s1", "nmf_s2", "nmf_s1_steps3"])
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize(("gradient", "key"), [("unrolled", "through_all_steps"), ("one_step", "one_step")])
def test_nmf_has_both_gradients_of_light_ham(case: str, mode: str, gradient: Gradient, key: str) -> None:
    data = archive("light_ham/light_ham_io.npz")
    steps = 3 if case.endswith("steps3") else {"train": 6, "eval": 7}[mode]
    for dtype, suffix, atol, relative in ((torch.float64, "_f64", 1e-10, 1e-9), (torch.float32, "", 1e-5, 1e-3)):
        x = data[f"{case}/x"].to(dtype).requires_grad_()
        bases = data[f"{case}/bases0"].to(dtype)
        out = decompose(case.removesuffix("_steps3"), x, bases, steps, gradient)
        assert_close(out, data[f"{case}/{mode}/out{suffix}"], atol)
        assert_gradient(gradients(out, [x])[0], data[f"{case}/{mode}/grad_x_{key}{suffix}"], relative)


def official_norm(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, momentum=3e-4)


BURGERS: dict[str, dict[str, Any]] = {
    "v1_nmf": {},
    "v1_vq": {"decomposition": "vq"},
    "v1_cd": {"decomposition": "cd", "temperature": 10.0, "ridge": 0.1},
    "v2_nmf": {"version": "v2"},
    "v2_vq": {"decomposition": "vq", "version": "v2"},
    "v2plus_nmf_single": {"version": "v2+"},
    "v2plus_nmf_dual": {"version": "v2+", "dual": True, "latent_dim": 8, "cheese_factor": 2},
    "v2plus_nmf_s2": {"version": "v2+", "heads": 2, "latent_dim": 8, "cheese_factor": 2},
}


def our_name(name: str) -> str:
    """Translate the official name of a parameter or buffer into the block's."""
    renames = {"lower_bread.0.": "lower_bread.", "upper_bread.0.": "upper_bread.", "upper_bread.1.": "norm."}
    renames |= {"cheese.conv.": "cheese.", "cheese.bn.": "norm.", "coef_shortcut": "shortcut", "coef_ham": "gate"}
    for official, ours in renames.items():
        if name.startswith(official):
            return ours + name.removeprefix(official)
    return name


def official_block(case: str) -> Hamburger:
    config = HamburgerConfig(**{"latent_dim": 16, "rank": 6, "eval_steps": 7} | BURGERS[case])
    block = Hamburger(
        12,
        config,
        lambda a, b: nn.Conv2d(a, b, 1, bias=False),
        official_norm,
        lower_conv=lambda a, b: nn.Conv2d(a, b, 1),
        gate=config.version == "v2+",
        final_relu=True,
    )
    stored = load_file(golden_file(f"{OFFICIAL}/hamburgers_weights.safetensors"))
    state = {
        our_name(key.removeprefix(f"{case}/")): value for key, value in stored.items() if key.startswith(f"{case}/")
    }
    shapes = {name: value.shape for name, value in block.state_dict().items()}
    block.load_state_dict({name: value.reshape(shapes[name]) for name, value in state.items()})
    return block


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("case", BURGERS)
def test_blocks_equal_the_official_pytorch_code(case: str, mode: str, layout: torch.memory_format) -> None:
    data = archive(f"{OFFICIAL}/hamburgers_io.npz")
    block = official_block(case).train(mode == "train")
    bases = [data[key] for key in sorted(data) if key.startswith(f"{case}/bases0/")]
    x = data[f"{case}/x"].contiguous(memory_format=layout).requires_grad_()
    out = block(x, bases=tuple(bases) if len(bases) == 2 else bases[0])
    names, parameters = zip(*block.named_parameters(), strict=True)
    actual = dict(zip(("x", *names), gradients(out, [x, *parameters]), strict=True))
    assert out.is_contiguous(memory_format=layout)
    assert_close(out, data[f"{case}/{mode}/out"], 5e-5)
    assert_gradient(actual.pop("x"), data[f"{case}/{mode}/grad_x"])
    prefix = f"{case}/{mode}/grad/"
    expected = {our_name(key.removeprefix(prefix)): value for key, value in data.items() if key.startswith(prefix)}
    assert expected.keys() == actual.keys()
    for name, gradient in expected.items():
        assert_gradient(actual[name], gradient.reshape(actual[name].shape))
    if mode == "train":
        for key in data:
            if key.startswith(f"{case}/after_train/"):
                assert_close(block.get_buffer(our_name(key.removeprefix(f"{case}/after_train/"))), data[key], 1e-5)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_block_equals_light_ham(mode: str) -> None:
    data = archive("light_ham/light_ham_io.npz")
    config = HamburgerConfig(rank=8, eval_steps=7, gradient="unrolled")
    block = Hamburger(
        64,
        config,
        lambda a, b: nn.Conv2d(a, b, 1, bias=False),
        lambda channels: nn.GroupNorm(32, channels),
        lower_conv=lambda a, b: nn.Conv2d(a, b, 1),
        gate=False,
        final_relu=True,
    ).train(mode == "train")
    stored = load_file(golden_file("light_ham/light_ham_weights.safetensors"))
    names = {"ham_in.conv": "lower_bread", "ham_out.conv": "upper_bread", "ham_out.gn": "norm"}
    official = {
        f"{ours}.{kind}": f"{theirs}.{kind}"
        for theirs, ours in names.items()
        for kind in ("weight", "bias")
        if f"hamburger/{theirs}.{kind}" in stored
    }
    block.load_state_dict({ours: stored[f"hamburger/{theirs}"] for ours, theirs in official.items()})
    x = data["hamburger/x"].requires_grad_()
    out = block(x, bases=data["hamburger/bases0"])
    parameters = dict(block.named_parameters())
    grad_x, *grads = gradients(out, [x, *parameters.values()])
    assert_close(out, data[f"hamburger/{mode}/out"], 5e-5)
    assert_gradient(grad_x, data[f"hamburger/{mode}/grad_x"])
    for name, grad in zip(parameters, grads, strict=True):
        whole, projected = (f"hamburger/{mode}/{kind}/{official[name]}" for kind in ("grad", "gradproj"))
        if whole in data:
            assert_gradient(grad, data[whole])
        else:
            pins = torch.stack([grad.double().norm(), (grad * weights_like(grad)).double().sum()])
            torch.testing.assert_close(pins, data[projected], rtol=1e-3, atol=1e-3 * float(data[projected][0]))


@pytest.mark.parametrize("kind", DECOMPOSITIONS)
def test_persistent_bases_follow_the_official_sequence(kind: Decomposition) -> None:
    data = {key.split("/")[1]: value for key, value in archive(f"{OFFICIAL}/hams.npz").items() if f"{kind}_pers" in key}
    # The official momentum 0.9 is the share of the new bases; it moves them in evaluation mode only, ours in training.
    options: dict[str, Any] = {"temperature": 10.0, "ridge": 0.1} if kind != "nmf" else {}
    config = HamburgerConfig(decomposition=kind, rank=5, eval_steps=7, bases="persistent", momentum=0.1, **options)
    ham = Ham(config, 12)
    ham.load_state_dict({"bases": data["bases0"]})

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        factors: tuple[Tensor, Tensor] = ham(x.flatten(2).mT)
        coefficients, bases = factors
        return (bases @ coefficients.mT).reshape(x.shape), bases

    assert ham.bases is not None
    assert_close(run(data["x1"])[0], data["train_out_x1"], 1e-5)
    assert not torch.equal(ham.bases, data["bases0"])
    ham.load_state_dict({"bases": data["bases0"]})
    ham.eval()
    for step, name in (("eval1", "x1"), ("eval2", "x2")):
        out, final = run(data[name])
        assert_close(out, data[f"{step}_out_{name}"], 5e-5)
        ham.update_bases(final)
        assert_close(ham.bases, data[f"bases_after_{step}"], 1e-5)
    assert_close(run(data["x2"])[0], data["eval3_out_x2_return_bases_true"], 5e-5)
    assert_close(ham.bases, data["bases_after_eval2"], 1e-5)
