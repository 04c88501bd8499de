"""Try a configuration without starting its run: its memory, its duration, and the first batch that D would see."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from hamgan.checkpoint import latest_checkpoint, read_state
from hamgan.config import Config, check_intervals, validate
from hamgan.data import check_source, open_training
from hamgan.distributed.group import rank, world_size
from hamgan.machine import free_memory
from hamgan.networks import build_networks
from hamgan.progress import duration
from hamgan.sampling.sheets import draw_sheet
from hamgan.training.augment import augment
from hamgan.training.batches import Batches
from hamgan.training.inputs import DiscriminatorBatch, Inputs
from hamgan.training.noise import Noise
from hamgan.training.objectives import discriminator_objective, draw_images, generator_objective
from hamgan.training.run_folder import check_same_run, describe_length
from hamgan.training.setup import describe_run, make_accelerator, micro_batch, with_classes
from hamgan.training.step import GanStep

SECONDS, STEPS = 10.0, 50
"""Limits of the timing, which leaves out the first step."""
COUNTED = 8
"""Number of images whose feature maps are counted."""
COLUMNS, ROWS = 8, 12


def dry_run(config: Config, override: Sequence[str] = ()) -> None:
    """Print memory and duration of a run, and draw its first batch next to the run folder, which is not changed.

    ``override`` names configuration keys that may differ from those of the run in the folder. Raises ConfigError for
    whatever training would refuse. A few steps are timed on the real data if they fit into memory.
    """
    validate(config)
    check_intervals(config)
    accelerator = make_accelerator(config)
    source = open_training(config.data, config.resolution)
    check_source(source)
    config = with_classes(config, source)
    changed = check_same_run(config.folder, config, override)
    share = micro_batch(config, world_size()) // world_size()
    step = GanStep(*build_networks(config), config.train, accelerator)
    checkpoint = latest_checkpoint(config.folder / "checkpoints", accelerator.print)
    position = read_state(checkpoint)["progress"]["images"] if checkpoint else 0
    left = max(0, round(config.train.total_kimg * 1000) - position)
    length = describe_length(changed, config, position)
    for line in [*describe_run(config, source, step), *length, _describe_arithmetic(config, left)]:
        accelerator.print(line)

    noise = Noise(config.seed, accelerator.device, micro_batch(config, world_size()), rank(), world_size())
    with contextlib.closing(Batches(config, source, noise, step, position)) as batches:
        shown = batches.for_discriminator(position, 0)
        if accelerator.is_main_process:
            path = config.folder.with_name(f"{config.folder.name}-first-batch.png")
            _draw_batch(shown[0], source.class_names, path)
            print(f"look at   {path}: the first {len(shown[0].images)} images as D sees them")
        needed, free = _needed_memory(config, accelerator, step, share), free_memory(accelerator.device)
        accelerator.print(f"memory    {_describe_memory(needed, free, share)}")
        if free is not None and sum(needed) > free:
            accelerator.print("          which does not fit: take a larger --train.accumulation or a smaller batch")
            return
        accelerator.print(f"timing    a few steps of {config.train.batch_size} images ...")
        speed = _measure_speed(step, batches, shown, position, config)
    accelerator.print(
        f"speed     {speed:,.1f} images/s in a few steps: {left / 1000:,g} kimg take {duration(left / speed)}, without "
        "sheets, evaluations and checkpoints"
    )
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated() / 2**30
        accelerator.print(f"          {peak:.2f} GiB of GPU memory were in use at most")


def _describe_arithmetic(config: Config, left: int) -> str:
    from hamgan.evaluation.studies.cost import count_flops_per_image

    _, flops = count_flops_per_image(config)
    return f"FLOPs     {flops / 1e9:,.3g} billion per image that D sees, {flops * left / 1e15:,.3g}e15 to the end"


def _needed_memory(config: Config, accelerator: Accelerator, step: GanStep, images: int) -> tuple[int, int]:
    """Return the bytes of all state including gradients, and the bytes of the feature maps of ``images`` images."""
    pair = (step.generator, step.discriminator)
    trained = sum(parameter.numel() for network in pair for parameter in network.parameters())
    averages = [network for network in step.networks.values() if network not in pair]
    average = sum(value.nbytes for network in averages for value in network.state_dict().values())
    # Weights, gradients and Adam's two moments, in float32 whatever the precision of the feature maps.
    return 4 * 4 * trained + average, count_saved_bytes(config, accelerator) * images


def count_saved_bytes(config: Config, accelerator: Accelerator) -> int:
    """Return the bytes per image that the larger of both steps saves for its backward pass.

    Counted with the real networks on the meta device; needs ``data.num_classes``.
    """
    with torch.random.fork_rng(devices=[]), FakeTensorMode(allow_non_fake_inputs=True):
        generator, discriminator = build_networks(config)
        inputs = Inputs(config, Noise(config.seed, torch.device("cpu"), COUNTED), generator, discriminator)
        images = torch.empty(COUNTED, 3, config.resolution, config.resolution)
        labels = torch.zeros(COUNTED, dtype=torch.int64)
        shown, made = inputs.for_discriminator(0, images, labels), inputs.for_generator(0, images, labels)
        parameters = [*generator.parameters(), *discriminator.parameters()]
        weights = {parameter.untyped_storage()._cdata for parameter in parameters}
        with accelerator.autocast():
            with torch.no_grad():
                generated = draw_images(generator, shown.latents, shown.fake_labels, None, shown.nearby)
            with _saved_by_autograd() as of_discriminator:
                sliced = discriminator.slicing is not None
                discriminator_objective(discriminator, generated, shown, config.train, torch.zeros(2), sliced)
            with _saved_by_autograd() as of_generator:
                generated = draw_images(generator, made.latents, made.labels, None, made.nearby)
                generator_objective(discriminator, generated, made, config.train)
    sizes = [
        sum(tensor.untyped_storage().nbytes() for number, tensor in kept.items() if number not in weights)
        for kept in (of_discriminator, of_generator)
    ]
    return max(sizes) // COUNTED


@contextlib.contextmanager
def _saved_by_autograd() -> Iterator[dict[int, Tensor]]:
    """Collect a tensor of every storage that autograd saves for the backward pass, keyed by the storage's address."""
    kept: dict[int, Tensor] = {}

    def save(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor  # kept alive, so that its address is not reused
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        yield kept


def _describe_memory(needed: tuple[int, int], free: int | None, images: int) -> str:
    state, maps = map(_size, needed)
    there = f"; {_size(free)} are free" if free is not None else ""
    return (
        f"about {state} for networks, gradients, Adam and the average of G, and {maps} for the feature maps of "
        f"{images} images{there}"
    )


def _size(size: int) -> str:
    return f"{size / 2**30:,.3g} GiB" if size >= 2**30 else f"{size / 2**20:,.0f} MiB"


def _measure_speed(
    step: GanStep, batches: Batches, shown: list[DiscriminatorBatch], position: int, config: Config
) -> float:
    """Return images per second over all processes, in at most `SECONDS` and `STEPS` steps.

    One untimed step comes first; if it alone takes longer, it is the measurement.
    """
    images_per_step = config.train.batch_size * config.train.discriminator_steps
    started, made = time.perf_counter(), -1
    while made < 1 or (made < STEPS and time.perf_counter() - started < SECONDS):
        for index in range(config.train.discriminator_steps):
            if made >= 0 or index > 0:
                shown = batches.for_discriminator(position, index)
            step.discriminator_step(shown)
        step.generator_step(batches.for_generator(position, shown))
        position += images_per_step
        step.update_average(position)
        made += 1
        if made == 0:
            _synchronise(step)
            if (seconds := time.perf_counter() - started) > SECONDS:
                return images_per_step / seconds
            started = time.perf_counter()
    _synchronise(step)
    return made * images_per_step / (time.perf_counter() - started)


def _synchronise(step: GanStep) -> None:
    if step.accelerator.device.type != "cpu":
        torch.accelerator.synchronize(step.accelerator.device)


def _draw_batch(batch: DiscriminatorBatch, names: list[str], path: Path) -> None:
    """Save a sheet of real images as D sees them, mirrored and augmented, with a row per class."""
    parameters = {name: draws[len(draws) // 2 :] for name, draws in batch.augmentation.items()}
    images = augment(batch.images, parameters).clamp(-1, 1).add(1).mul(127.5).round().byte().cpu()
    labels = batch.labels.cpu()
    found = sorted({int(label) for label in labels})[:ROWS]
    rows = {label: images[labels == label][:COLUMNS] for label in found}
    order = sorted(found, key=lambda label: -len(rows[label]))  # the longest row first sets the width
    path.parent.mkdir(parents=True, exist_ok=True)
    scale = max(1, 64 // images.shape[-1])
    draw_sheet([rows[label] for label in order], [names[label] for label in order], scale=scale).save(path)
