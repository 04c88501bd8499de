"""Find where the time of a training step goes: by kind of operator, and what spectral norm adds."""

import torch

from benchmarks.steps import Workload
from benchmarks.timing import Work, synchronise
from hamgan.networks.spectral_norm import SpectralWeight

# The first kind with a fragment in an operator's or kernel's name holds it.
_FRAGMENTS = {
    "optimiser, average": ("adam", "_foreach"),
    "convolution": ("conv", "fprop", "dgrad", "wgrad"),
    "batch norm": ("batch_norm", "batchnorm", "bn_fw", "bn_bw"),
    "resampling": ("upsample", "avg_pool", "max_pool"),
    "matrix product": ("mm", "bmm", "addmv", "aten::mv", "aten::dot", "addr", "gemm", "gemv"),
    "fused elementwise": ("fused",),
    "copies": ("copy", "clone", "aten::cat", "memcpy", "memset"),
}


def kind_of(name: str) -> str:
    """Return the kind of an operator (``aten::mm``) or kernel by its name."""
    name = name.lower()
    found = (kind for kind, fragments in _FRAGMENTS.items() if any(fragment in name for fragment in fragments))
    return next(found, "other")


def profile_kernels(work: Work, device: torch.device) -> list[tuple[str, int, float]]:
    """Return name, launches and seconds of every kernel in one call, the longest first; of operators on a CPU."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities, acc_events=True) as profile:
        work()
        synchronise(device)
    found = []
    for event in profile.key_averages():
        # On an accelerator the kernels themselves; the operators that launch them would count them twice.
        on_host = event.device_type == torch.profiler.DeviceType.CPU
        if on_host == (device.type == "cpu"):
            taken = event.self_cpu_time_total if on_host else event.self_device_time_total
            found.append((event.key, event.count, taken / 1e6))
    return sorted(found, key=lambda kernel: -kernel[2])


def profile_kinds(work: Work, device: torch.device) -> dict[str, float]:
    """Profile one call: seconds by kind of operator, the longest first; of the CPU, or of an accelerator's kernels."""
    seconds: dict[str, float] = {}
    for name, _, taken in profile_kernels(work, device):
        seconds[kind_of(name)] = seconds.get(kind_of(name), 0.0) + taken
    return {kind: value for kind, value in sorted(seconds.items(), key=lambda item: -item[1]) if value}


def normalised_layers(workload: Workload) -> list[SpectralWeight]:
    """Return the layers of both networks that have spectral normalisation."""
    modules = [module for network in workload.step.networks.values() for module in network.modules()]
    return [module for module in modules if isinstance(module, SpectralWeight) and not module.folded]


def run_unnormalised(workload: Workload, layers: list[SpectralWeight]) -> None:
    """Run a step whose layers take their weights as they are."""
    for layer in layers:
        layer.folded = True
    workload()
    for layer in layers:
        layer.folded = False
