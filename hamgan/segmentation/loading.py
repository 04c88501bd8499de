"""Load segmenters from run folders, segmenter files and hub repositories."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from hamgan.errors import CheckpointError
from hamgan.networks import count_parameters
from hamgan.sampling.generator import find_device
from hamgan.sampling.places import check_place
from hamgan.segmentation.data.source import make_palette
from hamgan.segmentation.predict import LabelMap, Picture, label, read_picture
from hamgan.segmentation.schema import EvalConfig
from hamgan.segmentation.segmenter import Segmenter
from hamgan.segmentation.storing import SEGMENTER_FILE, SegmenterHeader, load_segmenter_file


class LoadedSegmenter:
    """Segment images with a network in evaluation mode.

    ``header`` has the configuration, class names, colours and evaluations of its file, ``source`` its path or hub name.
    """

    def __init__(self, network: Segmenter, header: SegmenterHeader, source: str = "") -> None:
        self.network, self.header, self.source = network, header, source
        self.config = header.config

    def __repr__(self) -> str:
        facts = [f"{self.network.classes} classes", f"{count_parameters(self.network):,} parameters"]
        facts += [] if self.header.kimg is None else [f"at {self.header.kimg:g} kimg"]
        return f"<{type(self).__name__} {self.config.name}: {', '.join([*facts, str(self.device)])}>"

    @property
    def device(self) -> torch.device:
        """Return the device of the network."""
        return next(self.network.parameters()).device

    @property
    def class_names(self) -> list[str]:
        """Return a name per class, or its index if it has none."""
        return self.header.class_names or list(map(str, range(self.network.classes)))

    @property
    def palette(self) -> np.ndarray:
        """Return the colours of the classes, uint8 [classes, 3]."""
        known = self.header.palette
        return make_palette(self.network.classes) if known is None else np.asarray(known, np.uint8)

    def __call__(
        self,
        images: Picture | Iterable[Picture],
        scales: Sequence[float] | None = None,
        flip: bool | None = None,
        *,
        bases_seed: int = 0,
        settings: EvalConfig | None = None,
    ) -> list[LabelMap]:
        """Segment PIL images, arrays uint8 [H, W, 3] or files, of any sizes; a single one gives a list of one.

        ``scales`` are scales whose probabilities are averaged, ``flip`` adds mirrored images, and ``settings`` has all
        other options; None takes the values of the run's ``eval`` section. Raises DataError for a file that is no
        image.
        """
        settings = settings or self.config.eval
        if scales is not None:
            settings = replace(settings, scales=list(scales))
        if flip is not None:
            settings = replace(settings, flip=flip)
        pictures = [images] if isinstance(images, Picture) else images
        return [self.label(picture, settings, bases_seed) for picture in pictures]

    def label(self, picture: Picture, settings: EvalConfig, bases_seed: int = 0) -> LabelMap:
        """Segment one picture."""
        return label(self.network, read_picture(picture), settings, self.class_names, self.palette, bases_seed)


def load_segmenter(
    path_or_hub: str | Path,
    device: str | torch.device | None = None,
    *,
    revision: str | None = None,
    token: str | None = None,
) -> LoadedSegmenter:
    """Load a run folder, a ``segmenter.safetensors`` or a hub's ``owner/name`` to segment images.

    On a hub, ``revision`` is a branch, tag or commit, ``token`` replaces that of `hf auth login`. Raises
    CheckpointError naming the path and what is wrong with it, ConfigError for a device that cannot be used.
    """
    check_place(path_or_hub)
    place = Path(path_or_hub)
    if not place.exists():
        from hamgan.sampling.hub import download

        place = download(str(path_or_hub), revision, token, (SEGMENTER_FILE,))
    if place.is_dir():
        if not (place / SEGMENTER_FILE).is_file():
            raise CheckpointError(f"{place} is not the folder of a segmenter's run: it has no {SEGMENTER_FILE}")
        place /= SEGMENTER_FILE
    network, header = load_segmenter_file(place)
    network.to(None if device is None else find_device(device))
    return LoadedSegmenter(network, header, str(path_or_hub))
