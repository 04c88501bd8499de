"""Describe this machine for an issue: versions, devices, and which optional parts are installed."""

import argparse
import importlib.util
import os
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path

PACKAGES: tuple[str, ...] = (
    "hamgan",
    "torch",
    "torchvision",
    "accelerate",
    "torch-fidelity",
    "numpy",
    "pillow",
    "scikit-image",
)
PACKAGES += ("safetensors", "jsonargparse", "wandb", "tensorboard", "huggingface_hub", "gradio", "onnxruntime", "timm")
BROWSERS = ("google-chrome", "chromium", "chromium-browser", "chrome", "firefox")
WIDTH = 14


def main(arguments: Sequence[str], prog: str = "hamgan doctor") -> None:
    """Print one fact per line; facts that cannot be determined are reported on their line."""
    parser = argparse.ArgumentParser(prog=prog, description="Describe this machine, to paste into an issue.")
    parser.parse_args(arguments)
    for name, text in describe().items():
        print(f"{name:{WIDTH}}{text}")


def describe() -> dict[str, str]:
    """Return the facts by topic."""
    from hamgan.machine import describe_machine

    machine = describe_machine()
    return {
        "system": f"{platform.platform()}, Python {platform.python_version()}",
        "packages": _packages(),
        "processor": f"{machine['processor']}, {machine['cores']} core{'s' * (machine['cores'] != 1)}, {_memory()}",
        "devices": _devices(),
        "training": _training(),
        "compile": _compiler(),
        "data": _photographs(),
        "features": _inception(),
        "films": _films(),
        "browser": next(filter(None, map(shutil.which, BROWSERS)), "none found (only tests of the web page need one)"),
        "wandb": _wandb(),
        "disk": _disk(Path()),
        "environment": _environment(),
    }


def _packages() -> str:
    from hamgan.machine import package_versions

    found = package_versions(PACKAGES)
    missing = [name for name in PACKAGES if name not in found]
    present = ", ".join(f"{name} {version}" for name, version in found.items())
    return present + (f"; not installed: {', '.join(missing)}" if missing else "")


def _memory() -> str:
    import torch

    from hamgan.machine import free_memory

    free = free_memory(torch.device("cpu"))
    return f"{free / 2**30:.1f} GiB of memory free" if free is not None else "free memory unknown"


def _devices() -> str:
    import torch

    if not torch.accelerator.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        return f"CPU only (torch is {built})"
    if not torch.cuda.is_available():
        return str(torch.accelerator.current_accelerator())
    gpus = []
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        gpus.append(f"{facts.name} ({facts.total_memory / 2**30:.0f} GiB, capability {facts.major}.{facts.minor})")
    return f"{', '.join(gpus)}; CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"


def _training() -> str:
    import torch

    from hamgan.config import Config, load_config
    from hamgan.distributed.cores import core_count
    from hamgan.training.setup import choose_threads, has_fast_bf16

    precision = "bf16" if has_fast_bf16() else "fp32"
    if torch.accelerator.is_available():
        return f"precision auto is {precision}"
    small, large = choose_threads(load_config("photos"), 1), choose_threads(Config(), 1)
    threads = f"for small networks such as the demo's: {small}, for large ones: {large}, cores: {core_count()}"
    return f"precision auto is {precision}; threads {threads}"


def _compiler() -> str:
    """Return whether `train.compile` can work, which needs Triton on a GPU and a C++ compiler on a CPU."""
    import torch

    if torch.cuda.is_available():
        triton = importlib.util.find_spec("triton") is not None
        return "train.compile has Triton" if triton else "train.compile would fail: Triton is not installed"
    compiler = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")
    return f"train.compile has {compiler}" if compiler else "train.compile would fail: there is no C++ compiler"


def _photographs() -> str:
    from hamgan.data import open_source
    from hamgan.errors import one_line

    try:
        source = open_source("photos", "train", 32)
    except Exception as error:
        return f"the photographs cannot be read: {one_line(error)}"
    return f"photographs are here, {len(source.class_names)} classes"


def _inception() -> str:
    from hamgan.errors import ConfigError
    from hamgan.evaluation.features.inception import PUBLISHED
    from hamgan.evaluation.features.weights import find_weights

    try:
        return f"Inception weights at {find_weights(PUBLISHED, allow_download=False)}"
    except ConfigError:
        return f"no Inception weights yet: they are downloaded when first needed, or named by ${PUBLISHED.variable}"


def _films() -> str:
    try:
        import imageio_ffmpeg

        return f"ffmpeg {imageio_ffmpeg.get_ffmpeg_version()} writes .mp4"
    except (ImportError, RuntimeError, OSError):
        return "no imageio-ffmpeg: films are .gif"


def _wandb() -> str:
    if importlib.util.find_spec("wandb") is None:
        return "not installed"
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0]
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    known = "WANDB_API_KEY" in os.environ or (netrc.is_file() and host in netrc.read_text(errors="replace"))
    return "logged in" if known else "not logged in: runs are written offline"


def _disk(folder: Path) -> str:
    usage = shutil.disk_usage(folder)
    return f"{usage.free / 2**30:,.0f} of {usage.total / 2**30:,.0f} GiB free in this folder"


def _environment() -> str:
    """Return the environment variables that affect runs; none of them contains a secret."""
    starts = ("CUDA_", "HAMGAN_", "KMP_", "NCCL_", "OMP_", "PYTORCH_", "TORCH_", "WANDB_MODE")
    found = {name: value for name, value in sorted(os.environ.items()) if name.startswith(starts)}
    return " ".join(f"{name}={value}" for name, value in found.items()) or "nothing set"
