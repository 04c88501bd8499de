"""Train a GAN: the loop, the adversarial step, losses, and the rest of a run."""
