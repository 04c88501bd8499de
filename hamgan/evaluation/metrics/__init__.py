"""Compute numbers from features."""
