"""Publish a segmenter, as a folder with its file and a model card or as a hub repository."""

import tempfile
from pathlib import Path

from hamgan.files import JsonObject
from hamgan.networks import count_parameters
from hamgan.sampling.hub import check_login, upload
from hamgan.segmentation.evaluation import describe_scores
from hamgan.segmentation.export import public_header
from hamgan.segmentation.loading import LoadedSegmenter
from hamgan.segmentation.storing import SEGMENTER_FILE, SegmenterHeader, save_segmenter
from hamgan.sharing.folder import new_folder

TASK = "image-segmentation"
MOST_NAMES = 160
"""Largest number of classes that a card lists."""


def save_folder(
    segmenter: LoadedSegmenter, folder: Path, *, name: str | None = None, license: str | None = None
) -> None:
    """Write a new folder with segmenter file, without paths of this machine, and model card, whole or not at all.

    ``license`` is the hub's identifier of the weights' license. Raises ConfigError for a folder that is not empty,
    CheckpointError if it cannot be written.
    """
    with new_folder(folder) as temporary:
        header = public_header(segmenter.header)
        save_segmenter(temporary / SEGMENTER_FILE, segmenter.network, header)
        (temporary / "README.md").write_text(model_card(segmenter, header, name or folder.name, license))


def push_to_hub(
    segmenter: LoadedSegmenter, name: str, *, private: bool | None = None, license: str | None = None
) -> str:
    """Publish the folder of `save_folder` as the repository ``owner/name``; returns its URL.

    Raises CheckpointError without a token or a network, or if the hub refuses.
    """
    check_login(None)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "repository"
        save_folder(segmenter, folder, name=name, license=license)
        return upload(folder, name, private=private, token=None, message="Upload a HamGAN segmenter")


def model_card(segmenter: LoadedSegmenter, header: SegmenterHeader, name: str, license: str | None) -> str:
    """Return the model card of a repository: YAML for the hub, description, usage, and figures with their protocol."""
    from huggingface_hub import ModelCard

    config, title = header.config, name.rpartition("/")[2]
    seen = "not recorded" if header.kimg is None else f"{1000 * header.kimg:,.0f}"
    names = segmenter.class_names[:MOST_NAMES]
    more = f" and {segmenter.network.classes - len(names)} more" if segmenter.network.classes > len(names) else ""
    figures = [_figures(row) for row in header.evaluations] or ["None: no evaluation of these weights is recorded."]
    text = f"""---
{_metadata(title, license)}
---

# {title}

A segmenter for HamGAN: {config.encoder.kind} {config.encoder.name} with the head {config.head.kind}, context
{config.head.context}, {segmenter.network.classes} classes, {count_parameters(segmenter.network):,} parameters.

## Label pictures

```python
import hamgan

segmenter = hamgan.load_segmenter("{name}")
found = segmenter("picture.jpg")[0]
found.overlay().save("overlay.png")
```

Classes: {"; ".join(names)}{more}.

## Training

Data: {config.data.source}. Images seen: {seen}.

## Figures

{"".join(figures)}

## Licence

{license or "Not stated. Ask whoever published these weights, and mind the terms of the training data."}
"""
    return str(ModelCard(text)) + "\n"  # reads the YAML as the hub will


def _metadata(title: str, license: str | None) -> str:
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        license=license or "unknown",
        library_name="hamgan",
        pipeline_tag=TASK,
        tags=["semantic-segmentation", "hamburger", "matrix-decomposition"],
        model_name=title,
    )
    return str(data.to_yaml())


def _figures(row: JsonObject) -> str:
    return f"{describe_scores(row)}\n\nProtocol: {row['protocol']}.\n\n"
