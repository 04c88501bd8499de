"""Sort the numbers of a run into panels, which the run report and the trackers share."""

import re

PANELS = {
    "FID": r"fid.*",
    "Inception Score": r"inception_score.*",
    "losses": r"[gd]_loss",
    "logits of D": r"logits_(real|fake)",
    "gradient norms": r"[gd]_gradient_norm",
    "penalties": r"r1|r2|mode_seeking",
    "spread of images": r"spread_(real|fake)|diversity",
    "gates of the context blocks": r"[gd]_gate_\d+",
    "reconstruction errors of the Hamburgers": r"[gd]_reconstruction_\d+",
    "singular values": r"[gd]_sigma_(max|mean)",
    "other metrics": r"(kid|precision|recall|class_accuracy|class_distance|class_diversity|class_leakage).*",
    "speed": r"images_per_second",
    "FLOP/s": r"tflops_per_second|mfu",
    "learning rates": r"[gd]_lr",
    "memory": r"memory_gib",
}
"""Title of a panel -> pattern of the numbers that it shows, in the order in which people look at them."""


def panel_of(name: str) -> str | None:
    """Return the title of the panel that shows a number, None for numbers that none shows."""
    return next((title for title, pattern in PANELS.items() if re.fullmatch(pattern, name)), None)
