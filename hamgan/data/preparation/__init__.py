"""Prepare a store of training images."""
