"""From a checked request to what the page shows: pictures with names for eyes and screen readers, and downloads."""

import io
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hamgan.app.files import MadeFiles
from hamgan.app.requests import Request
from hamgan.errors import ConfigError
from hamgan.evaluation.report import describe_numbers
from hamgan.networks import count_parameters
from hamgan.sampling import LoadedGenerator, Picture
from hamgan.sampling.animation import write_film
from hamgan.sampling.plan import draw
from hamgan.sampling.sheets import draw_sheet, to_pil

FRAMES_PER_SECOND = 20
STRIP = 8
"""Images of a walk that are shown side by side."""
TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("hamgan.app", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
)


@dataclass(frozen=True)
class Shown:
    """A picture on the page: where it is, what it is, and what stands below it."""

    file: str
    description: str
    caption: str


@dataclass(frozen=True)
class Download:
    """A link: to which file, the name that it is saved under, the words of the link."""

    file: str
    name: str
    words: str


class Studio:
    """A generator with the files that it made."""

    def __init__(self, generator: LoadedGenerator, files: MadeFiles) -> None:
        self.generator, self.files = generator, files
        self._stem = re.sub(r"\W+", "-", generator.config.name).strip("-")[:40] or "hamgan"

    def about(self) -> str:
        """HTML: what is loaded."""
        generator = self.generator
        row = generator.evaluations[-1] if generator.evaluations else {}
        return TEMPLATES.get_template("about.html").render(
            name=generator.config.name,
            resolution=generator.config.resolution,
            classes=generator.num_classes,
            kimg=generator.kimg,
            parameters=count_parameters(generator.network),
            average=generator.is_average,
            numbers=describe_numbers({"extractor": ""} | row),
            protocol=row.get("protocol"),
        )

    def choices(self) -> list[tuple[str, str]]:
        """Of every class what the visitor reads, and what the page sends: its number where its name is ambiguous."""
        found = []
        for index, title in enumerate(self.generator.titles):
            try:
                clear = self.generator.class_index(title) == index
            except ConfigError:
                clear = False
            found.append((title, title) if clear else (f"{title} ({index})", str(index)))
        return found

    def show(self, request: Request) -> str:
        """HTML: the pictures that were asked for, with files to download."""
        rows = self._draw(request)
        return self._show_walk(request, rows[0]) if request.kind == "walk" else self._show_sheet(request, rows)

    def _show_sheet(self, request: Request, rows: list[Tensor]) -> str:
        shown = [
            (title, [self._shown(image, picture, title) for image, picture in zip(to_pil(row), pictures, strict=True)])
            for title, row, pictures in zip(request.plan.titles, rows, request.plan.rows, strict=True)
        ]
        sheet = draw_sheet(rows, request.plan.titles, scale=request.enlargement)
        words = "Download the labelled sheet (PNG)"
        return self._render(request, rows=shown, downloads=[self._download(request, self._keep(sheet), words)])

    def _show_walk(self, request: Request, images: Tensor) -> str:
        """A film there and back, and a strip of images on the way."""
        (pictures,), (title,) = request.plan.rows, request.plan.titles
        chosen = np.unique(np.linspace(0, len(images) - 1, STRIP).round().astype(int)).tolist()
        strip = images[chosen]
        shown = [self._shown(image, pictures[at], title) for image, at in zip(to_pil(strip), chosen, strict=True)]
        film = self.files.add(self._film(images, request.enlargement), "gif")
        sheet = self._keep(draw_sheet([strip], [title], scale=request.enlargement))
        downloads = [
            self._download(request, film, "Download the film (GIF)"),
            self._download(request, sheet, "Download the strip (PNG)"),
        ]
        return self._render(request, rows=[(title, shown)], downloads=downloads, film=film)

    def _download(self, request: Request, file: str, words: str) -> Download:
        return Download(file, f"{self._stem}-{request.kind}.{file[-3:]}", words)

    def _draw(self, request: Request) -> list[Tensor]:
        """Rows of uint8 images [n, 3, H, W]."""
        images = torch.cat([batch for _, batch in draw(self.generator, request.plan.pictures)])
        return list(images.split([len(row) for row in request.plan.rows]))

    def _shown(self, image: Image.Image, picture: Picture, title: str) -> Shown:
        return Shown(self._keep(image), f"{title}, {_caption(picture)}", _caption(picture))

    def _keep(self, image: Image.Image) -> str:
        file = io.BytesIO()
        image.save(file, "PNG", compress_level=1)
        return self.files.add(file.getvalue(), "png")

    def _film(self, images: Tensor, scale: int) -> bytes:
        """A GIF through images [n, 3, H, W] and back, without an end."""
        there_and_back = torch.cat([images, images[1:-1].flip(0)]).permute(0, 2, 3, 1).numpy()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "film.gif"
            write_film(there_and_back[None], path, FRAMES_PER_SECOND, scale)
            return path.read_bytes()

    def _render(self, request: Request, **values: object) -> str:
        side = self.generator.config.resolution * request.enlargement
        return TEMPLATES.get_template("results.html").render(side=side, **values)


def _caption(picture: Picture) -> str:
    if picture.next_seed is None or picture.fraction == 0:
        return f"seed {picture.seed}"
    return f"seed {picture.next_seed}" if picture.fraction == 1 else f"{100 * picture.fraction:.0f} %"
