"""Compute metrics from features."""
