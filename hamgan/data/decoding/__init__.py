"""Decode pictures and resize them to the training resolution."""
