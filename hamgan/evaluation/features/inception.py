"""Run torch-fidelity's Inception (``inception-v3-compat``), made faster, with a weights file that is checked."""

import os
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch_fidelity.feature_extractor_inceptionv3 import (
    URL_INCEPTION_V3,
    BasicConv2d,
    FeatureExtractorInceptionV3,
)
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from hamgan.errors import ConfigError, one_line
from hamgan.evaluation.protocol import WEIGHTS_SHA256
from hamgan.files import sha256

WEIGHTS_NAME = URL_INCEPTION_V3.rsplit("/", 1)[1]
WEIGHTS_VARIABLE = "HAMGAN_INCEPTION_WEIGHTS"

_STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2")
_MIXED = tuple(f"Mixed_{block}" for block in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c"))


class FoldedInception(FeatureExtractorInceptionV3):  # type: ignore[misc, unused-ignore]  # has no types
    """Run torch-fidelity's Inception with batch norm folded into the convolutions and channels-last weights.

    The features ``2048`` and ``logits_unbiased`` equal the library's to 3e-7 relative, in 0.6 of its time on a CPU.
    """

    def __init__(self, weights: Path) -> None:
        super().__init__(
            "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(weights)
        )
        for module in self.modules():
            if isinstance(module, BasicConv2d):
                module.conv = fuse_conv_bn_eval(module.conv, module.bn)
                module.bn = nn.Identity()
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return features [B, 2048] and logits without bias [B, 1008] of uint8 images [B, 3, H, W]."""
        size = (self.INPUT_IMAGE_SIZE, self.INPUT_IMAGE_SIZE)
        dtype = self.fc.weight.dtype
        return self.forward_resized(interpolate_bilinear_2d_like_tensorflow1x(x.to(dtype), size, align_corners=False))

    def forward_resized(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the same from float pixels 0 to 255 that have the network's own size, [B, 3, 299, 299]."""
        x = ((x - 128) / 128).contiguous(memory_format=torch.channels_last)
        for name in (*_STEM, *_MIXED, "AvgPool"):
            x = getattr(self, name)(x)
        pooled = torch.flatten(x, 1)
        return pooled, pooled @ self.fc.weight.mT


def inception_weights(
    path: str | Path | None, weights_sha256: str = WEIGHTS_SHA256, allow_download: bool = True
) -> Path:
    """Find the weights file: ``path``, else $HAMGAN_INCEPTION_WEIGHTS, else torch-fidelity's own download (once).

    ``weights_sha256`` are the first digits that the file's hash must have. Raises ConfigError, which names the file to
    bring, when there is none, and when its hash differs.
    """
    given = path or os.environ.get(WEIGHTS_VARIABLE)
    file = Path(given or f"{torch.hub.get_dir()}/checkpoints/{WEIGHTS_NAME}")
    if not file.is_file() and given:
        origin = "--inception-weights" if path else f"${WEIGHTS_VARIABLE}"
        raise ConfigError(f"{origin} names {file}, which is not a file; bring {WEIGHTS_NAME} from {URL_INCEPTION_V3}")
    if not file.is_file():
        _download(file, allow_download)
    found = sha256(file)
    if not found.startswith(weights_sha256.lower()) or len(weights_sha256) < 8:
        raise ConfigError(
            f"{file} has sha256 {found[:16]}..., not {weights_sha256}...: it is not {WEIGHTS_NAME} or damaged; for "
            f"weights of your own, state their hash by --inception-sha256 (8 digits or more): it labels their numbers"
        )
    return file


def _download(file: Path, allow: bool) -> None:
    if allow:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(URL_INCEPTION_V3, str(file), hash_prefix=WEIGHTS_SHA256)
            return
        except (OSError, RuntimeError) as error:
            reason = f"could not be downloaded ({type(error).__name__}: {error})"
    else:
        reason = "is not here"
    raise ConfigError(
        f"the Inception weights: {URL_INCEPTION_V3} {reason}; bring {WEIGHTS_NAME} and name it by "
        f"--inception-weights FILE or ${WEIGHTS_VARIABLE}, or take --features efficientnet-lite0, which need no network"
    )


def load_inception(weights: Path) -> FoldedInception:
    """Load the folded extractor; raises ConfigError for a file that does not hold torch-fidelity's Inception."""
    try:
        return FoldedInception(weights)
    except Exception as error:
        raise ConfigError(f"{weights} does not hold the weights of inception-v3-compat: {one_line(error)}") from error
