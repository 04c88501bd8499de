"""Read the command line of `hamgan report`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from hamgan.errors import refuse_renamed
from hamgan.sampling.places import check_place


def main(arguments: Sequence[str], prog: str = "hamgan report") -> None:
    """Write the report that the arguments ask for."""
    refuse_renamed(arguments, {"--out": "--output"})
    parser = argparse.ArgumentParser(
        prog=prog, description="Write a report of a run as one HTML page that opens offline."
    )
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--output", type=Path, help="file to write or replace (default: RUN/report.html)")
    parser.add_argument(
        "--preset", type=Path, help="configuration file to compare the run's with (default: the default values)"
    )
    options = parser.parse_args(arguments)
    check_place(options.run)
    from hamgan.tracking.html.report import write_report

    print(f"wrote {write_report(options.run, options.output, options.preset)}")
