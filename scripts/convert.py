"""Convert weights of others, as `hamgan convert` does."""

from hamgan.cli import run_command

if __name__ == "__main__":
    run_command("convert")
