from .config import SegmentationConfig as SegmentationConfig
from .config import load_config as load_config
from .segmenter import Segmenter as Segmenter
from .segmenter import SegmenterNoise as SegmenterNoise
from .segmenter import build_segmenter as build_segmenter
