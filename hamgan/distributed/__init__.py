"""Coordinate the processes of a run: groups, signals, failures, cores."""
