"""Decode a picture and bring it to the size of training."""
