"""Train and evaluate segmenters, as `hamgan segment` does; a file that `accelerate launch` takes."""

from hamgan.cli import run_command

if __name__ == "__main__":
    run_command("segment")
