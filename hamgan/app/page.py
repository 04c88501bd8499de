"""The page: three tabs of widgets, whose values go to `hamgan.app.requests` as they were sent."""

import html
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI

from hamgan.app.requests import MOST_ENLARGEMENT, MOST_FRAMES, Request, request_blend, request_samples, request_walk
from hamgan.app.results import Studio
from hamgan.app.turnstile import Turnstile
from hamgan.errors import ConfigError

HERE = Path(__file__).parent
LONGEST_LINE = 16
"""Requests that may wait for their turn."""
MOST_SESSIONS = 100
"""Visitors that Gradio remembers, at some 85 kB each; a forgotten one notices nothing."""
PER_CLASS = 16
"""Where the slider of images per class ends."""
SIDE = 96
"""Pixels that small pictures are enlarged to, about, until the visitor says otherwise."""


def mount_page(app: FastAPI, studio: Studio) -> None:
    """Put the page of a generator at the root of an application; it asks no other host for anything."""
    gr.mount_gradio_app(
        app,
        build_page(studio),
        "/",
        theme=_theme(),
        css=(HERE / "page.css").read_text(),
        js=(HERE / "page.js").read_text(),
        footer_links=[],
        show_error=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        run_history=False,
        pwa=False,
    )


def _theme() -> gr.themes.Base:
    """Fonts of the visitor's system, and colours that stand out against each other by 4.5 to 1 or more."""
    return gr.themes.Base(
        primary_hue="orange", neutral_hue="stone", font=("system-ui", "sans-serif"), font_mono=("ui-monospace",)
    ).set(
        color_accent="*primary_700",
        slider_color="*primary_700",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_hover_dark="*primary_800",
        body_text_color_subdued="*neutral_600",
        block_title_text_color="*neutral_800",
    )


def build_page(studio: Studio) -> gr.Blocks:
    """The page of a generator."""
    name = studio.generator.config.name
    with gr.Blocks(title=f"{name} - HamGAN", analytics_enabled=False) as page:
        page.state_session_capacity = MOST_SESSIONS
        gr.HTML(studio.about())
        widgets = Widgets(page, studio)
        with gr.Tabs():
            for title, build in (("Classes", widgets.classes), ("Blend", widgets.blend), ("Walk", widgets.walk)):
                with gr.Tab(title), gr.Row(elem_classes="workbench"):
                    build()
    return page


class Widgets:
    """What the tabs of a page hold; each is built into the row that is open when it is called."""

    def __init__(self, page: gr.Blocks, studio: Studio) -> None:
        self.page, self.studio, self.turnstile = page, studio, Turnstile(LONGEST_LINE)
        self.choices = studio.choices()

    def classes(self) -> None:
        """Several classes with several seeds; drawn once when the page opens."""
        with _controls():
            names = [name for _, name in self.choices[:3]]
            classes = gr.Dropdown(
                self.choices,
                value=names,
                multiselect=True,
                allow_custom_value=True,
                label="Classes",
                info="names, or numbers such as 3-5",
            )
            seeds, count = _seeds()
            truncation, enlargement = _truncation(), self._enlargement()
            with gr.Row(elem_classes="buttons"):
                button = gr.Button("Draw", variant="primary", min_width=80)
                other = gr.Button("Other seeds", min_width=80)
        changed = other.click(
            None, outputs=seeds, js="() => String(Math.floor(Math.random() * 1e6))", api_visibility="private"
        )
        events = [button.click, seeds.submit, self.page.load, changed.then]
        self._connect(request_samples, events, [classes, seeds, count, truncation, enlargement])

    def blend(self) -> None:
        """Two classes and what lies between them."""
        with _controls():
            first, second = self._class("First class", 0), self._class("Second class", 1)
            percent = gr.Slider(0, 100, 50, step=5, label="Percent of the second class", buttons=[])
            seeds, count = _seeds()
            truncation, enlargement = _truncation(), self._enlargement()
            button = gr.Button("Blend", variant="primary")
        events = [button.click, seeds.submit, percent.release]
        self._connect(request_blend, events, [first, second, percent, seeds, count, truncation, enlargement])

    def walk(self) -> None:
        """From one seed to another, as a strip and a film."""
        with _controls():
            name = self._class("Class", 0)
            first, second = (
                gr.Number(value, label=label, precision=0, minimum=0)
                for value, label in ((0, "First seed"), (1, "Second seed"))
            )
            frames = gr.Slider(2, MOST_FRAMES, 24, step=1, label="Images on the way", buttons=[])
            truncation, enlargement = _truncation(), self._enlargement()
            button = gr.Button("Walk", variant="primary")
        self._connect(request_walk, [button.click], [name, first, second, frames, truncation, enlargement])

    def _class(self, label: str, index: int) -> gr.Dropdown:
        value = self.choices[min(index, len(self.choices) - 1)][1]
        return gr.Dropdown(self.choices, value=value, allow_custom_value=True, label=label)

    def _enlargement(self) -> gr.Slider:
        fitting = max(1, min(MOST_ENLARGEMENT, SIDE // self.studio.generator.config.resolution))
        return gr.Slider(1, MOST_ENLARGEMENT, fitting, step=1, label="Enlargement", buttons=[])

    def _connect(self, ask: Callable[..., Request], events: list[Any], inputs: list[Any]) -> None:
        """Place the outputs, and have every event fill them with what ``ask`` makes of the inputs."""
        with gr.Column(scale=3, min_width=280, elem_classes="output"):
            status = gr.HTML(
                "<p>Enter in a field draws, too.</p>",
                elem_classes="status",
                js_on_load="element.setAttribute('aria-live', 'polite')",
            )
            pictures = gr.HTML()

        def answer(*values: Any) -> tuple[str, Any]:
            return self._answer(ask, values)

        for event in events:
            event(
                answer,
                inputs,
                [status, pictures],
                preprocess=False,  # values arrive as they were sent: all checks are in one place
                queue=False,  # see Turnstile
                trigger_mode="always_last",
                api_visibility="private",
            )

    def _answer(self, ask: Callable[..., Request], values: tuple[Any, ...]) -> tuple[str, Any]:
        """A line about the pictures, and the pictures; or the sentence that says what was wrong, and no change."""
        start = time.perf_counter()
        try:
            request = ask(self.studio.generator, *values)
            with self.turnstile.turn():
                pictures = self.studio.show(request)
        except ConfigError as error:
            return f'<p class="wrong">{html.escape(str(error))}</p>', gr.skip()
        count = len(request.plan.pictures)
        return f"<p>{count} image{'s' * (count > 1)} in {time.perf_counter() - start:.2f} s</p>", pictures


def _controls() -> gr.Column:
    return gr.Column(min_width=280, elem_classes="controls")


def _seeds() -> tuple[gr.Textbox, gr.Slider]:
    seeds = gr.Textbox("0", label="Seeds", info="the first one (7), or all of them (0-3,12)", max_lines=1)
    count = gr.Slider(1, PER_CLASS, 8, step=1, label="Images per class", info="from the first seed on", buttons=[])
    return seeds, count


def _truncation() -> gr.Slider:
    return gr.Slider(0.1, 1, 1, step=0.05, label="Truncation", info="lower: typical, less varied", buttons=[])
