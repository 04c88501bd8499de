"""Find latents and classes of images, by optimisation."""
