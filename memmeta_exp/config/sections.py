"""The sections of a run's configuration: one dataclass for each option of each config group."""

from dataclasses import dataclass, field

from memmeta_exp.config.algorithms import BaselineConfig, ImamlConfig, ProposedConfig, UnrolledConfig
from memmeta_exp.config.backbones import BACKBONES
from memmeta_exp.config.datasets import DATASETS
from memmeta_exp.config.heads import HEADS
from memmeta_exp.config.regression import REGRESSION, MlpConfig
from memmeta_exp.config.validation import at_least, at_most, below, one_of
from memmeta_exp.utils.errors import ConfigError


@dataclass(frozen=True)
class MemoryConfig:
    """What is computed twice, or in parts, to keep less. The keys' meanings: conf/config.yaml."""

    mode: str = "task"
    checkpoint: str = "none"
    budget_mib: float | None = None

    def __post_init__(self) -> None:
        one_of("memory.mode", self.mode, ("task", "half_task"))
        one_of("memory.checkpoint", self.checkpoint, ("none", "inner_step", "block"))
        at_least("memory.budget_mib", self.budget_mib, 0, strict=True)


@dataclass(frozen=True)
class ImagesConfig:
    """What becomes of images before the backbone: normalised on every stream, augmented (data/image_transforms.py) on that of
    training alone, mirrored on those of validation and test. The keys' meanings: conf/config.yaml."""

    normalise: str = "none"
    crop_padding: int = 0
    flip: bool = False
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    test_time_flip: bool = False

    def __post_init__(self) -> None:
        one_of("images.normalise", self.normalise, ("none", "dataset", "imagenet"))
        at_least("images.crop_padding", self.crop_padding, 0)
        for key in ("brightness", "contrast", "saturation"):
            at_least(f"images.{key}", getattr(self, key), 0)
            at_most(f"images.{key}", getattr(self, key), 1)


@dataclass(frozen=True)
class TrainingConfig:
    """How training tasks, and those on which convergence is measured, differ from the tasks of validation and test;
    null: not at all. The keys' meanings: conf/config.yaml."""

    ways: int | None = None
    shots: int | None = None
    queries: int | None = None

    def __post_init__(self) -> None:
        for key, least in (("ways", 2), ("shots", 1), ("queries", 1)):
            at_least(f"training.{key}", getattr(self, key), least)


@dataclass(frozen=True)
class OptimizerConfig:
    """The upper optimiser on theta, of torch.optim.

    lr: the step size (of cosine, the first); null: 1/L_F, with sgd on dataset=quadratic, whose L_F is known.
    weight_decay: as in torch.optim. momentum: as in torch.optim. schedule: of lr over the run, `constant`, or `cosine`
    to 0. average: decay of an exponential moving average of theta, the one that is validated, tested and kept as the
    best; 0: theta itself is. It begins at theta_1, which keeps the weight average^(T-1): a run should be several 1 / (1
    - average) iterations long.
    """

    name: str = "adam"
    lr: float | None = 1e-3
    weight_decay: float = 0.0
    momentum: float = 0.0
    schedule: str = "constant"
    average: float = 0.0

    def __post_init__(self) -> None:
        one_of("optimizer.schedule", self.schedule, ("constant", "cosine"))
        at_least("optimizer.lr", self.lr, 0, strict=True)
        at_least("optimizer.weight_decay", self.weight_decay, 0)
        for key in ("momentum", "average"):
            at_least(f"optimizer.{key}", getattr(self, key), 0)
            below(f"optimizer.{key}", getattr(self, key), 1)
        if self.momentum and self.name != "sgd":
            raise ConfigError(f"optimizer.momentum={self.momentum} is for sgd; with {self.name} leave it 0")


@dataclass(frozen=True)
class TrackingConfig:
    """W&B, besides the local files, which are written in every mode.

    mode: `online`, `offline` (no account needed; `wandb sync` sends it later) or `disabled`. project: W&B's project.
    entity: the user or team whose project it is; null: the account's default. tags: of the run in W&B, besides its own.
    init_timeout_s: online, seconds to reach the server before going on offline.
    """

    name: str = "wandb"
    mode: str = "offline"
    project: str = "memmeta"
    entity: str | None = None
    tags: list[str] = field(default_factory=list)
    init_timeout_s: float = 4.0

    def __post_init__(self) -> None:
        one_of("tracking.mode", self.mode, ("online", "offline", "disabled"))
        at_least("tracking.init_timeout_s", self.init_timeout_s, 0, strict=True)


SECTIONS: dict[str, dict[str, type]] = {
    "algorithm": {
        "proposed": ProposedConfig,
        "imaml": ImamlConfig,
        **dict.fromkeys(("maml", "fomaml", "anil", "itd_bio"), UnrolledConfig),
        "baseline": BaselineConfig,
    },
    "dataset": {**DATASETS, **REGRESSION},
    "backbone": {**BACKBONES, "mlp": MlpConfig},
    "head": HEADS,
    "optimizer": dict.fromkeys(("adam", "adamw", "sgd"), OptimizerConfig),
    "tracking": {"wandb": TrackingConfig},
}

NESTED: dict[str, type] = {"memory": MemoryConfig, "images": ImagesConfig, "training": TrainingConfig}
"""Sections without options to choose among: their values stand in config.yaml itself."""
