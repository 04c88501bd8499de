"""Use an encoder of the optional package timm, such as ResNet-101-C."""

from typing import Any

from torch import Tensor, nn

from hamgan.errors import ConfigError, did_you_mean
from hamgan.segmentation.config import STAGES
from hamgan.segmentation.schema import EncoderConfig


class TimmEncoder(nn.Module):
    """Return the last four feature maps of a timm network, whose modules keep their names after ``network.``."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.channels: list[int] = list(network.feature_info.channels())

    def forward(self, x: Tensor, drop_path: None = None) -> list[Tensor]:
        """Return feature maps of images [B, 3, H, W]; ``drop_path`` is for VANs only."""
        maps: list[Tensor] = self.network(x)
        return maps


def build_timm(config: EncoderConfig) -> TimmEncoder:
    """Build a configuration's network without weights; ConfigError if timm or the network in it is missing."""
    try:
        import timm
    except ImportError as error:
        raise ConfigError(
            f"encoder.name {config.name} needs timm: pip install -r requirements-segmentation.txt"
        ) from error
    if not timm.is_model(config.name):
        near = did_you_mean(config.name, timm.list_models())
        raise ConfigError(f"timm has no network called `{config.name}` (encoder.name){near}")
    options: dict[str, Any] = {"pretrained": False, "features_only": True, "output_stride": config.output_stride}
    try:
        network: Any = timm.create_model(config.name, **options)
        stages = len(network.feature_info)
        if stages > STAGES:
            network = timm.create_model(config.name, out_indices=tuple(range(stages - STAGES, stages)), **options)
    except (RuntimeError, NotImplementedError, TypeError) as error:
        raise ConfigError(f"timm's {config.name} gives no feature maps of stride {config.output_stride}") from error
    if config.multi_grid is not None:
        _dilate(network, config)
    return TimmEncoder(network)


def _dilate(network: Any, config: EncoderConfig) -> None:
    """Multiply the dilations of the last stage's blocks by the factors of ``encoder.multi_grid``."""
    blocks = getattr(network, "layer4", None)
    if blocks is None or len(blocks) != len(config.multi_grid or []) or not hasattr(blocks[0], "conv2"):
        raise ConfigError(
            f"encoder.multi_grid {config.multi_grid} needs a ResNet of timm with as many blocks in its last stage; "
            f"encoder.name is {config.name}"
        )
    for block, factor in zip(blocks, config.multi_grid or [], strict=True):
        dilation = block.conv2.dilation[0] * factor
        block.conv2.dilation = block.conv2.padding = (dilation, dilation)
