"""What stands before Gradio: the routes that the page needs and no others, small requests, headers for the browser."""

import re

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST_REQUEST = 16 * 1024
"""Bytes of a request's body."""
ROUTES = re.compile(r"/|/(theme\.css|manifest\.json|favicon\.ico)|/(assets|static|made|gradio_api/run)/[\w./-]+")
"""Gradio has many more, some of them for files on disk, uploads and other hosts: none of those is reached."""
HEADERS = {
    # The browser asks no other host for anything. Gradio puts styles and scripts into the page and compiles templates.
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; object-src 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Guard:
    """Refuses other routes and large requests before the application sees them."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":  # the start and the end of the server
            await self.app(scope, receive, send)
        elif not ROUTES.fullmatch(scope["path"]) or ".." in scope["path"]:
            await PlainTextResponse("There is nothing here.", 404)(scope, receive, send)
        elif (body := await _read_body(receive)) is None:
            await PlainTextResponse(f"A request has {LARGEST_REQUEST} bytes at most.", 413)(scope, receive, send)
        else:
            await self.app(scope, _replay(body, receive), _with_headers(send))


async def _read_body(receive: Receive) -> bytes | None:
    """The body of a request; None as soon as it is too large, whatever its headers say."""
    body, more = b"", True
    while more and len(body) <= LARGEST_REQUEST:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body if len(body) <= LARGEST_REQUEST else None


def _replay(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that gives a body which has been read already, then whatever else comes."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


def _with_headers(send: Send) -> Send:
    headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *headers]}
        await send(message)

    return send_with_headers
