"""Select the densest images of every class by their features (`hamgan prepare select`)."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hamgan.config import FEATURES
from hamgan.data.finding.locations import check_location
from hamgan.errors import ConfigError
from hamgan.sampling.outputs import check_file

if TYPE_CHECKING:
    import torch

DESCRIPTION = """Select the densest share of every class of a training set, and write an index for data.selection.

  hamgan prepare select STORE --keep 0.5
  hamgan train --config photos128 --data.source STORE --data.selection INDEX

Outliers of a class are hard to learn: without them a GAN of a given size gets better images sooner, but less diverse
ones (DeVries et al. 2020). FID is still measured against the whole set.
"""


def make_parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of `hamgan prepare select`."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=prog, description=DESCRIPTION, formatter_class=raw)
    add = parser.add_argument
    add("source", help="prepared store, or another source of training images")
    add("--keep", type=float, default=0.5, help="share of every class to keep (default: 0.5)")
    text = "extractor; evaluate with another one, since its own numbers would flatter (default: efficientnet-lite0)"
    add("--features", choices=FEATURES, default="efficientnet-lite0", metavar="NAME", help=text)
    add("--split", choices=("train", "val"), default="train", help="split to select from (default: train)")
    add("--resolution", type=int, help="image side in pixels (default: the data's own, else 128)")
    add(
        "--output",
        type=Path,
        metavar="FILE",
        help="index to write (default: SOURCE-FEATURES-KEEP.json next to the source)",
    )
    add("--device", help="cpu, cuda, cuda:1 ... (default: a GPU if there is one)")
    add("--quiet", action="store_true", help="no progress bar")
    return parser


def main(arguments: Sequence[str], prog: str = "hamgan prepare select") -> None:
    """Select and write an index; raises ConfigError (a sentence) for bad usage."""
    options = make_parser(prog).parse_args(arguments)
    if not 0 < options.keep < 1:
        raise ConfigError(f"--keep is {options.keep:g}; allowed: above 0 and below 1")
    check_location(options.source)
    name = f"{options.features}-{options.keep:g}.json"
    file = check_file(options.output or _beside(options.source, name))
    import numpy as np
    import torch

    from hamgan.data import check_source, default_resolution, open_source
    from hamgan.data.selection import Selection, select_densest
    from hamgan.evaluation.features.extractor import load_extractor
    from hamgan.progress import ProgressBar

    source = open_source(options.source, options.split, options.resolution or default_resolution(options.source))
    check_source(source)
    extractor = load_extractor(options.features, device=options.device)

    def extract(images: np.ndarray) -> np.ndarray:
        found: np.ndarray = extractor(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous())[0].cpu().numpy()
        return found

    def score(features: np.ndarray) -> np.ndarray:
        return -mahalanobis(torch.from_numpy(features)).numpy()

    with ProgressBar(len(source), "features", disable=options.quiet) as bar:
        indices = select_densest(source, extract, score, options.keep, bar.update)
    named = f"{options.features}:{extractor.weights[:8]}"
    selection = Selection(options.split, source.describe()["sha256"], named, options.keep, indices)
    file.parent.mkdir(parents=True, exist_ok=True)
    selection.save(file)
    print(f"{file}: {len(indices):,} of {len(source):,} images, {selection}")
    print(f"train on them with --data.source {options.source} --data.selection {file}")


def _beside(source: str, ending: str) -> Path:
    path = Path(source).expanduser()
    return path.with_name(f"{path.name}-{ending}") if path.exists() else Path(f"{source.replace('/', '-')}-{ending}")


def mahalanobis(features: "torch.Tensor") -> "torch.Tensor":
    """Return the squared Mahalanobis distances [n] of features [n, D] from their own Gaussian, low for dense images.

    DeVries et al. 2020 (section 3) rank by the likelihood under a Gaussian per class. With fewer images than dimensions
    all of them would be equally far from the mean, so the covariance is shrunk towards a sphere (Ledoit and Wolf 2004).
    """
    import torch

    x = features.double() - features.double().mean(0)
    count, dimension = x.shape
    covariance = x.mT @ x / count
    sphere = covariance.trace() / dimension * torch.eye(dimension, dtype=torch.float64)
    distance = (covariance - sphere).square().sum()
    noise = (x.square().sum(1).square().mean() - covariance.square().sum()) / count
    share = (noise / distance).clamp(0, 1) if distance > 0 else torch.ones(())
    shrunk = share * sphere + (1 - share) * covariance
    # All images alike: every distance is 0.
    lower, failed = torch.linalg.cholesky_ex(shrunk)
    if failed:
        return torch.zeros(count, dtype=torch.float64)
    white: torch.Tensor = torch.linalg.solve_triangular(lower, x.mT, upper=False)
    return white.square().sum(0)
