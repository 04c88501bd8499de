"""Translate other projects' names of tensors of VANs, ResNets and Ham heads into ours."""

import re
from collections.abc import Iterable

_TRANSFORMERS_EMBEDDINGS = {"embeddings.convolution": "proj", "embeddings.normalization": "norm"}
_TRANSFORMERS_BLOCK = {
    "pre_normomalization": "norm1",  # spelt so in the original
    "post_normalization": "norm2",
    "attention.pre_projection.conv": "attn.proj_1",
    "attention.attention_layer.attention.depth_wise": "attn.spatial_gating_unit.conv0",
    "attention.attention_layer.attention.depth_wise_dilated": "attn.spatial_gating_unit.conv_spatial",
    "attention.attention_layer.attention.point_wise": "attn.spatial_gating_unit.conv1",
    "attention.post_projection": "attn.proj_2",
    "mlp.in_dense": "mlp.fc1",
    "mlp.depth_wise": "mlp.dwconv.dwconv",
    "mlp.out_dense": "mlp.fc2",
}
_TRANSFORMERS_SCALES = {"attention_scaling.weight": "layer_scale_1", "mlp_scaling.weight": "layer_scale_2"}
_OPENMMLAB = (
    (r"(patch_embed\d)\.projection\.", r"\1.proj."),
    (r"(patch_embed\d)\.normalization\.", r"\1.norm."),
    (r"blocks(\d)\.(\d+)\.", r"block\1.\2."),
    (r"\.spatial_gating_unit\.DW_conv\.", ".spatial_gating_unit.conv0."),
    (r"\.spatial_gating_unit\.DW_D_conv\.", ".spatial_gating_unit.conv_spatial."),
)
_STEM = {"stem.0": "conv1.0", "stem.1": "conv1.1", "stem.3": "conv1.3", "stem.4": "conv1.4", "stem.6": "conv1.6"}
_STEM |= {"stem.7": "bn1"}
_SEQUENTIAL = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
"""Parts of the ResNet in the official HamNet, which numbers them."""
_HEADS = (
    (r"^decode_head\.(hamburger\.)?ham_in\.conv\.", "head.hamburger.lower_bread."),
    (r"^decode_head\.(hamburger\.)?ham_out\.conv\.", "head.hamburger.upper_bread."),
    (r"^decode_head\.(hamburger\.)?ham_out\.(gn|bn)\.", "head.hamburger.norm."),
    (r"^decode_head\.(squeeze|align)\.conv\.", r"head.\1.conv."),
    (r"^decode_head\.(squeeze|align)\.(gn|bn)\.", r"head.\1.norm."),
    (r"^decode_head\.conv_cat\.conv\.", "head.join.conv."),
    (r"^decode_head\.conv_cat\.(gn|bn)\.", "head.join.norm."),
    (r"^decode_head\.conv_seg\.", "head.classifier."),
    (r"^auxiliary_head\.convs\.0\.conv\.", "auxiliary.conv.conv."),
    (r"^auxiliary_head\.convs\.0\.(gn|bn)\.", "auxiliary.conv.norm."),
    (r"^auxiliary_head\.conv_seg\.", "auxiliary.classifier."),
    # The official HamNet of PASCAL VOC.
    (r"^(squeeze|align)\.conv\.", r"head.\1.conv."),
    (r"^(squeeze|align)\.bn\.", r"head.\1.norm."),
    (r"^hamburger\.(lower|upper)_bread\.(0\.)?(weight|bias)$", r"head.hamburger.\1_bread.\3"),
    (r"^hamburger\.(cheese\.bn|upper_bread\.1)\.", "head.hamburger.norm."),
    (r"^hamburger\.cheese\.conv\.", "head.hamburger.cheese."),
    (r"^hamburger\.coef_shortcut$", "head.hamburger.shortcut"),
    (r"^hamburger\.coef_ham$", "head.hamburger.gate"),
    (r"^fc\.1\.", "head.classifier."),
)
CLASSIFIERS = ("decode_head.conv_seg.", "fc.1.")
"""Prefixes of the names of a whole segmenter's classifier."""
UNUSED = re.compile(r"(head|head\.fc|classifier|fc|(van\.)?layernorm)\.(weight|bias)|.*\.num_batches_tracked")
"""Tensors that a segmenter does not need: classifiers, an unused norm of Transformers, counters of batches."""


def encoder_name(name: str) -> str:
    """Return our name for a tensor of another project's encoder; unknown names are unchanged.

    Known are the official VAN, OpenMMLab's and Transformers', and the ResNets with a deep stem of OpenMMLab and timm.
    """
    name = name.removeprefix("module.").removeprefix("backbone.")
    if found := re.fullmatch(r"(?:van\.)?encoder\.stages\.(\d)\.(.+)", name):
        return _from_transformers(int(found[1]) + 1, found[2])
    for pattern, ours in _OPENMMLAB:
        name = re.sub(pattern, ours, name)
    first, _, rest = name.partition(".")
    if first in _SEQUENTIAL:
        return f"{_SEQUENTIAL[first]}.{rest}"
    module, _, tensor = name.rpartition(".")
    return f"{_STEM[module]}.{tensor}" if module in _STEM else name


def segmenter_name(name: str, encoder_prefix: str = "encoder.") -> str:
    """Return our name for a tensor of MMSegmentation's or an official segmenter; unknown names are unchanged.

    ``encoder_prefix`` precedes the names of the encoder's tensors in ours.
    """
    name = name.removeprefix("module.")
    if name.startswith("backbone."):
        return encoder_prefix + encoder_name(name)
    for pattern, ours in _HEADS:
        name = re.sub(pattern, ours, name)
    return name


def is_segmenter(names: Iterable[str]) -> bool:
    """Return whether tensors are of a whole segmenter of MMSegmentation or an official code."""
    return any(name.removeprefix("module.").startswith(CLASSIFIERS) for name in names)


def _from_transformers(stage: int, rest: str) -> str:
    module, _, tensor = rest.rpartition(".")
    if module in _TRANSFORMERS_EMBEDDINGS:
        return f"patch_embed{stage}.{_TRANSFORMERS_EMBEDDINGS[module]}.{tensor}"
    if module == "normalization":
        return f"norm{stage}.{tensor}"
    block = re.fullmatch(r"layers\.(\d+)\.(.+)", rest)
    if block and block[2] in _TRANSFORMERS_SCALES:
        return f"block{stage}.{block[1]}.{_TRANSFORMERS_SCALES[block[2]]}"
    if block and (part := block[2].rpartition("."))[0] in _TRANSFORMERS_BLOCK:
        return f"block{stage}.{block[1]}.{_TRANSFORMERS_BLOCK[part[0]]}.{part[2]}"
    return f"encoder.stages.{stage - 1}.{rest}"
