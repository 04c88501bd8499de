"""Sort the numbers of a run into panels, which the run report and the trackers share."""

import re

PANELS = {
    "FID": r"fid.*",
    "mIoU": r"miou.*",
    "pixel accuracy": r"(aacc|macc|accuracy).*",
    "Inception Score": r"inception_score.*",
    "losses": r"([gd]_|auxiliary_)?loss",
    "logits of D": r"logits_(real|fake)",
    "gradient norms": r"([gd]_)?gradient_norm",
    "penalties": r"r1|r2|cr_real|cr_fake|zcr|latent_spread|direction_loss|mode_seeking",
    "spread of images": r"spread_(real|fake)|diversity",
    "gates of the context blocks": r"[gd]_gate_\d+",
    "reconstruction errors of the Hamburgers": r"[gd]_reconstruction_\d+",
    "singular values": r"[gd]_sigma_(max|mean)",
    "other metrics": r"(kid|precision|recall|class_accuracy|class_distance|class_diversity|class_leakage).*",
    "speed": r"images_per_second",
    "FLOP/s": r"tflops_per_second|mfu",
    "learning rates": r"([gd]_)?lr",
    "schedules": r"beta2|r[12]_gamma|top_k|augment_probability",
    "memory": r"memory_gib",
}
"""Title of a panel -> pattern of the numbers that it shows, the most important panel first."""

NOTES = {
    "FID": "Falls steeply at first, then more and more slowly. Once it rises for good, the run learns nothing more.",
    "mIoU": "Rises fast, then more and more slowly, with small jumps; highest when the learning rate is lowest.",
    "pixel accuracy": "Rises with the mIoU. It says little of rare classes.",
    "Inception Score": "Rises, and levels off where FID does.",
    "losses": "A GAN's losses fluctuate around a level or drift slowly: they show the balance of two players, neither "
    "quality nor progress. A D loss near 0 means that D has won. A segmenter's loss falls.",
    "logits of D": "Real above generated, with a slowly growing distance. A sudden jump is a collapse.",
    "gradient norms": "Stay within one order of magnitude; single spikes are harmless.",
    "penalties": "Change slowly, without jumps.",
    "spread of images": "Generated images should differ as much as real ones. A fall towards 0 is a collapse.",
    "gates of the context blocks": "Start at 0 and move away from it as the block becomes useful.",
    "reconstruction errors of the Hamburgers": "Constant, or slowly falling; 1 if nothing is explained.",
    "singular values": "Grow slowly and level off. Their explosion announces a collapse (Brock et al. 2019).",
    "other metrics": "Precision, recall and accuracy rise; KID and distances fall.",
    "speed": "Constant. Dips are other programs on the machine, or data that comes too slowly.",
    "learning rates": "Follow their schedule.",
    "schedules": "Values with a schedule of their own.",
    "memory": "Constant after the first steps.",
}
"""Describe what a healthy run shows in each panel, by the panel's title."""


def panel_of(name: str) -> str | None:
    """Return the title of the panel that shows a number, None for numbers that none shows."""
    return next((title for title, pattern in PANELS.items() if re.fullmatch(pattern, name)), None)
