"""Run ``python -m hamgan``, the same as the command `hamgan`."""

from hamgan.cli import main

if __name__ == "__main__":
    main()
