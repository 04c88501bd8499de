"""Serve a web page to play with a generator, on Gradio (an optional extra)."""

from hamgan.app.server import serve

__all__ = ["serve"]
