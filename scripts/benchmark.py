"""Measure speed and memory: benchmark.py train, block, sample, evaluate or data; each has its --help."""

from hamgan.benchmarks.command import main
from hamgan.command_line import run

if __name__ == "__main__":
    run(main)
