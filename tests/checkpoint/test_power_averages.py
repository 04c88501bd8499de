"""Test power-function averages: the sum written out, lengths put together afterwards, runs, and the command."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from support.small_runs import assert_same_state, last_state, run_small, small_config

from hamgan.checkpoint import Progress, read_state
from hamgan.checkpoint.power_averages import Profile, coefficients, exponent
from hamgan.checkpoint.state import select_tensors
from hamgan.config import load_config
from hamgan.errors import CheckpointError, ConfigError
from hamgan.networks import build_networks
from hamgan.sampling import load_generator
from hamgan.sampling.averaging import main
from hamgan.training.rollback import commit_rollback
from hamgan.training.step import GanStep

pytestmark = pytest.mark.usefixtures("new_accelerator")

AVERAGED = ["train.power_averages=[0.05,0.1]", "checkpoint.averages_every_kimg=0.008", "checkpoint.every_kimg=0.008"]


def factors(length: float, count: int) -> np.ndarray:
    """Return how much each of equally spaced times counts: the integral of t^g over its interval."""
    edges = (np.arange(count + 1) / count) ** (exponent(length) + 1)
    return np.diff(edges)


@pytest.mark.parametrize("length", [0.01, 0.05, 0.1, 0.25])
def test_the_profile_of_an_exponent_has_its_length(length: float) -> None:
    times = np.linspace(0, 1, 2_000_001)
    weights = times ** exponent(length)
    weights /= weights.sum()
    mean = (weights * times).sum()
    assert np.sqrt((weights * (times - mean) ** 2).sum()) == pytest.approx(length, rel=1e-3)
    assert (exponent(0.05), exponent(0.1)) == pytest.approx((16.97, 6.94), abs=0.005)  # in the paper


def test_an_average_is_the_sum_of_all_weights_by_the_powers_of_their_times(tmp_path: Path) -> None:
    config = small_config(tmp_path, "data.num_classes=3", *AVERAGED)
    step = GanStep(*build_networks(config), config.train, Accelerator(cpu=True))
    weight, seen = step.generator.linear.weight, []
    for number in range(1, 7):
        with torch.no_grad():
            for value in step.generator.state_dict().values():
                value.copy_(torch.randn(value.shape, generator=torch.Generator().manual_seed(number)))
        seen.append(weight.detach().clone())
        step.update_average(8 * number)
    for length, average in step.power_averages.items():
        weights = torch.from_numpy(factors(length, 6)).float()
        expected = (weights[:, None, None] * torch.stack(seen)).sum(0)
        assert torch.allclose(average.linear.weight, expected, atol=1e-5)


@pytest.mark.parametrize("wanted", [0.05, 0.07, 0.1, 0.13])
def test_averages_of_two_lengths_add_up_to_one_of_another_length(wanted: float) -> None:
    """Check on a path of 4,096 weights with slow and fast parts, of which 64 averages of either length are kept."""
    count, every = 4096, 64
    random = np.random.default_rng(0)
    path = np.cumsum(random.normal(size=(count, 8)), axis=0) / 50 + random.normal(size=(count, 8))
    kept = [Profile(time, length) for time in range(every, count + 1, every) for length in (0.05, 0.1)]
    averages = np.stack([factors(profile.length, profile.images) @ path[: profile.images] for profile in kept])
    expected = factors(wanted, count) @ path
    found = coefficients(kept, Profile(count, wanted))[0] @ averages
    nearest = min(np.abs(averages[index] - expected).max() for index in (-1, -2))
    assert np.abs(found - expected).max() < 5e-3
    assert wanted in (0.05, 0.1) or nearest > 2e-2
    at_half, _ = coefficients([item for item in kept if item.images <= count // 2], Profile(count // 2, wanted))
    assert np.abs(at_half @ averages[: len(at_half)] - factors(wanted, count // 2) @ path[: count // 2]).max() < 5e-3


@pytest.mark.parametrize(("wanted", "least"), [(0.05, 0.0), (0.08, 0.005), (0.02, 0.1), (0.25, 0.1)])
def test_it_is_known_how_far_a_sum_is_from_the_length(wanted: float, least: float) -> None:
    """Compare ten pairs of averages with the profiles written out at 4,000 times."""
    count, every = 4000, 400
    kept = [Profile(time, length) for time in range(every, count + 1, every) for length in (0.05, 0.1)]
    profiles = np.stack([np.pad(factors(item.length, item.images), (0, count - item.images)) for item in kept])
    found, error = coefficients(kept, Profile(count, wanted))
    expected = factors(wanted, count)
    distance = np.linalg.norm(found @ profiles - expected) / np.linalg.norm(expected)
    assert error == pytest.approx(distance, rel=0.02, abs=1e-6)
    assert error >= least


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_small(tmp_path_factory.mktemp("averaged"), *AVERAGED)


def test_a_run_keeps_its_averages_and_goes_on_where_it_stopped(run: Path, tmp_path: Path) -> None:
    run_small(tmp_path, *AVERAGED, "train.total_kimg=0.024")
    again = run_small(tmp_path, *AVERAGED)
    assert_same_state(last_state(run), last_state(again))
    names = [f"00000000.0{images:02d}.safetensors" for images in (8, 16, 24, 32, 40)]
    for folder in (run, again):
        assert sorted(path.name for path in (folder / "averages").iterdir()) == names
    plain = last_state(run_small(tmp_path / "plain", "checkpoint.every_kimg=0.008"))
    assert all(torch.equal(value, last_state(run)[name]) for name, value in plain.items())
    sparse = run_small(tmp_path / "sparse", *AVERAGED, "checkpoint.averages_every_kimg=0.015")
    assert sorted(path.name for path in (sparse / "averages").iterdir()) == [names[1], names[3], names[4]]


def test_the_command_writes_a_generator_of_another_length(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "average.safetensors"
    main(["--checkpoint", str(run), "--length", "0.1", "--output", str(output), "--device", "cpu"])
    generator = load_generator(output, device="cpu")
    assert (generator.kimg, generator.batch_norm, generator.is_average) == (0.04, "standing", True)
    assert generator.header["average_length"] == 0.1
    assert generator.header["average_error"] == pytest.approx(0, abs=1e-6)
    assert "warning" not in capsys.readouterr().out
    assert generator.class_names is not None
    assert len(generator([0, 1], ["cat"])) == 2
    # One of the lengths that were kept comes back: its newest file, with spectral norm folded.
    state = last_state(run)
    network, _ = build_networks(load_config(run / "config.yaml"))
    average = select_tensors(state, "average_0.1")
    network.load_state_dict(average)
    network.train()
    for _ in range(20):
        expected = network.linear.effective_weight()
    assert torch.allclose(generator.network.linear.weight, expected, atol=1e-4)
    for name, value in generator.network.state_dict().items():
        if name.endswith("running_mean"):
            assert not torch.allclose(value, average[name], atol=1e-4), name
    earlier = tmp_path / "earlier.safetensors"
    main(["--checkpoint", str(run), "--length", "0.07", "--kimg", "0.024", "--output", str(earlier)])
    assert load_generator(earlier, device="cpu").kimg == 0.024
    capsys.readouterr()
    main(["--checkpoint", str(run), "--length", "0.01", "--output", str(tmp_path / "short.safetensors")])
    assert "warning: the average is 61% off one of this length; take a length nearer" in capsys.readouterr().out


def test_a_rollback_leaves_no_averages_of_a_time_that_was_given_up(run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    target = folder / "checkpoints/00000000.032"
    commit_rollback(folder, target, Progress(**read_state(target)["progress"]))
    names = [f"00000000.0{images:02d}.safetensors" for images in (8, 16, 24, 32)]
    assert sorted(path.name for path in (folder / "averages").iterdir()) == names


def test_what_cannot_be_averaged_gets_a_sentence(run: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "a.safetensors")

    def average(*arguments: str) -> None:
        main(["--checkpoint", str(run), "--output", output, *arguments])

    with pytest.raises(ConfigError, match=r"--length is 0\.3; allowed: above 0 to 0\.28"):
        average("--length", "0.3")
    with pytest.raises(CheckpointError, match=r"has no averages of that time; .* 0\.016, 0\.024, 0\.032, 0\.04$"):
        average("--length", "0.1", "--kimg", "0.02")
    with pytest.raises(ConfigError, match=r"is no run folder"):
        average("--length", "0.1", "--checkpoint", str(tmp_path))
    with pytest.raises(ConfigError, match=r"a generator is written as \.safetensors"):
        average("--length", "0.1", "--output", str(tmp_path / "a.pt"))
    plain = run_small(tmp_path / "plain", "train.total_kimg=0.008")
    with pytest.raises(ConfigError, match=r"was trained without train\.power_averages, such as 0\.05,0\.1"):
        average("--length", "0.1", "--checkpoint", str(plain))
    for lengths in ("[0.1]", "[0.1,0.1]", "[0.1,0.3]"):
        with pytest.raises(ConfigError, match=r"give none, or two lengths or more above 0 to 0\.28"):
            load_config(None, [f"train.power_averages={lengths}"])
