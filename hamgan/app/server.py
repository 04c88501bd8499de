"""The server of the page, on loopback unless told otherwise."""

import contextlib
import errno
import importlib.util
import os
import socket
from typing import TYPE_CHECKING

from hamgan.errors import ConfigError
from hamgan.sampling import LoadedGenerator, default_device, load_generator

if TYPE_CHECKING:
    from starlette.types import ASGIApp

MOST_CONNECTIONS = 128


def serve(checkpoint: str, host: str = "127.0.0.1", port: int = 7860) -> None:
    """Load a generator and show its page until Ctrl-C.

    Raises ConfigError where Gradio is missing and for an address that cannot be listened on, CheckpointError for a
    checkpoint that cannot be loaded.
    """
    if importlib.util.find_spec("gradio") is None:
        raise ConfigError("the page needs Gradio: pip install -r requirements-sharing.txt")
    with listen(host, port) as listening:
        app = build_app(load_generator(checkpoint, default_device()))
        place = f"[{host}]" if ":" in host else host
        print(f"open http://{place}:{listening.getsockname()[1]} in a browser; Ctrl-C ends the page", flush=True)
        with contextlib.suppress(KeyboardInterrupt):  # raised once more when all is closed
            _run(app, listening)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; ConfigError for an address that is taken, forbidden or not of this machine."""
    if not 0 <= port <= 65535:
        raise ConfigError(f"port is {port}; allowed: 0 (any free one) to 65535")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=MOST_CONNECTIONS)
    except (socket.gaierror, UnicodeError) as error:
        raise ConfigError(f"host {host!r} is no address that is known here") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"port {port} of {host} is taken; choose another --port") from error
        raise ConfigError(f"cannot listen on {host}, port {port}: {os.strerror(error.errno or 0)}") from error


def build_app(generator: LoadedGenerator) -> "ASGIApp":
    """The page of a generator as an ASGI application."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # Gradio reads it when it is imported
    from fastapi import FastAPI, Response

    from hamgan.app.files import MadeFiles
    from hamgan.app.guard import Guard
    from hamgan.app.page import mount_page
    from hamgan.app.results import Studio

    app, files = FastAPI(openapi_url=None), MadeFiles()

    @app.get("/made/{name}")
    def made(name: str) -> Response:
        content = files.get(name)
        if content is None:
            return Response("This picture is no longer kept: draw it again.", 404)
        return Response(content, media_type=f"image/{name[-3:]}", headers={"cache-control": "private, max-age=3600"})

    mount_page(app, Studio(generator, files))
    return Guard(app)


def _run(app: "ASGIApp", listening: socket.socket) -> None:
    import uvicorn

    config = uvicorn.Config(
        app,
        log_level="warning",
        ws="none",
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=1,
    )
    uvicorn.Server(config).run([listening])
