"""Random weights in the format of torch-fidelity's Inception file, so that its class runs without the download."""

from pathlib import Path

import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3


class RandomInception(FeatureExtractorInceptionV3):
    """Keeps the weights that it was born with."""

    def load_state_dict(self, *_arguments: object, **_options: object) -> None:  # type: ignore[override]
        """Nothing is loaded."""


def save_random_inception(file: Path) -> Path:
    """Write the weights; batch norms are not neutral, so that folding them is put to the test."""
    empty = file.with_name("empty.pth")
    torch.save({}, empty)
    torch.manual_seed(0)
    network = RandomInception("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(empty))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.05)
            module.running_var.uniform_(0.05, 0.2)
            module.weight.data.uniform_(0.7, 1.3)
            module.bias.data.normal_(0, 0.1)
    torch.save(network.state_dict(), file)
    return file
