"""Write a run as one HTML page, as `hamgan report` does."""

from hamgan.cli import run_command

if __name__ == "__main__":
    run_command("report")
