"""Measure speed and memory: ``python -m benchmarks NAME``; ``--help`` lists the subcommands."""

from benchmarks.command import main
from hamgan.cli import run

if __name__ == "__main__":
    run(main)
