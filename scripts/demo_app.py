"""Open a web page to play with a trained generator: classes, seeds, truncation, blends, walks. Ctrl-C ends it.

scripts/demo_app.py --checkpoint runs/photos
"""

import argparse

from hamgan.command_line import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="run, checkpoint folder, generator.safetensors or hub id")
    parser.add_argument("--port", type=int, default=7860, help="port to listen on; 0: any free one (default: 7860)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine)")
    options = parser.parse_args()
    from hamgan.app import serve

    serve(options.checkpoint, options.host, options.port)


if __name__ == "__main__":
    run(main)
