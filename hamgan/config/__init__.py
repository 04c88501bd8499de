"""Hold the configuration of an experiment in nested typed dataclasses, read from YAML and the command line.

Every field is documented below its definition; ``hamgan train --help`` prints the same text.
"""

from hamgan.config.networks import (
    DiscriminatorConfig,
    GeneratorConfig,
    HamburgerConfig,
    Init,
    NormConfig,
    SpectralNormConfig,
)
from hamgan.config.presets import preset_names, preset_path
from hamgan.config.reading import (
    ConfigReader,
    check_keys,
    config_from_dict,
    config_parser,
    config_to_dict,
    flat_config,
    known_keys,
    load_config,
    load_stored_config,
    parse_config,
    save_config,
)
from hamgan.config.runs import RunConfig
from hamgan.config.schema import (
    FEATURES,
    METRICS,
    OWN_EXTRACTORS,
    BatchNormStatistics,
    CheckpointConfig,
    Config,
    DataConfig,
    EvalConfig,
    MonitorConfig,
    Resizer,
)
from hamgan.config.training import SCHEDULES, ConsistencyConfig, TrainConfig
from hamgan.config.validation import check_intervals, check_metrics, latent_chunks, validate

__all__ = [
    "FEATURES",
    "METRICS",
    "OWN_EXTRACTORS",
    "SCHEDULES",
    "BatchNormStatistics",
    "CheckpointConfig",
    "Config",
    "ConfigReader",
    "ConsistencyConfig",
    "DataConfig",
    "DiscriminatorConfig",
    "EvalConfig",
    "GeneratorConfig",
    "HamburgerConfig",
    "Init",
    "MonitorConfig",
    "NormConfig",
    "Resizer",
    "RunConfig",
    "SpectralNormConfig",
    "TrainConfig",
    "check_intervals",
    "check_keys",
    "check_metrics",
    "config_from_dict",
    "config_parser",
    "config_to_dict",
    "flat_config",
    "known_keys",
    "latent_chunks",
    "load_config",
    "load_stored_config",
    "parse_config",
    "preset_names",
    "preset_path",
    "save_config",
    "validate",
]
