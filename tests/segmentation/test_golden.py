"""Test the networks against the numbers recorded from the official segmentation code."""

from collections.abc import Mapping
from functools import cache

import numpy as np
import pytest
import torch
from support.decompositions import gradients, weights_like
from support.paths import golden_file
from support.segmenters import CHANNELS, CLASSES, DEPTHS, light_ham_head, miniature_config, recorded_weights
from torch import Tensor

from hamgan.segmentation.heads import HamHead
from hamgan.segmentation.losses import segmentation_loss
from hamgan.segmentation.names import segmenter_name
from hamgan.segmentation.segmenter import Segmenter, SegmenterNoise, build_segmenter
from hamgan.segmentation.van import VAN


@cache
def recorded() -> dict[str, Tensor]:
    with np.load(golden_file("light_ham/light_ham_io.npz")) as data:
        return {key: torch.from_numpy(np.asarray(data[key])) for key in data.files}


def head_state(case: str) -> dict[str, Tensor]:
    return {
        segmenter_name(f"decode_head.{key}").removeprefix("head."): value
        for key, value in recorded_weights(case).items()
    }


def build_head(case: str) -> HamHead:
    config = light_ham_head()
    if case == "ham_head_concat":
        config.kind, config.stages, config.channels, config.concat_input = "ham", [3], 32, True
    head = HamHead(config, CHANNELS, CLASSES)
    head.load_state_dict(head_state(case))
    return head


def small_van(strides: list[int] | None = None) -> VAN:
    van = VAN(CHANNELS, DEPTHS, strides or [4, 2, 2, 2])
    van.load_state_dict(recorded_weights("van"))
    return van


def assert_gradient(actual: Tensor, expected: Tensor, relative: float = 1e-3) -> None:
    """Check the difference against the norm of the whole gradient.

    A bias in front of a batch norm has none in training: what was recorded there, below 2e-5, is rounding.
    """
    assert (actual - expected.to(actual.dtype)).norm() <= max(relative * float(expected.norm()), 5e-5)


def assert_parameter_gradients(case: str, grads: Mapping[str, Tensor]) -> None:
    """Compare with whole gradients of vectors, and with norm and projection of those of convolutions."""
    data, seen = recorded(), 0
    for name, grad in grads.items():
        if f"{case}/grad/{name}" in data:
            assert_gradient(grad, data[f"{case}/grad/{name}"])
        else:
            pins = torch.stack([grad.double().norm(), (grad * weights_like(grad)).double().sum()])
            expected = data[f"{case}/gradproj/{name}"]
            torch.testing.assert_close(pins, expected, rtol=1e-3, atol=1e-3 * float(expected[0]))
        seen += 1
    assert seen == sum(key.startswith((f"{case}/grad/", f"{case}/gradproj/")) for key in data)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("case", ["light_ham_head", "ham_head_concat"])
def test_heads_equal_the_official_code(case: str, mode: str) -> None:
    data = recorded()
    head = build_head(case).train(mode == "train")
    recording = f"{case}/{'train_no_dropout' if mode == 'train' else 'eval'}"
    maps = [data[f"feats/{stage}"].clone().requires_grad_() for stage in range(4)]
    out = head(maps, data[f"{case}/bases0"])
    torch.testing.assert_close(out, data[f"{recording}/out"], atol=5e-5, rtol=0)
    names = list(dict(head.named_parameters()))
    stages = head.config.stages
    grads = gradients(out, [*(maps[stage] for stage in stages), *head.parameters()])
    for stage, grad in zip(stages, grads, strict=False):
        assert_gradient(grad, data[f"{recording}/grad_feat{stage}"])
    official = {segmenter_name(f"decode_head.{key}").removeprefix("head."): key for key in recorded_weights(case)}
    by_name = dict(zip((official[name] for name in names), grads[len(stages) :], strict=True))
    assert_parameter_gradients(recording, by_name)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_van_equals_the_official_code(mode: str) -> None:
    data = recorded()
    van = small_van().train(mode == "train")
    images = data["van/img"].clone().requires_grad_()
    maps = van(images)
    for stage, x in enumerate(maps):
        torch.testing.assert_close(x, data[f"van/{mode}/out{stage}"], atol=1e-5, rtol=1e-5)
    parameters = dict(van.named_parameters())
    total = sum((x * weights_like(x)).sum() for x in maps)
    assert isinstance(total, Tensor)
    grad_x, *grads = torch.autograd.grad(total, [images, *parameters.values()])
    assert_gradient(grad_x, data[f"van/{mode}/grad_x"])
    if mode == "train":
        assert_parameter_gradients("van/train", dict(zip(parameters, grads, strict=True)))
        buffers = {key: value for key, value in data.items() if key.startswith("van/after_train/")}
        assert len(buffers) == len(list(van.buffers()))
        for key, value in buffers.items():
            actual = van.get_buffer(key.removeprefix("van/after_train/"))
            torch.testing.assert_close(actual, value, atol=1e-6, rtol=1e-5)


def test_van_of_output_stride_8_equals_the_official_code() -> None:
    data = recorded()
    with torch.no_grad():
        maps = small_van([4, 2, 1, 1]).eval()(data["van/img"])
    for stage in (2, 3):
        expected = data[f"van_os8/eval/out{stage}_sub4"]
        torch.testing.assert_close(maps[stage][:, :, ::2, ::2], expected, atol=1e-5, rtol=1e-5)


def whole_segmenter() -> Segmenter:
    segmenter = build_segmenter(miniature_config())
    segmenter.encoder.load_state_dict(recorded_weights("van"))
    segmenter.head.load_state_dict(head_state("light_ham_head"))
    return segmenter


def test_a_segmenters_logits_equal_the_official_codes() -> None:
    data, segmenter = recorded(), whole_segmenter().eval()
    with torch.no_grad():
        logits = segmenter(data["van/img"], bases=data["light_ham_head/bases0"]).main
        full = segmenter.resize_logits(logits, 64, 64)
    torch.testing.assert_close(logits, data["e2e/eval/logits_low"], atol=5e-5, rtol=0)
    torch.testing.assert_close(full[:, :, ::4, ::4], data["e2e/eval/logits_full_sub4"], atol=5e-5, rtol=0)
    assert torch.equal(full.argmax(dim=1), data["e2e/eval/argmax"].long())


def test_a_segmenters_loss_and_gradients_equal_the_official_codes() -> None:
    data, segmenter = recorded(), whole_segmenter().train()
    noise = SegmenterNoise(data["light_ham_head/bases0"], None, None, None)
    losses = segmentation_loss(segmenter(data["van/img"], noise), data["e2e/gt"][:, 0], segmenter.config)
    torch.testing.assert_close(losses.total.double(), data["e2e/train/losses"][0], atol=0, rtol=1e-5)
    # Recorded in percent.
    torch.testing.assert_close(100 * losses.accuracy, data["e2e/train/acc_seg"][0], atol=0, rtol=1e-5)
    losses.total.backward()
    for name, key in {"head.classifier": "conv_seg", "encoder.patch_embed1.proj": "patch_embed1_proj"}.items():
        grad = segmenter.get_parameter(f"{name}.weight").grad
        assert grad is not None
        assert_gradient(grad, data[f"e2e/train/grad_{key}_weight"])
