"""Extract features of images by the networks of published numbers."""
