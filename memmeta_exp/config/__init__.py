"""The schema of a run: frozen dataclasses hold types and checks, YAML under conf/ holds the values.

`from_omegaconf` turns what Hydra composed into a `Config`. A wrong configuration raises `ConfigError` before anything
is created; its one line names the key, the range and the fix. The options of each group are defined beside their code
and registered with `register`.
"""

from memmeta_exp.config.components import AlgorithmConfig, BackboneConfig, DatasetConfig, HeadConfig
from memmeta_exp.config.facts import SPLITS, DatasetFacts, channels_and_size
from memmeta_exp.config.fits import check_tasks_fit
from memmeta_exp.config.load import changed, from_dict, from_omegaconf, from_yaml, section
from memmeta_exp.config.older import as_of_today, metrics_of_today, overrides_of_today, progress_of_today
from memmeta_exp.config.paths import absolute, path_keys
from memmeta_exp.config.plugins import plug_in
from memmeta_exp.config.registry import GROUPS, option_class, options, register
from memmeta_exp.config.run import IGNORED_IN_GROUPING, Config, digest, flat, group_digest, to_dict
from memmeta_exp.config.section import Section, option, same_option
from memmeta_exp.config.sections import NESTED, ImagesConfig, MemoryConfig, TrainingConfig
from memmeta_exp.config.validation import closest
from memmeta_exp.utils.errors import ConfigError

__all__ = [
    "GROUPS",
    "IGNORED_IN_GROUPING",
    "NESTED",
    "SPLITS",
    "AlgorithmConfig",
    "BackboneConfig",
    "Config",
    "ConfigError",
    "DatasetConfig",
    "DatasetFacts",
    "HeadConfig",
    "ImagesConfig",
    "MemoryConfig",
    "Section",
    "TrainingConfig",
    "absolute",
    "as_of_today",
    "changed",
    "channels_and_size",
    "check_tasks_fit",
    "closest",
    "digest",
    "flat",
    "from_dict",
    "from_omegaconf",
    "from_yaml",
    "group_digest",
    "metrics_of_today",
    "option",
    "option_class",
    "options",
    "overrides_of_today",
    "path_keys",
    "plug_in",
    "progress_of_today",
    "register",
    "same_option",
    "section",
    "to_dict",
]
