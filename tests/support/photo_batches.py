"""Make batches of photographs as a step takes them."""

import numpy as np
import torch
from torch import Tensor

from hamgan.data import open_source


def photo_batch(count: int) -> tuple[Tensor, Tensor]:
    """Return the first training images [count, 3, 32, 32] in [-1, 1], and their labels."""
    source = open_source("photos", "train", 32)
    images = torch.from_numpy(source.read(np.arange(count))).permute(0, 3, 1, 2).float() / 127.5 - 1
    return images, torch.from_numpy(source.labels[:count])
