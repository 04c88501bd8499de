"""Count the cost of evaluations while training, as a share of the run's FLOPs."""

import torch
from torch import Tensor
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
"""FLOPs per image, two per multiply-add, which do not depend on the image size, as extractors resize images."""
BATCH = 8


def evaluation_share(config: Config) -> float:
    """Return the share, 0 to 1, of evaluations in the FLOPs of a run.

    Counted per image by torch's FLOP counter on the real networks with fake tensors. A step is D forward and backward
    on generated and real images (and G forward for the former), then G and D forward and backward, including the
    variants of images for consistency and finite differences; an evaluation is G and all extractors forward on every
    sample. Second derivatives, optimisers, the reference (once per run), and the different precision of evaluations are
    left out.
    """
    generating, training = count_flops_per_image(config)
    parts = make_protocol(metrics=config.eval.metrics, features=config.eval.features).by_extractor()
    extracting = sum(EXTRACTOR_FLOPS[part.features] for part in parts)
    per_evaluation = config.eval.num_samples * (generating + extracting)
    between = 1000 * config.eval.every_kimg * training
    return per_evaluation / (per_evaluation + between)


def count_flops_per_image(config: Config) -> tuple[float, float]:
    """Return the FLOPs of G forward per image, and of training per image that D sees; needs ``data.num_classes``."""
    train, consistency = config.train, config.train.consistency
    drawn = 2 if consistency.latent else 1
    judged = BATCH * (1 + drawn + (consistency.real > 0) + (consistency.fake > 0))
    if train.finite_differences.enabled:
        judged += ((train.r1_gamma > 0) + (train.r2_gamma > 0)) * BATCH // train.finite_differences.stride
    # Allocates and computes nothing; unlike on the meta device, tensors report that they are on the CPU.
    with (
        torch.random.fork_rng(devices=[]),
        FakeTensorMode(allow_non_fake_inputs=True),
        FlopCounterMode(display=False) as count,
    ):
        generator, discriminator = build_networks(config)

        def draw(images: int) -> tuple[Tensor, Tensor]:
            labels = torch.zeros(images, dtype=torch.int64)
            return generator(torch.empty(images, config.generator.latent_dim), labels), labels

        with torch.no_grad():
            draw(drawn * BATCH)
        generating = count.get_total_flops()
        images = torch.empty(judged, 3, config.resolution, config.resolution)
        discriminator(images, torch.zeros(judged, dtype=torch.int64)).sum().backward()
        discriminator_step = count.get_total_flops()
        discriminator.requires_grad_(False)
        fake, labels = draw(BATCH * (2 if consistency.spread else 1))
        beside = 2 if train.loss == "relativistic" else 1
        discriminator(torch.cat([fake[:BATCH]] * beside), torch.cat([labels[:BATCH]] * beside)).sum().backward()
        generator_step = count.get_total_flops() - discriminator_step
    per_image = discriminator_step + generator_step / train.discriminator_steps
    return generating / drawn / BATCH, per_image / BATCH
