"""Define the fields of a configuration's ``train`` section; the text below a field is its documentation."""

from dataclasses import dataclass, field
from typing import Literal

Transformation = Literal["color", "translation", "cutout", "flip", "shift"]


@dataclass
class ConsistencyConfig:
    """Penalise D for judging an image and a changed copy of it differently; a weight of 0 turns a term off.

    Every term is a weight times the mean squared difference of two logits. The published weights are those of BigGAN:
    CR (Zhang et al. 2020) has ``real: 10``, bCR (Zhao et al. 2021) also ``fake: 10``, zCR (the same paper)
    ``latent: 5`` and ``spread: 0.5``; ICR is bCR and zCR together.
    """

    real: float = 0.0
    """Weight of real images against transformed copies (CR)."""
    fake: float = 0.0
    """Weight of generated images against transformed copies (bCR)."""
    latent: float = 0.0
    """Weight of generated images against those of nearby latents (D's part of zCR)."""
    spread: float = 0.0
    """Weight in G's loss of the mean squared difference between images of nearby latents, which G maximises (zCR)."""
    sigma: float = 0.05
    """Standard deviation of the noise added to z to make a nearby latent."""
    transform: list[Transformation] = field(default_factory=lambda: ["flip", "shift"])
    """Transformation of copies; in the papers flip, and shift by up to 4 pixels."""


@dataclass
class FiniteDifferencesConfig:
    """Estimate R1 and R2 from one more forward pass of D instead of second derivatives.

    The squared difference between D's logits of an image and of the image with noise, divided by the variance of the
    noise, is on average |grad D|^2 if D is smooth over such distances (Lin et al. 2025, APT; its weight lacks the
    variance). If D is not, the estimate is larger: docs/recipes.md has measurements.
    """

    enabled: bool = False
    """Estimate the penalties of `r1_gamma` and `r2_gamma`; D compiles and runs in bf16 with them."""
    sigma: float = 0.01
    """Standard deviation of the noise, of images in [-1, 1]."""
    stride: int = 1
    """Use every n-th image (AFM: 4)."""


@dataclass
class TrainConfig:
    """Choose losses, optimisers and precision."""

    total_kimg: float = 100_000.0
    """Length of the run, in thousands of real images seen by D."""
    init_from: str | None = None
    """Start a new run from a run, a checkpoint or a generator file: what fits is loaded, the rest is initialised."""
    init_classes: str = "auto"
    """Class tables with `init_from`: auto (copy when the counts agree, else draw anew), redraw, or a JSON file of new
    class -> source class."""
    batch_size: int = 256
    """Images per optimiser step, over all processes and accumulation steps."""
    accumulation: int = 1
    """Backward passes per optimiser step; each sees batch_size / accumulation images over all processes."""
    discriminator_steps: int = 1
    """Optimiser steps of D per step of G."""
    loss: Literal["hinge", "non_saturating", "wasserstein", "relativistic"] = "hinge"
    """Adversarial loss; relativistic pairs generated and real images of the same class (R3GAN)."""
    generator_lr: float = 1e-4
    """Learning rate of G."""
    discriminator_lr: float = 4e-4
    """Learning rate of D."""
    lr_schedule: str = "constant"
    """Schedule of both learning rates: constant (all references), linear or cosine. `to VALUE` is the share of them
    that is left at the end (default 0), `by KIMG` sets when (default `total_kimg`): cosine to 0.25 by 20000."""
    lr_warmup_kimg: float = 0.0
    """Warm-up: both learning rates rise linearly from 0 until then."""
    beta1: float = 0.0
    """Adam's decay of the first moment."""
    beta2: float = 0.999
    """Adam's decay of the second moment."""
    beta2_schedule: str = "constant"
    """Schedule of beta2, as in `lr_schedule`, but VALUE is the last beta2 itself (R3GAN: cosine from 0.9 to 0.99)."""
    adam_eps: float = 1e-6
    """Adam's epsilon (BigGAN 1e-6; official HamGAN 1e-8)."""
    adam_eps_placement: Literal["torch", "tensorflow"] = "torch"
    """Add epsilon after (torch) or before (TensorFlow) the bias correction of the second moment."""
    orthogonal_regularisation: float = 0.0
    """Strength of BigGAN's off-diagonal orthogonal regularisation of G."""
    r1_gamma: float = 0.0
    """Weight of the R1 penalty: gamma / 2 * |grad D(real)|^2 (Mescheder et al. 2018), with respect to images before
    their augmentation (StyleGAN2-ADA, R3GAN)."""
    r2_gamma: float = 0.0
    """Weight of the R2 penalty: gamma / 2 * |grad D(fake)|^2."""
    finite_differences: FiniteDifferencesConfig = field(default_factory=FiniteDifferencesConfig)
    """Estimate R1 and R2 without second derivatives."""
    gamma_schedule: str = "constant"
    """Schedule of both gammas, as shares of them like `lr_schedule` (R3GAN: cosine to 0.1)."""
    lecam: float = 0.0
    """Weight of the LeCam regularisation (Tseng et al. 2021) towards moving averages of D's logits."""
    lecam_decay: float = 0.99
    """Decay of LeCam's averages, per D step; they start with the values of the first step."""
    mode_seeking: float = 0.0
    """Weight in G's loss of the mode-seeking term (Mao et al. 2019), which keeps the images of a class apart; G's
    labels are then drawn in pairs."""
    top_k: float = 1.0
    """Share of the generated images, those with the highest logits, that G learns from (Sinha et al. 2020: from 1 down
    to 0.5 or 0.75); taken of every backward pass, over all processes."""
    top_k_schedule: str = "constant"
    """Schedule of top_k, as in `lr_schedule`, but VALUE is the last share itself."""
    augment: list[Transformation] = field(default_factory=list)
    """Augmentation of real and generated images before D: color, translation and cutout are DiffAugment (Zhao et
    al. 2020), flip mirrors half of the images, shift moves them by up to 4 pixels."""
    augment_probability: float = 1.0
    """Probability of each augmentation, drawn separately for every image."""
    augment_schedule: str = "constant"
    """Schedule of the probability, as in `lr_schedule`, but VALUE is the last one itself (R3GAN: from 0 to 0.4)."""
    consistency: ConsistencyConfig = field(default_factory=ConsistencyConfig)
    """Consistency regularisation of D and G."""
    ema_decay: float = 0.9999
    """Decay, per G step, of the average of G's weights and buffers; 0 keeps no average."""
    ema_start_kimg: float = 0.0
    """Until then the average is a copy of G."""
    power_averages: list[float] = field(default_factory=list)
    """Lengths of further averages of G, such as 0.05,0.1, as shares of the time trained. From two or more of them
    `hamgan average` makes an average of any length afterwards (EDM2, Karras et al. 2024)."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """auto: the precision of `accelerate launch` ("no" is fp32); without a launcher bf16 on a GPU that has it and on a
    CPU with AMX, fp32 elsewhere. Losses, logits and decompositions stay in fp32."""
    tf32: bool = False
    """Allow TF32 in fp32 convolutions and matrix products of training steps on NVIDIA GPUs; sheets and evaluations are
    always fp32. With bf16 only the products of decompositions change: their reconstruction moves by 4e-4 of its norm
    (computed on a CPU with rounded inputs) and is no further from the input."""
    compile: bool | Literal["auto"] = False
    """Compile both networks with torch.compile; with R1 or R2 the generator only, unless `finite_differences` estimates
    them. auto: on GPUs, with versions of torch whose compiled gradients were checked."""
    threads: int | None = None
    """CPU threads of a step, per process; null takes one for networks as small as the demo's, else every core."""


SCHEDULES = {
    "lr_schedule": ("generator_lr", "discriminator_lr"),
    "beta2_schedule": ("beta2",),
    "gamma_schedule": ("r1_gamma", "r2_gamma"),
    "top_k_schedule": ("top_k",),
    "augment_schedule": ("augment_probability",),
}
"""Keys of schedules, and the keys whose values they move."""
