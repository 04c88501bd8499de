"""Build small segmenters, and the files in which other projects keep theirs."""

import re
from pathlib import Path

import torch
from safetensors.torch import load_file
from support.paths import golden_file
from torch import Tensor

from hamgan.config import HamburgerConfig
from hamgan.segmentation.config import load_config
from hamgan.segmentation.schema import HeadConfig, SegmentationConfig

CHANNELS, DEPTHS, CLASSES = [8, 16, 24, 32], [1, 2, 2, 1], 7
"""Sizes of the recorded miniature."""


def recorded_weights(case: str) -> dict[str, Tensor]:
    """Return the official code's weights of a recorded network, by its names."""
    stored = load_file(golden_file("light_ham/light_ham_weights.safetensors"))
    return {key.removeprefix(f"{case}/"): value for key, value in stored.items() if key.startswith(f"{case}/")}


def light_ham_head() -> HeadConfig:
    """Return the head of the recorded miniature."""
    ham = HamburgerConfig(rank=8, eval_steps=7, normalise_bases=True, gradient="unrolled")
    return HeadConfig(channels=64, ham_channels=32, hamburger=ham)


def miniature_config() -> SegmentationConfig:
    """Return the configuration of the recorded miniature: a small VAN and Light-Ham."""
    config = load_config("mosaic", [f"data.num_classes={CLASSES}"])
    config.encoder.channels, config.encoder.depths, config.encoder.strides = CHANNELS, DEPTHS, [4, 2, 2, 2]
    config.head = light_ham_head()
    return config


def official_segmenter() -> dict[str, Tensor]:
    """Return the recorded miniature as the official code stores a whole segmenter."""
    state = {f"backbone.{name}": value for name, value in recorded_weights("van").items()}
    return state | {f"decode_head.{name}": value for name, value in recorded_weights("light_ham_head").items()}


def in_transformers_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename an official VAN as Transformers stores one, with the parts beyond it."""
    renamed = {}
    for name, value in state.items():
        name = re.sub(r"^patch_embed(\d)\.proj\.", lambda m: f"stages.{int(m[1]) - 1}.embeddings.convolution.", name)
        name = re.sub(r"^patch_embed(\d)\.norm\.", lambda m: f"stages.{int(m[1]) - 1}.embeddings.normalization.", name)
        name = re.sub(r"^norm(\d)\.", lambda m: f"stages.{int(m[1]) - 1}.normalization.", name)
        name = re.sub(r"^block(\d)\.(\d+)\.", lambda m: f"stages.{int(m[1]) - 1}.layers.{m[2]}.", name)
        for official, theirs in {
            ".norm1.": ".pre_normomalization.",
            ".norm2.": ".post_normalization.",
            ".attn.proj_1.": ".attention.pre_projection.conv.",
            ".attn.proj_2.": ".attention.post_projection.",
            ".attn.spatial_gating_unit.conv0.": ".attention.attention_layer.attention.depth_wise.",
            ".attn.spatial_gating_unit.conv_spatial.": ".attention.attention_layer.attention.depth_wise_dilated.",
            ".attn.spatial_gating_unit.conv1.": ".attention.attention_layer.attention.point_wise.",
            ".layer_scale_1": ".attention_scaling.weight",
            ".layer_scale_2": ".mlp_scaling.weight",
            ".mlp.fc1.": ".mlp.in_dense.",
            ".mlp.dwconv.dwconv.": ".mlp.depth_wise.",
            ".mlp.fc2.": ".mlp.out_dense.",
        }.items():
            name = name.replace(official, theirs)
        renamed[f"van.encoder.{name}"] = value
    extra = {"van.layernorm.weight": torch.ones(32), "van.layernorm.bias": torch.zeros(32)}
    return renamed | extra | {"classifier.weight": torch.zeros(1000, 32), "classifier.bias": torch.zeros(1000)}


def in_openmmlab_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename an official VAN as OpenMMLab stores one, with its classifier."""
    renamed = {}
    for name, value in state.items():
        name = re.sub(r"^(patch_embed\d)\.proj\.", r"\1.projection.", name)
        name = re.sub(r"^(patch_embed\d)\.norm\.", r"\1.normalization.", name)
        name = re.sub(r"^block(\d)\.", r"blocks\1.", name)
        name = name.replace(".spatial_gating_unit.conv0.", ".spatial_gating_unit.DW_conv.")
        name = name.replace(".spatial_gating_unit.conv_spatial.", ".spatial_gating_unit.DW_D_conv.")
        renamed[f"backbone.{name}"] = value
    return renamed | {"head.fc.weight": torch.zeros(1000, 32), "head.fc.bias": torch.zeros(1000)}


def trainers_file(path: Path, state: dict[str, Tensor], meta: dict[str, object] | None = None) -> Path:
    """Write weights as mmcv's trainer does, beside its notes and an optimiser's state."""
    optimizer = {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 6e-5}]}
    torch.save({"meta": meta or {}, "state_dict": state, "optimizer": optimizer}, path)
    return path
