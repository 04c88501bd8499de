"""Serve a page to play with a generator, as `hamgan app` does."""

from hamgan.cli import run_command

if __name__ == "__main__":
    run_command("app")
