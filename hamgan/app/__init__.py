"""Serve a web page to play with a generator, on Gradio (an optional extra)."""
