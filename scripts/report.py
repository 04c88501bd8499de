"""Write what a run has done as one HTML file: plots, sheets over time, evaluations, configuration, environment.

scripts/report.py runs/photos --preset configs/photos.yaml
"""

import argparse
from pathlib import Path

from hamgan.command_line import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--out", type=Path, help="file to write (default: RUN/report.html, replaced if there is one)")
    parser.add_argument("--preset", type=Path, help="configuration to compare with (default: the default values)")
    options = parser.parse_args()
    from hamgan.run_report import write_report

    print(f"wrote {write_report(options.run, options.out, options.preset)}")


if __name__ == "__main__":
    run(main)
