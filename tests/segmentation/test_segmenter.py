"""Check what a segmenter's forward depends on: the image in evaluation, and the given noise in training."""

import json
from collections.abc import Callable

import pytest
import torch
from support.paths import golden_file
from support.segmenters import miniature_config, recorded_weights
from torch import Tensor, nn

from hamgan.errors import ConfigError
from hamgan.segmentation import Segmenter, build_segmenter, load_config
from hamgan.segmentation.schema import SegmentationConfig
from hamgan.segmentation.van import VAN

FACTS = json.loads(golden_file("light_ham/facts.json").read_text())


def built(change: Callable[[SegmentationConfig], None] | None = None) -> Segmenter:
    config = miniature_config()
    if change is not None:
        change(config)
    segmenter = build_segmenter(config)
    segmenter.encoder.load_state_dict(recorded_weights("van"))
    return segmenter


def images(count: int = 3, height: int = 64, width: int = 64) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def with_everything(config: SegmentationConfig) -> None:
    config.encoder.drop_path, config.head.dropout, config.auxiliary.weight = 0.3, 0.2, 0.4


def test_evaluation_is_a_function_of_the_image_alone() -> None:
    segmenter = built(with_everything).eval()
    with torch.no_grad():
        torch.manual_seed(1)
        together = segmenter(images()).main
        torch.manual_seed(2)
        assert torch.equal(segmenter(images()).main, together)
        alone = torch.cat([segmenter(image[None]).main for image in images()])
        other = built(with_everything).eval()(images()).main
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=1e-5)
    assert torch.equal(other, together)


def test_bases_of_a_seed_are_the_same_for_every_image_and_seed_0_is_the_default() -> None:
    segmenter = built().eval()
    with torch.no_grad():
        default, first, second = (
            segmenter(images(), bases=bases).main
            for bases in (None, segmenter.evaluation_bases(0, 3), segmenter.evaluation_bases(1, 3))
        )
    assert torch.equal(default, first)
    assert not torch.allclose(first, second, atol=1e-6)


def test_training_is_a_function_of_images_and_noise() -> None:
    segmenter = built(with_everything).train()
    noise = segmenter.draw_noise(3, generator=torch.Generator().manual_seed(5))
    first, second = (segmenter(images(), noise) for _ in range(2))
    assert torch.equal(first.main, second.main)
    assert first.auxiliary is not None
    assert second.auxiliary is not None
    assert torch.equal(first.auxiliary, second.auxiliary)
    for name, value in noise._asdict().items():
        changed = noise._replace(**{name: value.flip(0)})
        outputs = segmenter(images(), changed)
        moved = outputs.auxiliary if name == "auxiliary_dropout" else outputs.main
        assert moved is not None
        before = first.auxiliary if name == "auxiliary_dropout" else first.main
        assert not torch.allclose(moved, before, atol=1e-6), name
    assert not torch.allclose(segmenter(images()).main, first.main, atol=1e-6)  # draws its own


def test_noise_of_a_part_of_the_batch_is_that_part_of_the_noise() -> None:
    """Compare without batch norm, which makes images of a batch depend on each other."""
    segmenter = built(with_everything).train()
    for module in segmenter.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    noise = segmenter.draw_noise(4, generator=torch.Generator().manual_seed(5))
    whole = segmenter(images(4), noise).main
    halves = [
        segmenter(part, type(noise)(*(None if v is None else v.chunk(2)[index] for v in noise))).main
        for index, part in enumerate(images(4).chunk(2))
    ]
    torch.testing.assert_close(torch.cat(halves), whole, atol=1e-5, rtol=1e-5)


def test_drop_path_grows_over_the_blocks_and_keeps_the_mean() -> None:
    van = VAN([8, 8, 8, 8], [1, 2, 2, 1], drop_path=0.5)
    factors = van.draw_drop_path(20_000, generator=torch.Generator().manual_seed(0))
    rates = torch.linspace(0, 0.5, 6)
    assert factors.shape == (20_000, 6, 2)
    torch.testing.assert_close((factors == 0).float().mean(dim=(0, 2)), rates, atol=0.01, rtol=0)
    torch.testing.assert_close(factors.mean(dim=(0, 2)), torch.ones(6), atol=0.02, rtol=0)
    assert torch.equal(factors[:, 0], torch.ones(20_000, 2))


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (100, 64)])
def test_images_of_any_size_have_logits_for_every_pixel(size: tuple[int, int]) -> None:
    segmenter = built().eval()
    with torch.no_grad():
        logits = segmenter(images(1, *size)).main
    assert segmenter.resize_logits(logits, *size).shape == (1, 7, *size)


@pytest.mark.parametrize("value", [0.0, 1.0, 1e4, -1e4, 1e-6])
def test_extreme_images_have_finite_logits_and_gradients(value: float) -> None:
    segmenter = built().train()
    logits = segmenter(torch.full((2, 3, 64, 64), value) + 1e-3 * abs(value) * images(2)).main
    logits.square().mean().backward()
    gradients = [parameter.grad for parameter in segmenter.parameters() if parameter.grad is not None]
    assert gradients
    assert all(bool(tensor.isfinite().all()) for tensor in (logits, *gradients))


def test_initial_weights_have_the_official_spread_and_follow_the_seed() -> None:
    config = load_config("light_ham_van_tiny_ade20k")
    state = build_segmenter(config).state_dict()
    renamed = {
        "decode_head.hamburger.ham_in.conv": "head.hamburger.lower_bread",
        "decode_head.hamburger.ham_out.conv": "head.hamburger.upper_bread",
        "decode_head.hamburger.ham_out.gn": "head.hamburger.norm",
        "decode_head.conv_seg": "head.classifier",
    }
    for name, facts in FACTS["default_init_std_van_tiny"].items():
        layer, _, kind = name.rpartition(".")
        ours = renamed.get(layer, layer.replace("decode_head", "head").replace(".gn", ".norm"))
        value = state[f"{ours.replace('backbone', 'encoder')}.{kind}"]
        assert list(value.shape) == facts["shape"]
        # Means and spreads of a few hundred draws scatter by a few percent, those of a hundred thousand hardly.
        spread = 6 / value.numel() ** 0.5
        assert float(value.std(unbiased=False)) == pytest.approx(facts["std"], rel=spread, abs=1e-6), name
        assert float(value.mean()) == pytest.approx(facts["mean"], abs=2 * spread * facts["std"] + 1e-6), name
    again = build_segmenter(config).state_dict()
    assert all(torch.equal(again[name], value) for name, value in state.items())
    config.seed = 1
    assert not torch.equal(
        build_segmenter(config).state_dict()["head.classifier.weight"], state["head.classifier.weight"]
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["encoder.name=bas"], r"did you mean `base`"),
        (["encoder.depths=[1,2,3]"], "a VAN has 4 stages"),
        (["head.stages=[3,1]"], "in this order"),
        (["head.kind=ham"], "ham takes one stage"),
        (["head.concat_input=true"], "needs head.kind: ham"),
        (["head.channels=60"], "head.channels 60 does not divide into head.groups 32"),
        (["head.hamburger.mode=channel"], "images have any size"),
        (["head.hamburger.rank=0"], "head.hamburger.rank is 0"),
        (["data.num_classes=300"], "allowed: 1 to 255"),
        (["train.class_weights=[1, 2, 3]"], "class_weights has 3 values for 5 classes; give one for each, or null"),
        (["train.class_weights=[1, 2, -3, 4, 5]"], "give a number of 0 or more for every class"),
        (["train.batch_size=6", "train.accumulation=4"], "does not divide into"),
        (["train.min_lr=1"], "is above train.lr"),
        (["eval.stride=600"], "windows would leave gaps"),
        (["eval.scales=[]"], "give one or more"),
        (["augment.scale=[2.0,0.5]"], "the least and the greatest"),
        (["encoder.kind=timm"], "timm has no network called `tiny`"),
        (["encoder.kind=timm", "encoder.name=resnet101d", "encoder.multi_grid=[1,2]"], "as many blocks"),
    ],
)
def test_values_that_do_not_fit_are_a_sentence(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message), torch.device("meta"):
        build_segmenter(load_config("mosaic", ["data.num_classes=5", *overrides]))


def test_classes_must_be_known() -> None:
    with pytest.raises(ConfigError, match=r"data\.num_classes is not set"):
        build_segmenter(load_config("mosaic"))


def test_other_encoders_of_timm_and_other_blocks_build_and_label() -> None:
    for overrides in (
        ["encoder.kind=timm", "encoder.name=resnet18", "encoder.output_stride=32"],
        ["encoder.kind=timm", "encoder.name=convnext_atto", "encoder.output_stride=32"],
        ["head.context=none"],
        ["head.hamburger.bases=persistent"],
        ["head.hamburger.decomposition=vq", "head.hamburger.heads=2", "head.hamburger.normalise_bases=false"],
        ["head.hamburger.version=v2+", "head.norm=batch", "head.align_corners=true"],
    ):
        segmenter = build_segmenter(load_config("mosaic", ["data.num_classes=5", *overrides]))
        segmenter.train()(images(2))
        with torch.no_grad():
            logits = segmenter.eval()(images(2)).main
        assert logits.shape[:2] == (2, 5), overrides
        assert bool(logits.isfinite().all()), overrides


def test_the_papers_hamnet_has_its_dilations_momentum_and_corners() -> None:
    """Check against the published code: a multi-grid of 1, 2, 4 at output stride 8, momentum 3e-4, corners aligned."""
    config = load_config("hamnet_resnet101_pascal_context")
    with torch.device("meta"):
        segmenter = build_segmenter(config)
    network = segmenter.encoder.get_submodule("network")
    dilations = {
        stage: [block.get_submodule("conv2").dilation for block in network.get_submodule(stage).children()][:3]
        for stage in ("layer2", "layer3", "layer4")
    }
    assert dilations["layer4"] == [(2, 2), (8, 8), (16, 16)]
    assert dilations["layer3"] == [(1, 1), (2, 2), (2, 2)]
    assert dilations["layer2"] == [(1, 1), (1, 1), (1, 1)]
    momenta = {module.momentum for module in segmenter.modules() if isinstance(module, nn.BatchNorm2d)}
    assert momenta == {3e-4}
    logits = torch.randn(1, 2, 3, 3)
    corners = segmenter.resize_logits(logits, 9, 9)[..., [0, 0, -1, -1], [0, -1, 0, -1]]
    torch.testing.assert_close(corners, logits[..., [0, 0, -1, -1], [0, -1, 0, -1]])
