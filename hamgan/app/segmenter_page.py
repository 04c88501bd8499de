"""Build the web page of a segmenter, which segments pictures of the visitor."""

import html
import time
from dataclasses import replace
from typing import Any

import gradio as gr

from hamgan.app.page import FILES_LAST, LONGEST_QUEUE, build_picture, build_results, new_file
from hamgan.app.requests import read_whole_picture
from hamgan.errors import ConfigError
from hamgan.networks import count_parameters
from hamgan.segmentation import LoadedSegmenter
from hamgan.segmentation.options import PUBLISHED_SCALES
from hamgan.segmentation.predict import LabelMap

PICTURE_SIDE = 384
"""Largest shorter side, in pixels, to which the page shrinks a picture before sending."""
MOST_NAMED = 6
"""Number of the largest classes that are listed with their shares."""


def build_segmenter_page(segmenter: LoadedSegmenter) -> gr.Blocks:
    """Return the page of a segmenter, which handles one picture at a time and refuses more if the queue is full."""
    title = f"{segmenter.config.name} - HamGAN"
    page = gr.Blocks(title=title, analytics_enabled=False, delete_cache=(60, FILES_LAST))
    with page:
        gr.HTML(describe(segmenter))
        with gr.Tab("Label"), gr.Row():
            _build_labelling(segmenter)
    page.queue(max_size=LONGEST_QUEUE, default_concurrency_limit=1, api_open=False)
    return page


def describe(segmenter: LoadedSegmenter) -> str:
    """Return HTML that describes the segmenter."""
    header = segmenter.header
    facts = [f"{segmenter.network.classes} classes", f"{count_parameters(segmenter.network):,} parameters"]
    facts += [] if header.kimg is None else [f"{header.kimg:,g} thousand images seen"]
    text = f"<h1>{html.escape(segmenter.config.name)}</h1><p>{' · '.join(facts)}</p>"
    for row in header.evaluations[:1]:
        summary = f"mIoU {100 * row['miou']:.1f}" if "miou" in row else "Evaluation"
        text += f"<details><summary>{summary}</summary><p>Protocol: {html.escape(row['protocol'])}</p></details>"
    return f"<header>{text}</header>"


def _build_labelling(segmenter: LoadedSegmenter) -> None:
    with gr.Column(min_width=280, elem_classes="controls"):
        address = build_picture("Every pixel gets its class.")
        several = gr.Checkbox(label="Several scales, mirrored too", info="better, and twelve times as slow")
        button = gr.Button("Label", variant="primary", size="md", min_width=80)
    outputs = build_results("on-demand", "large")

    def answer(text: str, several: bool) -> tuple[str, gr.Gallery, list[str]]:
        start = time.perf_counter()
        try:
            picture = read_whole_picture(text)
        except ConfigError as error:
            # Gradio shows a message as HTML.
            raise gr.Error(html.escape(str(error)), print_exception=False) from error
        settings = segmenter.config.eval
        if several:
            settings = replace(settings, scales=PUBLISHED_SCALES, flip=True)
        found = segmenter.label(picture, settings)
        line = f"{describe_shares(found)}, in {time.perf_counter() - start:.1f} s"
        shown = [(found.overlay(), "classes over the picture"), (found.coloured(), "classes"), (picture, "picture")]
        return line, gr.Gallery(shown, columns=3), _write(segmenter, found)

    read = f"async (_, several) => [await readPicture({PICTURE_SIDE}, false), several]"
    settings: dict[str, Any] = {"concurrency_id": "draw", "api_visibility": "private", "js": read}
    button.click(answer, [address, several], outputs, show_progress_on=outputs[0], **settings)


def describe_shares(found: LabelMap) -> str:
    """Return the largest classes of a picture with their colours and their shares in percent, as HTML."""
    shares, colours = list(found.shares().items()), dict(zip(found.class_names, found.palette, strict=True))
    swatch = '<span style="color: rgb{}">&#9632;</span>'
    named = ", ".join(
        f"{swatch.format(tuple(colours[name].tolist()))} {html.escape(name)} {100 * share:.0f} %"
        for name, share in shares[:MOST_NAMED]
    )
    return named + (f", {len(shares) - MOST_NAMED} more" if len(shares) > MOST_NAMED else "")


def _write(segmenter: LoadedSegmenter, found: LabelMap) -> list[str]:
    """Write the label map, one byte per pixel, and the overlay; returns their paths."""
    labels = new_file(segmenter.config.name, "labels.png")
    overlay = labels.with_name(labels.name.replace("labels", "overlay"))
    found.indexed().save(labels)
    found.overlay().save(overlay)
    return [str(labels), str(overlay)]
