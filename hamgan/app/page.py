"""Build the page: three tabs of widgets, and what their buttons draw."""

import html
import random
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import torch

from hamgan.app.requests import check_size, plan_blend, plan_classes, plan_walk
from hamgan.errors import ConfigError
from hamgan.evaluation.report import describe_numbers
from hamgan.networks import count_parameters
from hamgan.sampling import LoadedGenerator, Plan, PlannedImage
from hamgan.sampling.animation import write_film
from hamgan.sampling.classes import unique_names
from hamgan.sampling.plan import draw
from hamgan.sampling.sheets import draw_sheet, to_pil

FRAMES_PER_SECOND = 20
COLUMNS = 8
"""Images side by side; of a walk the film and no others but these are shown."""
LONGEST_QUEUE = 16
"""Requests that may wait for their turn."""
FILES_LAST = 600
"""Seconds that Gradio keeps the pictures that it serves."""
SCRIPT = """() => {
  const annotate = () => {
    document.querySelectorAll(".status").forEach(status => status.ariaLive = "polite");
    document.querySelectorAll(".pictures button > img").forEach(image => image.parentElement.ariaLabel = image.alt);
  };
  new MutationObserver(annotate).observe(document.body, {childList: true, subtree: true, attributeFilter: ["alt"]});
  document.addEventListener("click", event => {
    const controls = matchMedia("(max-width: 40rem)").matches && event.target.closest(".controls button.md")
      ?.closest(".controls");
    if (controls) controls.nextElementSibling.scrollIntoView();
  });
}"""
"""Script for what Gradio has no means for: it calls a picture of a gallery "Thumbnail 1 of 24", announces no change of
a text, and on a phone does not go to the pictures, which are below the buttons there."""

# Fonts of the visitor's system, and colours that stand out against each other by 4.5 to 1 or more.
THEME = gr.themes.Base(primary_hue="orange", neutral_hue="stone", font="system-ui", font_mono="ui-monospace").set(
    color_accent="*primary_700",
    slider_color="*primary_700",
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_hover_dark="*primary_800",
    body_text_color_subdued="*neutral_600",
    block_title_text_color="*neutral_800",
)
STYLE: dict[str, Any] = {"theme": THEME, "css_paths": Path(__file__).with_name("page.css"), "js": SCRIPT}


def build_page(generator: LoadedGenerator) -> gr.Blocks:
    """Return the page of a generator; one request is drawn at a time, and a full queue refuses more."""
    title = f"{generator.config.name} - HamGAN"
    page = gr.Blocks(title=title, analytics_enabled=False, delete_cache=(60, FILES_LAST))
    with page:
        gr.HTML(describe(generator))
        with gr.Tab("Classes"), gr.Row():
            _build_tab(generator, "Draw", plan_classes, _class_widgets, page)
        with gr.Tab("Blend"), gr.Row():
            _build_tab(generator, "Blend", plan_blend, _blend_widgets)
        with gr.Tab("Walk"), gr.Row():
            _build_tab(generator, "Walk", plan_walk, _walk_widgets)
    page.queue(max_size=LONGEST_QUEUE, default_concurrency_limit=1, api_open=False)
    return page


def describe(generator: LoadedGenerator) -> str:
    """Return HTML that says what is loaded."""
    config, row = generator.config, generator.evaluations[-1] if generator.evaluations else {}
    facts = [f"{config.resolution} × {config.resolution} pixels", f"{generator.num_classes} classes"]
    facts += [] if generator.kimg is None else [f"{generator.kimg:,g} thousand images seen"]
    facts += [f"{count_parameters(generator.network):,} parameters" + " (average of G)" * generator.is_average]
    text = f"<h1>{html.escape(config.name)}</h1><p>{' · '.join(facts)}</p>"
    if row:
        summary, *rest = [*describe_numbers({"extractor": ""} | row), f"Protocol: {row['protocol']}"]
        more = "".join(f"<p>{html.escape(line)}</p>" for line in rest)
        text += f"<details><summary>Evaluation: {html.escape(summary)}</summary>{more}</details>"
    return f"<header>{text}</header>"


def _build_tab(
    generator: LoadedGenerator,
    verb: str,
    plan: Callable[..., Plan],
    widgets: Callable[[list[tuple[str, str]]], list[Any]],
    page: gr.Blocks | None = None,
) -> None:
    """Place widgets, a button and results, and draw what ``plan`` makes of the values, for a page as it opens, too."""
    resolution = generator.config.resolution
    with gr.Column(min_width=280, elem_classes="controls"):
        names = unique_names(generator.class_names, generator.num_classes)
        inputs = widgets(list(zip(generator.titles, names, strict=True)))
        inputs += [
            gr.Slider(0.1, 1, 1, step=0.05, label="Truncation", info="lower: typical, less varied"),
            gr.Slider(1, 8, max(1, min(8, 96 // resolution)), precision=0, label="Enlargement", info="of downloads"),
        ]
        with gr.Row():
            button = gr.Button(verb, variant="primary", size="md", min_width=80)
            seeds = [widget for widget in inputs if isinstance(widget, gr.Textbox)]
            other_seeds = gr.Button("Other seeds", size="md", min_width=80, visible=bool(seeds))
    with gr.Column(scale=3, min_width=280, elem_classes="results"):
        outputs = [
            gr.Markdown(elem_classes="status"),
            gr.Gallery(
                show_label=False,
                format="png",
                fit_columns=False,
                height="auto",
                interactive=False,
                buttons=[],
                elem_classes="pictures",
            ),
            gr.Files(label="Downloads", interactive=False),
        ]

    def answer(*values: Any) -> tuple[str, gr.Gallery, list[str]]:
        start = time.perf_counter()
        try:
            planned = plan(generator, *values[:-1])
            gallery, files = draw_plan(generator, planned, verb.lower(), values[-1])
        except ConfigError as error:
            # Gradio shows a message as HTML, and this one may quote what a visitor has sent.
            raise gr.Error(html.escape(str(error)), print_exception=False) from error
        count = len(planned.images)
        return f"{count} image{'s' * (count > 1)} in {time.perf_counter() - start:.2f} s", gallery, files

    draws: dict[str, Any] = {"fn": answer, "inputs": inputs, "outputs": outputs, "show_progress_on": outputs[0]}
    draws |= {"concurrency_id": "draw", "trigger_mode": "always_last", "api_visibility": "private"}
    submits = [widget.submit for widget in inputs if isinstance(widget, (gr.Textbox, gr.Number))]
    gr.on([button.click, *submits], **draws)
    changed = other_seeds.click(lambda: str(random.randrange(10**6)), None, seeds[:1], api_visibility="private")
    changed.then(**draws)
    if page:
        page.load(**draws)


def draw_plan(generator: LoadedGenerator, plan: Plan, kind: str, enlargement: int) -> tuple[gr.Gallery, list[str]]:
    """Return pictures with their names, and files to download: a labelled sheet, of a walk the film there and back."""
    count = len(plan.images)
    check_size(plan, 2 * (count - 1) if kind == "walk" else count, generator.config.resolution * enlargement)
    images = torch.cat([batch for _, batch in draw(generator, plan.images)])
    rows, planned = list(images.split(len(plan.rows[0]))), plan.rows
    pictures: list[Any] = []
    folder = Path(tempfile.mkdtemp(dir=gr.utils.get_upload_folder()))  # Gradio serves from there, and empties it
    stem = re.sub(r"\W+", "-", generator.config.name).strip("-")[:40] or "hamgan"
    film, sheet = folder / f"{stem}-{kind}.gif", folder / f"{stem}-{kind}.png"
    if kind == "walk":
        frames = torch.cat([images, images[1:-1].flip(0)]).permute(0, 2, 3, 1).numpy()
        write_film(frames[None], film, FRAMES_PER_SECOND, enlargement)
        pictures.append((str(film), f"{plan.titles[0]}, film there and back"))
        shown = np.unique(np.linspace(0, len(images) - 1, COLUMNS - 1).round().astype(int)).tolist()
        rows, planned = [images[shown]], [[plan.images[index] for index in shown]]
    for title, row, row_plan in zip(plan.titles, rows, planned, strict=True):
        pictures += [(image, f"{title}, {_name(one)}") for image, one in zip(to_pil(row), row_plan, strict=True)]
    draw_sheet(rows, plan.titles, scale=enlargement).save(sheet)
    gallery = gr.Gallery(pictures, columns=min(len(plan.rows[0]), COLUMNS))
    return gallery, [str(file) for file in (film, sheet) if file.exists()]


def _name(image: PlannedImage) -> str:
    if image.next_seed is None or image.fraction == 0:
        return f"seed {image.seed}"
    return f"seed {image.next_seed}" if image.fraction == 1 else f"{100 * image.fraction:.0f} %"


def _class_widgets(choices: list[tuple[str, str]]) -> list[gr.Component]:
    first = [value for _, value in choices[:3]]
    info = "names, or numbers such as 3-5"
    classes = gr.Dropdown(choices, value=first, multiselect=True, allow_custom_value=True, label="Classes", info=info)
    return [classes, *_seed_widgets()]


def _blend_widgets(choices: list[tuple[str, str]]) -> list[gr.Component]:
    names = ("First class", "Second class")
    classes = [_one_class(choices, label, index) for index, label in enumerate(names)]
    return [*classes, gr.Slider(0, 100, 50, step=5, label="Percent of the second class"), *_seed_widgets()]


def _walk_widgets(choices: list[tuple[str, str]]) -> list[gr.Component]:
    name = _one_class(choices, "Class", 0)
    seeds = [
        gr.Number(value, label=label, precision=0, minimum=0, maximum=2**53 - 1)  # browsers count exactly no further
        for value, label in enumerate(("First seed", "Second seed"))
    ]
    return [name, *seeds, gr.Slider(2, 60, 24, precision=0, step=1, label="Images on the way")]


def _one_class(choices: list[tuple[str, str]], label: str, index: int) -> gr.Dropdown:
    return gr.Dropdown(choices, value=choices[min(index, len(choices) - 1)][1], allow_custom_value=True, label=label)


def _seed_widgets() -> list[gr.Component]:
    seeds = gr.Textbox("0", label="Seeds", info="the first one (7), or all of them (0-3,12)", max_lines=1)
    count = gr.Slider(1, 16, 8, step=1, precision=0, label="Images per class", info="from the first seed on")
    return [seeds, count]
