"""Pass a generator on, as `hamgan export` does."""

from hamgan.cli import run_command

if __name__ == "__main__":
    run_command("export")
