"""Make a store of training images."""
