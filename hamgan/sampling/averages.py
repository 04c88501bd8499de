"""Make a generator from the averages that a run has kept."""

from pathlib import Path

from hamgan.checkpoint import generator_from_state, read_class_names, save_generator
from hamgan.checkpoint.power_averages import LONGEST, combine_averages
from hamgan.config import load_stored_config
from hamgan.errors import ConfigError
from hamgan.networks import Generator
from hamgan.networks.inference import fold_spectral_norm
from hamgan.networks.spectral_norm import effective_weights
from hamgan.sampling.generator import LoadedGenerator, find_device

ITERATIONS = 20
"""Power iterations for the singular vectors of averaged weights, which no training step has used."""


def average_run(run: Path, length: float, images: int | None = None, device: str | None = None) -> LoadedGenerator:
    """Average G over a length of its training, and recompute singular vectors and batch-norm statistics.

    ``length`` and ``images`` as in `combine_averages`. The generator's header has the length and the relative error of
    the profile. Raises ConfigError for a run without averages.
    """
    if not (run / "config.yaml").is_file():
        raise ConfigError(f"{run} is no run folder: there is no config.yaml")
    config = load_stored_config(run / "config.yaml")
    lengths = config.train.power_averages
    if not lengths:
        raise ConfigError(f"{run} was trained without train.power_averages, such as 0.05,0.1; it has kept no averages")
    if not 0 < length <= LONGEST:
        raise ConfigError(f"--length is {length:g}; allowed: above 0 to {LONGEST}")
    tensors, reached, error = combine_averages(run / "averages", lengths, length, images)
    network = generator_from_state(config, tensors, run / "averages")
    _converge_singular_vectors(network)
    generator = LoadedGenerator(
        fold_spectral_norm(network).to(find_device(device)),
        config,
        class_names=read_class_names(run),
        kimg=reached / 1000,
        source=str(run),
        header={"average_length": length, "average_error": error},
        is_average=True,
    )
    return generator.with_standing_statistics()


def _converge_singular_vectors(network: Generator) -> None:
    network.train()
    for _ in range(ITERATIONS):
        effective_weights(network)
    network.eval()


def write_average(path: Path, generator: LoadedGenerator) -> None:
    """Write the generator of `average_run` to a file for `load_generator`."""
    about = {"ema": True, "batch_norm": "standing", "folded": True} | generator.header
    names, kimg = generator.class_names, generator.kimg
    save_generator(path, generator.network.cpu(), generator.config, class_names=names, kimg=kimg, extra=about)
