"""Make a store of training images, as `hamgan prepare` does."""

from hamgan.cli import run_command

if __name__ == "__main__":
    run_command("prepare")
