"""Build the web page of a generator: four tabs of widgets, and the drawing behind them."""

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

from hamgan.app.requests import check_size, plan_blend, plan_classes, plan_walk, read_picture
from hamgan.errors import ConfigError
from hamgan.evaluation.report import describe_numbers, other_protocols
from hamgan.inversion.optimise import invert
from hamgan.networks import count_parameters
from hamgan.sampling import LoadedGenerator, Plan, PlannedImage
from hamgan.sampling.animation import write_film
from hamgan.sampling.plan import draw
from hamgan.sampling.sheets import draw_sheet, to_pil, visible_scale

FRAMES_PER_SECOND = 20
COLUMNS = 8
"""Images per row; a walk shows its animation and at most these."""
LONGEST_QUEUE = 16
"""Largest number of waiting requests."""
FILES_LAST = 600
"""Seconds for which Gradio keeps the pictures that it serves."""
PICTURE_SIDE = 512
"""Largest side, in pixels, of a picture to search for, to which the page shrinks it before sending."""
STEPS, RESTARTS, SAMPLES = 150, 4, 32
"""Settings of the search for a picture: half the steps and restarts of `hamgan invert`."""

# Fonts of the visitor's system, and colours with a contrast of at least 4.5 to 1.
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
STYLE: dict[str, Any] = {"theme": THEME, "css_paths": Path(__file__).with_name("page.css")}
# In the head, because Gradio 6.24 does not run its argument ``js``.
STYLE["head"] = f"<script>({Path(__file__).with_name('page.js').read_text()})()</script>"


def build_page(generator: LoadedGenerator) -> gr.Blocks:
    """Return the page of a generator, which draws one request at a time and refuses more if the queue is full."""
    title = f"{generator.config.name} - HamGAN"
    page = gr.Blocks(title=title, analytics_enabled=False, delete_cache=(60, FILES_LAST))
    with page:
        gr.HTML(describe(generator))
        for verb, (name, plan, widgets) in TABS.items():
            with gr.Tab(name) as tab, gr.Row():
                _build_tab(generator, verb, plan, widgets, page, tab)
        with gr.Tab("Find"), gr.Row():
            _build_search(generator)
    page.queue(max_size=LONGEST_QUEUE, default_concurrency_limit=1, api_open=False)
    return page


def describe(generator: LoadedGenerator) -> str:
    """Return HTML that describes the generator."""
    config, row = generator.config, generator.evaluations[0] if generator.evaluations else {}
    facts = [f"{config.resolution} × {config.resolution} pixels", f"{generator.num_classes} classes"]
    facts += [] if generator.kimg is None else [f"{generator.kimg:,g} thousand images seen"]
    facts += [f"{count_parameters(generator.network):,} parameters" + " (average of G)" * generator.is_average]
    text = f"<h1>{html.escape(config.name)}</h1><p>{' · '.join(facts)}</p>"
    if row:
        summary, *rest = [*describe_numbers({"extractor": ""} | row), f"Protocol: {row['protocol']}"]
        rest += [f"Protocol of {title}: {line}" for title, line in other_protocols(row).items()]
        more = "".join(f"<p>{html.escape(line)}</p>" for line in rest)
        text += f"<details><summary>Evaluation: {html.escape(summary)}</summary>{more}</details>"
    return f"<header>{text}</header>"


def _build_tab(
    generator: LoadedGenerator,
    verb: str,
    plan: Callable[..., Plan],
    widgets: Callable[[list[tuple[str, str]]], list[Any]],
    page: gr.Blocks,
    tab: gr.Tab,
) -> None:
    """Build a tab of widgets, a button and results, which draws the plan of its values once it becomes visible."""
    resolution = generator.config.resolution
    with gr.Column(min_width=280, elem_classes="controls"):
        inputs = widgets([(title, f"#{index}") for index, title in enumerate(generator.titles)])
        inputs += [
            gr.Slider(0.1, 1, 1, step=0.05, label="Truncation", info="lower: typical, less varied"),
            gr.Slider(1, 8, min(8, visible_scale(resolution)), precision=0, label="Enlargement", info="of downloads"),
        ]
        with gr.Row():
            button = gr.Button(verb, variant="primary", size="md", min_width=80)
            seeds = [widget for widget in inputs if isinstance(widget, gr.Textbox)]
            other_seeds = gr.Button("Other seeds", size="md", min_width=80, visible=bool(seeds))
    outputs = build_results()

    def answer(*values: Any) -> tuple[str, gr.Gallery, list[str]]:
        start = time.perf_counter()
        try:
            planned = plan(generator, *values[:-1])
            gallery, files = draw_plan(generator, planned, verb.lower(), values[-1])
        except ConfigError as error:
            # Gradio shows messages as HTML, and this one may quote input of the visitor.
            raise gr.Error(html.escape(str(error)), print_exception=False) from error
        count = len(planned.images)
        return f"{count} image{'s' * (count > 1)} in {time.perf_counter() - start:.2f} s", gallery, files

    keep = f"(...values) => keepState({verb!r}, values)"
    draws: dict[str, Any] = {"fn": answer, "inputs": inputs, "outputs": outputs, "show_progress_on": outputs[0]}
    draws |= {"concurrency_id": "draw", "trigger_mode": "always_last", "api_visibility": "private", "js": keep}
    submits = [widget.submit for widget in inputs if isinstance(widget, (gr.Textbox, gr.Number))]
    moves = [widget.input for widget in inputs if isinstance(widget, gr.Slider)]
    gr.on([button.click, *submits, *moves], **draws)
    changed = other_seeds.click(lambda: str(random.randrange(10**6)), None, seeds[:1], api_visibility="private")
    changed.then(**draws)
    # A page opens with the values in its address; the open tab draws at once, the others when they are selected.
    name, is_first = TABS[verb][0], verb == next(iter(TABS))
    choose = f"[...document.querySelectorAll('[role=tab]')].find(tab => tab.textContent.trim() === {name!r}).click()"
    restore = f"(...values) => {{ const kept = stateOf({verb!r}); if (kept && {str(not is_first).lower()}) {choose};"
    restored = page.load(None, inputs, inputs, js=restore + " return kept ?? values; }", api_visibility="private")
    if is_first:
        keep_if_open = f"(...values) => opensElsewhere({verb!r}) ? values : keepState({verb!r}, values)"
        restored.then(**draws | {"js": keep_if_open})
        # Gradio itself selects this tab before it loads the page; it must not draw twice.
        tab.select(None, inputs, None, js=keep, api_visibility="private")
    else:
        tab.select(**draws)


def build_picture(text: str) -> gr.Textbox:
    """Add a file field with a text below it; returns the component that holds the file as a ``data:`` URL."""
    field = '<label>Picture <input type="file" accept="image/*" aria-label="Picture"></label>'
    gr.HTML(f"{field}<p>{text}</p>", elem_id="picture")
    return gr.Textbox(visible=False)


def build_results(*classes: str) -> list[Any]:
    """Add the results of a tab: a line of text, the pictures, files to download.

    ``classes`` are of the style sheet: ``on-demand`` hides empty results, ``large`` is for large pictures.
    """
    with gr.Column(scale=3, min_width=280, elem_classes=["results", *classes]):
        line = gr.Markdown(elem_classes="status")
        pictures = gr.Gallery(
            show_label=False,
            format="png",
            fit_columns=False,
            height="auto",
            interactive=False,
            buttons=[],
            elem_classes="pictures",
        )
        return [line, pictures, gr.Files(label="Downloads", interactive=False)]


def _build_search(generator: LoadedGenerator) -> None:
    """Add a field for a picture, and search for the latent and the class whose image is nearest to it."""
    with gr.Column(min_width=280, elem_classes="controls"):
        address = build_picture(
            "Its middle is compared with generated images; the nearest one is found in some seconds."
        )
        button = gr.Button("Find", variant="primary", size="md", min_width=80)
    outputs = build_results("on-demand")

    def answer(text: str) -> tuple[str, gr.Gallery, list[str]]:
        start = time.perf_counter()
        try:
            target = read_picture(generator, text)
        except ConfigError as error:
            raise gr.Error(html.escape(str(error)), print_exception=False) from error
        (found,) = invert(generator, target, steps=STEPS, restarts=RESTARTS, samples=SAMPLES)
        name = generator.titles[found.label]
        titles = ["the picture", f"the nearest image, {name}", f"the nearest of {SAMPLES} seeds, {name}"]
        rows = torch.stack([target[0], found.image, found.baseline])
        sheet = new_file(generator.config.name, "find.png")
        draw_sheet([rows], [""], columns=["picture", "found", f"seed {found.baseline_seed}"]).save(sheet)
        gallery = gr.Gallery(list(zip(to_pil(rows), titles, strict=True)), columns=3)
        return f"{name}, in {time.perf_counter() - start:.1f} s", gallery, [str(sheet)]

    read = f"async () => [await readPicture({PICTURE_SIDE}, true)]"
    settings: dict[str, Any] = {"concurrency_id": "draw", "api_visibility": "private", "js": read}
    button.click(answer, address, outputs, show_progress_on=outputs[0], **settings)


def new_file(run: str, ending: str) -> Path:
    """Return a path, named by the run, in a new folder that Gradio serves from and cleans up."""
    stem = re.sub(r"\W+", "-", run).strip("-")[:40] or "hamgan"
    return Path(tempfile.mkdtemp(dir=gr.utils.get_upload_folder())) / f"{stem}-{ending}"


def draw_plan(generator: LoadedGenerator, plan: Plan, kind: str, enlargement: int) -> tuple[gr.Gallery, list[str]]:
    """Return pictures with names, and files to download: a labelled sheet, and for a walk its animation."""
    count = len(plan.images)
    check_size(plan, 2 * (count - 1) if kind == "walk" else count, generator.config.resolution * enlargement)
    images = torch.cat([batch for _, batch in draw(generator, plan.images)])
    rows, planned = list(images.split(len(plan.rows[0]))), plan.rows
    pictures: list[Any] = []
    sheet = new_file(generator.config.name, f"{kind}.png")
    film = sheet.with_suffix(".gif")
    if kind == "walk":
        frames = torch.cat([images, images[1:-1].flip(0)]).permute(0, 2, 3, 1).numpy()
        write_film(frames[None], film, FRAMES_PER_SECOND, enlargement)
        pictures.append((str(film), f"{plan.titles[0]}, film there and back"))
        shown = np.unique(np.linspace(0, len(images) - 1, COLUMNS - 1).round().astype(int)).tolist()
        rows, planned = [images[shown]], [[plan.images[index] for index in shown]]
    for title, row, row_plan in zip(plan.titles, rows, planned, strict=True):
        pictures += [(image, f"{title}, {_name(one)}") for image, one in zip(to_pil(row), row_plan, strict=True)]
    columns = [_name(one) for one in planned[0]]
    draw_sheet(rows, plan.titles, columns=columns, scale=enlargement).save(sheet)
    gallery = gr.Gallery(pictures, columns=min(len(pictures) // len(plan.rows), COLUMNS))
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


TABS: dict[str, tuple[str, Callable[..., Plan], Callable[[list[tuple[str, str]]], list[Any]]]] = {
    "Draw": ("Classes", plan_classes, _class_widgets),
    "Blend": ("Blend", plan_blend, _blend_widgets),
    "Walk": ("Walk", plan_walk, _walk_widgets),
}
"""Label of a tab's button -> (name of the tab, function that plans its pictures, function that makes its widgets)."""
