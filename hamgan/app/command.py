"""Read the command line of `hamgan app`."""

import argparse
from collections.abc import Sequence

from hamgan.sampling.places import check_place


def main(arguments: Sequence[str], prog: str = "hamgan app") -> None:
    """Serve the page until Ctrl-C."""
    description = "Serve a web page to play with a trained generator or segmenter."
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument(
        "--checkpoint",
        required=True,
        help="run, checkpoint folder, generator or segmenter file, or owner/name on a hub",
    )
    parser.add_argument("--port", type=int, default=7860, help="port to listen on, 0 for any free one (default: 7860)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine only)"
    )
    options = parser.parse_args(arguments)
    check_place(options.checkpoint)
    from hamgan.app.server import serve

    serve(options.checkpoint, options.host, options.port)
