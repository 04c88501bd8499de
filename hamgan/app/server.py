"""Serve the page, by default on this machine only."""

import importlib.util
import os
import re
import socket
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from hamgan.checkpoint.tensors import read_metadata
from hamgan.errors import ConfigError
from hamgan.sampling import LoadedGenerator, default_device, load_generator
from hamgan.sampling.hub import GENERATOR_FILE, download
from hamgan.segmentation import LoadedSegmenter, load_segmenter
from hamgan.segmentation.storing import SEGMENTER_FILE, SEGMENTER_FORMAT

if TYPE_CHECKING:
    import gradio
    from starlette.types import ASGIApp, Receive, Scope, Send

LARGEST_REQUEST = 512 * 1024
"""Largest body of a request, in bytes, which may contain a picture."""
ROUTES = re.compile(
    r"/|/(theme\.css|manifest\.json|favicon\.ico)|/(assets|static)/[\w./-]+"
    r"|/gradio_api/(startup-events|queue/(join|data)|heartbeat/\w+|file=/[^:]+)"
)
"""Routes that the page needs. Gradio's other routes accept uploads and fetch URLs for anyone."""


class RouteFilter:
    """Refuse the routes that the page does not need, and large requests, before Gradio sees them."""

    def __init__(self, app: "ASGIApp") -> None:
        self.app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Forward a request, or answer 404 or 413."""
        from starlette.responses import PlainTextResponse

        answer: ASGIApp = self.app
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            length = int(headers.get(b"content-length", 0))  # the server has checked that it is a number
            if not ROUTES.fullmatch(scope["path"]):
                answer = PlainTextResponse("There is nothing here.", 404)
            elif length > LARGEST_REQUEST or b"transfer-encoding" in headers:
                answer = PlainTextResponse(f"A request has {LARGEST_REQUEST} bytes at most.", 413)
        await answer(scope, receive, send)


def serve(checkpoint: str, host: str = "127.0.0.1", port: int = 7860) -> None:
    """Load a generator or a segmenter and show its page until Ctrl-C; port 0 takes any free one.

    Raises ConfigError if Gradio is missing or the address cannot be listened on, CheckpointError if the checkpoint
    cannot be loaded.
    """
    if importlib.util.find_spec("gradio") is None:
        raise ConfigError("the page needs Gradio: pip install -r requirements-sharing.txt")
    port = check_address(host, port)
    loaded = load(checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        page = launch(loaded, host, port, Path(folder))
        print(f"open {str(page.local_url).rstrip('/')} in a browser; Ctrl-C ends the page", flush=True)
        threading.Event().wait()  # Gradio's own loop prints a line of its own on Ctrl-C


def load(checkpoint: str) -> LoadedGenerator | LoadedSegmenter:
    """Load the generator or segmenter of a run, file or hub repository; raises CheckpointError."""
    place = Path(checkpoint)
    if not place.exists():
        place = download(checkpoint, files=(GENERATOR_FILE, SEGMENTER_FILE))
    if (place / SEGMENTER_FILE).is_file() or (
        place.is_file() and read_metadata(place).get("format") == SEGMENTER_FORMAT
    ):
        return load_segmenter(checkpoint, default_device())
    return load_generator(checkpoint, default_device())


def check_address(host: str, port: int) -> int:
    """Return the port, or a free one for 0; ConfigError if the address is in use, forbidden or not of this machine."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.create_server((host, port), family=family) as server:
            return int(server.getsockname()[1])
    except (OSError, UnicodeError, OverflowError) as error:
        code = getattr(error, "errno", None)
        reason = os.strerror(code) if code and code > 0 else error  # those of names are below 0
        raise ConfigError(f"cannot listen on {host}, port {port}: {reason}; choose another --port or --host") from error


def launch(loaded: LoadedGenerator | LoadedSegmenter, host: str, port: int, folder: Path) -> "gradio.Blocks":
    """Start the server of a page in threads of its own; ``folder`` is the only one that files are served from."""
    # Gradio reads both when it is imported or builds a page.
    os.environ |= {"GRADIO_TEMP_DIR": str(folder), "GRADIO_ANALYTICS_ENABLED": "False"}
    from starlette.middleware import Middleware

    from hamgan.app.page import STYLE, build_page
    from hamgan.app.segmenter_page import build_segmenter_page

    page = build_segmenter_page(loaded) if isinstance(loaded, LoadedSegmenter) else build_page(loaded)
    page.launch(
        server_name=f"[{host}]" if ":" in host else host,
        server_port=port,
        share=False,
        inline=False,
        quiet=True,
        prevent_thread_lock=True,
        ssr_mode=False,
        mcp_server=False,
        run_history=False,
        enable_monitoring=False,
        pwa=False,
        footer_links=[],
        state_session_capacity=100,
        app_kwargs={"middleware": [Middleware(RouteFilter)]},
        **STYLE,
    )
    return page
