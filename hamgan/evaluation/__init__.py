"""Compute FID, Inception Score, KID, precision, recall and figures per class on torch-fidelity's extractors."""

from hamgan.config import METRICS
from hamgan.evaluation.evaluator import check_reference, evaluate
from hamgan.evaluation.features.extractor import FeatureExtractor, load_extractor
from hamgan.evaluation.metrics.class_accuracy import nearest_class_mean
from hamgan.evaluation.protocol import PRESETS, Protocol, make_protocol, protocol_line
from hamgan.evaluation.reference import load_reference, reference_statistics, save_reference
from hamgan.evaluation.statistics import FeatureStatistics, Resources, measure

__all__ = [
    "METRICS",
    "PRESETS",
    "FeatureExtractor",
    "FeatureStatistics",
    "Protocol",
    "Resources",
    "check_reference",
    "evaluate",
    "load_extractor",
    "load_reference",
    "make_protocol",
    "measure",
    "nearest_class_mean",
    "protocol_line",
    "reference_statistics",
    "save_reference",
]
