"""The schema of a run: frozen dataclasses that hold types and checks. YAML under conf/ holds the values.

`from_omegaconf` turns what Hydra composed into a `Config`; everything a user can get wrong in a configuration is a
`ConfigError` from here, in one line that says the key, the rule and the fix, before anything has been created.
"""

from memmeta_exp.config.algorithms import BaselineConfig, ImamlConfig, ProposedConfig, UnrolledConfig
from memmeta_exp.config.backbones import Conv4Config, Resnet12Config, TimmConfig, WideResnetConfig
from memmeta_exp.config.datasets import (
    CifarFsConfig,
    Fc100Config,
    FolderConfig,
    GlyphsConfig,
    MiniImagenetConfig,
    OmniglotConfig,
    SyntheticConfig,
    TieredImagenetConfig,
)
from memmeta_exp.config.facts import SPLITS, DatasetFacts, channels_and_size
from memmeta_exp.config.fits import check_tasks_fit
from memmeta_exp.config.heads import CosineHeadConfig, LinearHeadConfig, RidgeHeadConfig
from memmeta_exp.config.load import changed, from_dict, from_omegaconf, from_yaml, section
from memmeta_exp.config.older import as_of_today
from memmeta_exp.config.paths import absolute, path_keys
from memmeta_exp.config.problems import LinearConfig, LogisticConfig, NoBackboneConfig, QuadraticConfig
from memmeta_exp.config.regression import MlpConfig, RegressionHeadConfig, SinusoidConfig
from memmeta_exp.config.run import IGNORED_IN_GROUPING, SECTIONS, Config, digest, flat, group_digest, to_dict
from memmeta_exp.config.sections import NESTED, ImagesConfig, MemoryConfig, TrainingConfig
from memmeta_exp.config.validation import closest
from memmeta_exp.utils.errors import ConfigError

__all__ = [
    "NESTED",
    "IGNORED_IN_GROUPING",
    "SECTIONS",
    "SPLITS",
    "BaselineConfig",
    "CifarFsConfig",
    "Config",
    "ConfigError",
    "Conv4Config",
    "CosineHeadConfig",
    "DatasetFacts",
    "Fc100Config",
    "FolderConfig",
    "GlyphsConfig",
    "ImagesConfig",
    "ImamlConfig",
    "LinearConfig",
    "LinearHeadConfig",
    "LogisticConfig",
    "MemoryConfig",
    "MiniImagenetConfig",
    "MlpConfig",
    "NoBackboneConfig",
    "OmniglotConfig",
    "ProposedConfig",
    "QuadraticConfig",
    "RegressionHeadConfig",
    "Resnet12Config",
    "RidgeHeadConfig",
    "SinusoidConfig",
    "SyntheticConfig",
    "TieredImagenetConfig",
    "TimmConfig",
    "TrainingConfig",
    "UnrolledConfig",
    "WideResnetConfig",
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
    "path_keys",
    "section",
    "to_dict",
]
