"""Check that noise depends on seed, purpose and counter alone, is drawn for the global batch and sliced by rank."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from hamgan.config import load_config
from hamgan.networks import Discriminator, build_networks
from hamgan.training.noise import PURPOSES, Noise

CPU = torch.device("cpu")


def noise(seed: int = 3, batch: int = 8, rank: int = 0, processes: int = 1, stream: int = 0) -> Noise:
    return Noise(seed, CPU, batch, rank, processes, stream)


def discriminator(*overrides: str) -> Discriminator:
    small = ["resolution=32", "generator.latent_dim=16", "data.num_classes=3", "discriminator.channels=4"]
    contexts = ["generator.context=none", "discriminator.context_resolutions=[8,16]", "discriminator.hamburger.rank=2"]
    return build_networks(load_config(None, [*small, *contexts, *overrides]))[1]


def test_a_draw_is_repeated_by_seed_purpose_counter_and_stream_only() -> None:
    reference, _ = noise().latents("d_latent", 64, 5, 10)
    assert torch.equal(noise().latents("d_latent", 64, 5, 10)[0], reference)
    others = [
        noise(seed=4).latents("d_latent", 64, 5, 10),
        noise(stream=1).latents("d_latent", 64, 5, 10),
        noise().latents("g_latent", 64, 5, 10),
        noise().latents("d_latent", 72, 5, 10),
    ]
    for z, _ in others:
        assert not torch.isclose(z, reference).any()


def test_pairs_share_a_label_and_nothing_else_changes() -> None:
    z, labels = noise().latents("g_latent", 64, 5, 1000)
    same_z, paired = noise().latents("g_latent", 64, 5, 1000, pairs=True)
    assert torch.equal(same_z, z)
    assert torch.equal(paired, labels[0::2].repeat_interleave(2))
    halves = [noise(rank=rank, processes=2).latents("g_latent", 64, 5, 1000, pairs=True)[1] for rank in range(2)]
    assert torch.equal(torch.cat(halves), paired)


def test_global_randomness_is_neither_used_nor_moved() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, _ = noise().latents("d_latent", 0, 5, 10)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(noise().latents("d_latent", 0, 5, 10)[0], first)


def test_the_numbers_of_purposes_and_the_streams_never_change() -> None:
    """Check numbers that are part of a run's identity: others would make a resumed run another run."""
    assert sorted(PURPOSES.values()) == [*range(1, 10), *range(11, 16), 32]
    assert (PURPOSES["d_latent"], PURPOSES["g_latent"], PURPOSES["flip"]) == (1, 2, 7)
    z, labels = noise().latents("d_latent", 64, 2, 10)
    entropy = np.random.SeedSequence([3, 0, 1, 64]).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(entropy) >> 1)
    assert torch.equal(z, torch.randn(8, 2, generator=generator))
    assert torch.equal(labels, torch.randint(10, (8,), generator=generator))


def joined(draw: object, processes: int) -> Tensor:
    return torch.cat([draw(noise(rank=rank, processes=processes)) for rank in range(processes)])  # type: ignore[operator]


@pytest.mark.parametrize("processes", [2, 4])
def test_ranks_together_hold_the_draw_of_one_process(processes: int) -> None:
    draws = {
        "latents": lambda n: n.latents("d_latent", 8, 5, 10)[0],
        "labels": lambda n: n.latents("d_latent", 8, 5, 10)[1],
        "flips": lambda n: n.flips(16),
    }
    for name, draw in draws.items():
        assert torch.equal(joined(draw, processes), draw(noise())), name
    assert len(noise(processes=processes).flips(0)) == 8 // processes


@pytest.mark.parametrize("overrides", [[], ["discriminator.hamburger.heads=2"]], ids=["one head", "two heads"])
def test_bases_of_ranks_are_those_of_the_images_that_they_hold(overrides: list[str]) -> None:
    """Check that bases are cut alike for both halves of D's batch: the rank's generated images, then its real ones."""
    network = discriminator(*overrides)
    whole = noise().bases("d_bases", 8, network, copies=2)
    assert list(whole) == ["16", "8"]
    parts = [noise(rank=rank, processes=2).bases("d_bases", 8, network, copies=2) for rank in range(2)]
    for size, bases in whole.items():
        assert isinstance(bases, Tensor)
        fake, real = bases.chunk(2)
        for rank, part in enumerate(parts):
            ours = part[size]
            assert isinstance(ours, Tensor)
            assert torch.equal(ours, torch.cat([fake.chunk(2)[rank], real.chunk(2)[rank]]))
        assert len(torch.unique(bases.flatten(1), dim=0)) == len(bases) == 16 * network.config.hamburger.heads


def test_bases_of_dual_mode_are_pairs() -> None:
    network = discriminator("discriminator.hamburger.version=v2+", "discriminator.hamburger.dual=true")
    whole = noise().bases("d_bases", 8, network)
    part = noise(rank=1, processes=2).bases("d_bases", 8, network)
    for size, pair in whole.items():
        assert [len(bases) for bases in pair] == [8, 8]
        for bases, share in zip(pair, part[size], strict=True):
            assert torch.equal(share, bases[4:])


def test_latents_are_normal_labels_uniform_and_flips_even() -> None:
    many = noise(batch=4000)
    z, labels = many.latents("d_latent", 0, 10, 4)
    assert abs(z.mean().item()) < 0.02
    assert abs(z.std().item() - 1) < 0.02
    assert torch.bincount(labels, minlength=4).tolist() == pytest.approx([1000] * 4, abs=130)
    assert many.flips(0).float().mean().item() == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("device", ["meta", *(["cuda"] if torch.cuda.is_available() else [])])
def test_every_device_gets_the_draws_of_the_cpu(device: str) -> None:
    """Check that the device draws nothing of these: a meta device could not, and a GPU has the same values."""
    ours, theirs = noise(), replace(noise(), device=torch.device(device))
    pairs = [*zip(ours.latents("d_latent", 8, 5, 10), theirs.latents("d_latent", 8, 5, 10), strict=True)]
    pairs.append((ours.flips(16), theirs.flips(16)))
    for expected, found in pairs:
        assert found.device.type == device
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        assert device == "meta" or torch.equal(found.cpu(), expected)
