"""Find the latent nearest to a picture, as `hamgan invert` does."""

from hamgan.cli import run_command

if __name__ == "__main__":
    run_command("invert")
