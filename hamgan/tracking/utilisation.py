"""Compute the model FLOPs utilisation of a run (Chowdhery et al. 2022, PaLM, appendix B)."""

from dataclasses import dataclass

import torch
from accelerate import Accelerator

from hamgan.config import Config

PEAK_TFLOPS: dict[str, tuple[float, float, float]] = {
    "B200": (2250, 1100, 75),
    "H200 NVL": (835, 417, 60),
    "H200": (989, 495, 67),
    "H100 NVL": (835, 417, 60),
    "H100 PCIe": (756, 378, 51),
    "H100": (989, 495, 67),
    "A100": (312, 156, 19.5),
    "A40": (149.7, 74.8, 37.4),
    "A30": (165, 82, 10.3),
    "L40S": (362, 183, 91.6),
    "L4": (121, 60, 30.3),
    "RTX 6000 Ada": (364, 182, 91.1),
    "RTX A6000": (154.8, 77.4, 38.7),
    "RTX 5090": (209.5, 104.8, 104.8),
    "RTX 4090": (165.2, 82.6, 82.6),
    "RTX 3090": (71, 35.6, 35.6),
}
"""Words of a device's name -> 10^12 FLOP/s by NVIDIA's data sheets and architecture papers, without sparsity: bf16 or
fp16 with float32 sums, TF32, float32. The first entry that fits is taken."""


@dataclass(frozen=True)
class Arithmetic:
    """Hold the FLOPs of training per image that D sees, the number of GPUs, and the peak FLOP/s of one, if known."""

    flops_per_image: float
    gpus: int
    peak: float | None

    def at(self, images_per_second: float) -> dict[str, float]:
        """Return the numbers of a row: 10^12 FLOP/s of each GPU, and their share of its peak, if known."""
        flops = images_per_second * self.flops_per_image / self.gpus
        return {"tflops_per_second": flops / 1e12} | ({} if self.peak is None else {"mfu": flops / self.peak})


def count_arithmetic(config: Config, accelerator: Accelerator) -> Arithmetic:
    """Count a run's FLOPs with networks on the meta device; needs ``data.num_classes``."""
    from hamgan.evaluation.studies.cost import count_flops_per_image  # torch-fidelity is not needed to train

    device = accelerator.device
    half = accelerator.mixed_precision in ("bf16", "fp16")
    peaks = peak_tflops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    peak = None if peaks is None else peaks[0 if half else 1 if config.train.tf32 else 2] * 1e12
    return Arithmetic(count_flops_per_image(config)[1], accelerator.num_processes, peak)


def peak_tflops(device_name: str) -> tuple[float, float, float] | None:
    """Return the entry of ``PEAK_TFLOPS`` for a name such as ``NVIDIA H100 80GB HBM3``, None where there is none."""
    words = device_name.replace("-", " ").split()
    # Whole words, since an L4 is not an L40. A D (China) or a laptop means another chip, MIG a part of one.
    if {"D", "Laptop", "Mobile", "Max", "MIG"} & set(words):
        return None
    return next((peaks for name, peaks in PEAK_TFLOPS.items() if set(name.split()) <= set(words)), None)
