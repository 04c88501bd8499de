"""Extract features of images by networks that others use too."""
