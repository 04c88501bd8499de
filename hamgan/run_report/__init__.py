"""A training run as one HTML file."""

from hamgan.run_report.writing import write_report

__all__ = ["write_report"]
