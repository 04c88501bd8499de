"""Measure speed and memory: benchmark.py SUBCOMMAND; --help lists them, and each has its own."""

from hamgan.benchmarks.command import main
from hamgan.command_line import run

if __name__ == "__main__":
    run(main)
