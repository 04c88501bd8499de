"""Obey the settings of `accelerate launch`, or refuse those that cannot be obeyed."""

import os

from hamgan.errors import ConfigError

UNFIT = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism config",
    "PJRT_DEVICE": "torch XLA",
}
PRECISIONS = {"no": "fp32", "bf16": "bf16", "fp16": "fp16"}


def check_launcher() -> None:
    """Raise ConfigError for Accelerate plugins that cannot train two networks in turn.

    They wrap one model and its optimiser.
    """
    for variable, name in UNFIT.items():
        if (value := os.environ.get(variable, "false")).lower() != "false" and value not in ("CPU", "CUDA", "GPU", ""):
            raise ConfigError(
                f"Accelerate is configured for {name} ({variable}={value}), but G and D train under DDP: choose "
                "distributed_type MULTI_GPU (for one process: NO) in `accelerate config`, or torchrun"
            )
    backend = os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no")
    if backend.lower() != "no":
        raise ConfigError(
            f"`accelerate launch` asks for the dynamo backend {backend}; compile with --train.compile true instead"
        )
    steps = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if steps != "1":
        raise ConfigError(f"`accelerate launch` asks for {steps} accumulation steps; use --train.accumulation {steps}")


def launched_precision(configured: str) -> str | None:
    """Return the precision of `accelerate launch`, None without it; ConfigError if it contradicts ``configured``.

    ``configured`` is ``train.precision``. "no" is also Accelerate's default, so it never contradicts.
    """
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION")
    if asked is None:
        return None
    if asked not in PRECISIONS:
        raise ConfigError(f"`accelerate launch --mixed_precision {asked}` is not supported; allowed: no, bf16 and fp16")
    if asked != "no" and configured not in ("auto", PRECISIONS[asked]):
        raise ConfigError(
            f"train.precision is {configured}, but `accelerate launch --mixed_precision {asked}` asks for {asked}; "
            "give one of them, or --train.precision auto, which obeys the launcher"
        )
    return PRECISIONS[asked]
