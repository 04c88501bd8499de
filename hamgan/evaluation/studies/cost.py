"""Count what evaluating while training costs, as a share of the run's arithmetic, before the first step."""

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from hamgan.config import Config
from hamgan.evaluation.protocol import make_protocol
from hamgan.networks import build_networks

EXTRACTOR_FLOPS = {
    "inception": 11_426_464_960,
    "inception-spatial": 7_292_454_080,
    "efficientnet-lite0": 770_375_104,
    "dinov2-vit-l-14": 156_922_642_432,
    "clip-vit-b-32": 8_232_069_120,
    "clip-vit-l-14-336": 368_478_879_744,
}
"""FLOPs per image, two per multiply-add; the extractors resize to one size, so the images' own does not matter."""
BATCH = 8


def evaluation_share(config: Config) -> float:
    """Return the FLOPs of the evaluations during training by those of training and evaluations together, 0 to 1.

    Counted per image by torch's FLOP counter on the real networks with tensors that hold no values: a step is D forward
    and backward on generated and real images (and G forward for the former), then G and D forward and backward; an
    evaluation is G and all extractors forward on every sample. Left out: penalties, optimisers, the reference (once per
    run), and that an evaluation runs G and extractors in another precision than training.
    """
    generating, training = count_flops_per_image(config)
    parts = make_protocol(metrics=config.eval.metrics, features=config.eval.features).by_extractor()
    extracting = sum(EXTRACTOR_FLOPS[part.features] for part in parts)
    per_evaluation = config.eval.num_samples * (generating + extracting)
    between = 1000 * config.eval.every_kimg * training
    return per_evaluation / (per_evaluation + between)


def count_flops_per_image(config: Config) -> tuple[float, float]:
    """Return the FLOPs of G forward per image, and of training per image that D sees; needs ``data.num_classes``."""
    # Allocates and computes nothing, whatever the size; unlike on the meta device, tensors say they are on the CPU.
    with (
        torch.random.fork_rng(devices=[]),
        FakeTensorMode(allow_non_fake_inputs=True),
        FlopCounterMode(display=False) as count,
    ):
        generator, discriminator = build_networks(config)
        z, labels = torch.empty(BATCH, config.generator.latent_dim), torch.zeros(BATCH, dtype=torch.int64)
        with torch.no_grad():
            fake = generator(z, labels)
        generating = count.get_total_flops()
        discriminator(torch.cat([fake, fake]), torch.cat([labels, labels])).sum().backward()
        discriminator_step = count.get_total_flops()
        discriminator.requires_grad_(False)
        discriminator(generator(z, labels), labels).sum().backward()
        generator_step = count.get_total_flops() - discriminator_step
    per_image = discriminator_step + generator_step / config.train.discriminator_steps
    return generating / BATCH, per_image / BATCH
