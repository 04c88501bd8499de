"""Make one adversarial step: update D, G and the average of G, independently of data and logging."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hamgan.checkpoint.power_averages import decay, network_name
from hamgan.config import TrainConfig
from hamgan.hamburger import Hamburger, measured_reconstruction, reconstruction_error
from hamgan.networks import Discriminator, Generator
from hamgan.training.compilation import is_compiled
from hamgan.training.inputs import DiscriminatorBatch, GeneratorBatch
from hamgan.training.objectives import (
    discriminator_objective,
    draw_images,
    generator_objective,
    has_double_backward,
)
from hamgan.training.optimiser import make_adam
from hamgan.training.regularisers import add_orthogonal_gradient
from hamgan.training.sums import MetricSums

T = TypeVar("T")


class GanStep:
    """Hold both networks, their optimisers and the average of G, prepared by Accelerate, and update them.

    Buffers are updated as in BigGAN-PyTorch: both networks stay in training mode, so batch-norm statistics and singular
    vectors advance on every forward pass, including G's without gradient in D's step.
    """

    def __init__(
        self, generator: Generator, discriminator: Discriminator, config: TrainConfig, accelerator: Accelerator
    ) -> None:
        self.config, self.accelerator = config, accelerator
        self.generator = generator.to(accelerator.device).train()
        self.discriminator = discriminator.to(accelerator.device).train()
        self.average = copy.deepcopy(self.generator).eval().requires_grad_(False) if config.ema_decay else None
        self.power_averages = {
            length: copy.deepcopy(self.generator).eval().requires_grad_(False) for length in config.power_averages
        }
        self.generator_optimizer = self._make_optimizer(generator, config.generator_lr)
        self.discriminator_optimizer = self._make_optimizer(discriminator, config.discriminator_lr)
        # LeCam's averages of D's logits: real, fake.
        self.logit_averages = torch.zeros(2, device=accelerator.device)
        self.metrics = MetricSums(accelerator)
        self.compiled = is_compiled(config, accelerator.device)
        if self.compiled:
            # In place, so that names of weights stay and both wrappers run the compiled form. Accelerate enters
            # autocast inside the forward pass: entered outside, it would apply to the compiled backward pass too and
            # compute gradients in bf16 of what is float32 in the forward pass, such as kernels and logits. Four graphs:
            # G with and without gradient, D on one batch and on two; dynamic shapes would be slower.
            self.generator.compile(dynamic=False)
            if not has_double_backward(config):  # compiled code has no second derivatives
                self.discriminator.compile(dynamic=False)
        self._generator = prepare_model(self.generator, accelerator)
        self._discriminator = prepare_model(self.discriminator, accelerator)
        self._generator_stepper = accelerator.prepare_optimizer(self.generator_optimizer)
        self._discriminator_stepper = accelerator.prepare_optimizer(self.discriminator_optimizer)

    def _make_optimizer(self, network: nn.Module, lr: float) -> torch.optim.Adam:
        return make_adam(network, self.config, lr)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Return generator, discriminator and all averages of G, by name."""
        networks: dict[str, nn.Module] = {"generator": self.generator, "discriminator": self.discriminator}
        networks |= {network_name(length): average for length, average in self.power_averages.items()}
        return networks if self.average is None else networks | {"average": self.average}

    @property
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the optimisers of G and D, by the names of their networks."""
        return {"generator": self.generator_optimizer, "discriminator": self.discriminator_optimizer}

    @property
    def sampler(self) -> Generator:
        """Return the network to sample from: the average of G, or G itself if none is kept."""
        return self.generator if self.average is None else self.average

    def apply_settings(self, settings: TrainConfig) -> None:
        """Apply the current settings: learning rates, beta2, weights of losses and penalties."""
        self.config = settings
        for optimizer, lr in (
            (self.generator_optimizer, settings.generator_lr),
            (self.discriminator_optimizer, settings.discriminator_lr),
        ):
            for group in optimizer.param_groups:
                group["lr"], group["betas"] = lr, (float(settings.beta1), float(settings.beta2))

    def discriminator_step(self, batches: Sequence[DiscriminatorBatch], report: bool = False) -> None:
        """Make one step of D over ``len(batches)`` accumulated backward passes; ``report`` records more of it."""
        self.discriminator.requires_grad_(True)
        self._discriminator_stepper.zero_grad()
        means = []
        for batch, last in _with_last(batches):
            with self._synchronised(self._discriminator, last):
                loss, logit_means = self._discriminator_loss(batch, report)
                self.accelerator.backward(loss / len(batches))
            means.append(logit_means)
        if self.config.lecam:
            self._update_logit_averages(torch.stack(means).mean(0))
        self.accelerator.unscale_gradients(self._discriminator_stepper)
        if report:
            self._record_gradient_norm("d_gradient_norm", self.discriminator)
        self._discriminator_stepper.step()
        if self.discriminator.slicing is not None:
            self.discriminator.slicing.normalise()

    def _discriminator_loss(self, batch: DiscriminatorBatch, report: bool) -> tuple[Tensor, Tensor]:
        """Return the loss, and the means of D's logits: real, fake [2]."""
        drawn = batch.latents, batch.fake_labels, batch.generator_bases, batch.nearby
        with torch.no_grad(), self._measured("g", self.generator, report):
            generated = draw_images(self.generator, *drawn)
        if report:
            self.metrics.add(spread_real=_spread(batch.images), spread_fake=_spread(generated[0]))
        sliced = self.discriminator.slicing is not None
        with self._measured("d", self.discriminator, report):
            objective = discriminator_objective(
                self._discriminator, generated, batch, self.config, self.logit_averages, sliced
            )
        self.metrics.add(**objective.metrics)
        return objective.loss, torch.stack([objective.metrics["logits_real"], objective.metrics["logits_fake"]])

    def _update_logit_averages(self, means: Tensor) -> None:
        means = self.accelerator.reduce(means, reduction="mean")
        # The first means start the averages, which are 0 before; the original code copies the means for 1,000 steps.
        weight = torch.where(self.logit_averages.any(), 1.0 - self.config.lecam_decay, 1.0)
        self.logit_averages.lerp_(means.to(self.logit_averages.dtype), weight.to(self.logit_averages.dtype))

    def generator_step(self, batches: Sequence[GeneratorBatch], report: bool = False) -> None:
        """Make one step of G over ``len(batches)`` accumulated backward passes; ``report`` records more of it."""
        self.discriminator.requires_grad_(False)
        self._generator_stepper.zero_grad()
        for batch, last in _with_last(batches):
            with self._synchronised(self._generator, last):
                loss = self._generator_loss(batch)
                self.accelerator.backward(loss / len(batches))
        self.accelerator.unscale_gradients(self._generator_stepper)
        if self.config.orthogonal_regularisation:
            shared = getattr(self.generator, "class_embedding", None)
            exclude = {id(shared.weight)} if shared is not None else set()
            add_orthogonal_gradient(self.generator, self.config.orthogonal_regularisation, exclude)
        if report:
            self._record_gradient_norm("g_gradient_norm", self.generator)
        self._generator_stepper.step()

    def _generator_loss(self, batch: GeneratorBatch) -> Tensor:
        drawn = batch.latents, batch.labels, batch.generator_bases, batch.nearby
        generated = draw_images(self._generator, *drawn)
        # D itself, not its distributed wrapper: its gradients are not needed, so nothing is reduced.
        objective = generator_objective(self.discriminator, generated, batch, self.config)
        self.metrics.add(**objective.metrics)
        return objective.loss

    @torch.no_grad()
    def update_average(self, images_seen: int) -> None:
        """Update the averages of G's weights and buffers; the exponential one is a copy before ``ema_start_kimg``."""
        before = images_seen - self.config.batch_size * self.config.discriminator_steps
        for length, power_average in self.power_averages.items():
            share = 1.0 - decay(length, before, images_seen)
            torch._foreach_lerp_(float_state(power_average), float_state(self.generator), share)
        if self.average is None:
            return
        weight = 1.0 if images_seen < self.config.ema_start_kimg * 1000 else 1.0 - self.config.ema_decay
        average, current = float_state(self.average), float_state(self.generator)
        if weight == 1.0:
            torch._foreach_copy_(average, current)
        else:
            torch._foreach_lerp_(average, current, weight)

    def take_metrics(self) -> dict[str, Tensor]:
        """Return the means since the last call, over all processes, as tensors on the device."""
        return self.metrics.take()

    def extra_state(self) -> dict[str, Tensor]:
        """Return LeCam's averages and the metrics that were not logged yet, for a checkpoint."""
        return {"logit_averages": self.logit_averages} | self.metrics.state()

    def load_extra_state(self, tensors: dict[str, Tensor]) -> None:
        """Restore the state of `extra_state` from all tensors of a checkpoint."""
        self.logit_averages.copy_(tensors["logit_averages"])
        self.metrics.load_state(tensors)

    def share_sums(self) -> None:
        """Average pending sums over all processes, for a checkpoint written by one of them."""
        self.metrics.share()

    def _record_gradient_norm(self, name: str, network: nn.Module) -> None:
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        self.metrics.add(**{name: nn.utils.get_total_norm(gradients)})

    @contextmanager
    def _measured(self, letter: str, network: Generator | Discriminator, report: bool) -> Iterator[None]:
        """Record how well the Hamburgers reconstruct in one forward pass, unless compiled, which hooks would change."""
        contexts = network.contexts.items() if report and not self.compiled else ()
        blocks = {size: block for size, block in contexts if isinstance(block, Hamburger)}
        with ExitStack() as stack:
            energies = {size: stack.enter_context(measured_reconstruction(block)) for size, block in blocks.items()}
            yield
        for size, found in energies.items():
            if found:
                self.metrics.add(**{f"{letter}_reconstruction_{size}": reconstruction_error(found)})

    def _synchronised(self, model: nn.Module, last: bool) -> AbstractContextManager[None]:
        return nullcontext() if last else self.accelerator.no_sync(model)


def prepare_model(network: nn.Module, accelerator: Accelerator) -> nn.Module:
    """Return a network as Accelerate runs it, where several processes train it without broadcasts of its buffers."""
    model: nn.Module = accelerator.prepare_model(network)
    if isinstance(model, DistributedDataParallel):
        # Buffers agree by construction: the same power iterations, batch norm over all processes. Broadcasting them in
        # place between two forwards of a step would break autograd (pytorch/pytorch#175024). Set here, since as an
        # argument the name is deprecated from torch 2.13 on, and Accelerate does not know its successor.
        model.broadcast_buffers = False
    return model


def _with_last(items: Sequence[T]) -> Iterable[tuple[T, bool]]:
    return ((item, index == len(items) - 1) for index, item in enumerate(items))


def _spread(images: Tensor) -> Tensor:
    """Return how much images [B, 3, H, W] differ: the standard deviation of a pixel, averaged over all pixels."""
    return images.float().std(dim=0, correction=0).mean()


def float_state(network: nn.Module) -> list[Tensor]:
    """Return the weights and buffers that an average follows."""
    return [value for value in network.state_dict().values() if value.is_floating_point()]
