"""Run the image encoder of OpenAI's CLIP (Radford et al. 2021), torch-fidelity's network with published weights."""

import warnings
from pathlib import Path

from torch import Tensor, nn
from torch_fidelity.feature_extractor_clip import MODEL_METADATA, MODEL_URLS, FeatureExtractorCLIP
from torchvision.transforms.functional import normalize

from hamgan.evaluation.features.weights import PublishedWeights

MEAN = [255 * value for value in (0.48145466, 0.4578275, 0.40821073)]
STD = [255 * value for value in (0.26862954, 0.26130258, 0.27577711)]


def published_clip(name: str, variable: str) -> PublishedWeights:
    """Describe the file of ``clip-vit-b-32`` or another of torch-fidelity's CLIP networks."""
    digest = MODEL_METADATA[name]["hash"]
    return PublishedWeights("CLIP", MODEL_URLS[name], digest, variable, file_name=f"{name}-{digest}.pt")


class ClassTokenBlock(nn.Module):
    """Run a block of the transformer for the class token alone. Shapes: tokens [N, B, C] -> [1, B, C]."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        attention, mlp, norm_1, norm_2 = (getattr(self.block, name) for name in ("attn", "mlp", "ln_1", "ln_2"))
        y = norm_1(x)
        x = x[:1] + attention(y[:1], y, y, need_weights=False)[0]
        found: Tensor = x + mlp(norm_2(x))
        return found


class ClipImageEncoder(nn.Module):
    """Compute CLIP's image embedding."""

    def __init__(self, name: str, weights: Path) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # the published files are TorchScript archives
            extractor = FeatureExtractorCLIP(name, ["clip"], feature_extractor_weights_path=str(weights))
        self.visual: nn.Module = extractor.model.visual
        blocks = extractor.model.visual.transformer.resblocks
        blocks[-1] = ClassTokenBlock(blocks[-1])  # only the class token of the last block is used

    def forward_resized(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Return embeddings [B, D] of float pixels 0 to 255 [B, 3, S, S] at the network's input size."""
        return (self.visual(normalize(pixels, MEAN, STD)),)
