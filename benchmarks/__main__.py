"""Measure speed and memory: python -m benchmarks SUBCOMMAND; --help lists them, and each has its own."""

from benchmarks.command import main
from hamgan.cli import run

if __name__ == "__main__":
    run(main)
