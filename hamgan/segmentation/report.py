"""Describe a segmenter's run for the HTML report."""

from hamgan.files import JsonObject
from hamgan.segmentation.config import SEGMENTATION
from hamgan.segmentation.evaluation import scores
from hamgan.segmentation.schema import SegmentationConfig
from hamgan.tracking.html.report import Kind


def _facts(config: SegmentationConfig) -> dict[str, str]:
    encoder, head = config.encoder, config.head
    hamburger = f"{head.hamburger.decomposition}, rank {head.hamburger.rank}, K {head.hamburger.steps}"
    return {
        "network": f"{encoder.kind} {encoder.name} with {head.kind}",
        "context": "none" if head.context == "none" else hamburger,
        "crop": f"{config.augment.crop} px",
    }


def _error(row: JsonObject) -> float | None:
    return -float(row["miou"]) if isinstance(row.get("miou"), float) else None


OF_A_SEGMENTER = Kind(
    reader=SEGMENTATION,
    facts=_facts,
    numbers=lambda row: scores(row) if "miou" in row else {},
    score=_error,
    best="highest mIoU",
    size=("images", "pixels"),
    evaluate="hamgan segment evaluate",
    demo="Pictures that the run has not seen, their labels, and the predictions.",
)
