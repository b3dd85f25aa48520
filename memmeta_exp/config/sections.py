"""The sections of a run's configuration: one dataclass for each option of each config group."""

from dataclasses import dataclass, field

from memmeta_exp.config.algorithms import ImamlConfig, ProposedConfig, UnrolledConfig
from memmeta_exp.config.backbones import BACKBONES
from memmeta_exp.config.checks import at_least, one_of
from memmeta_exp.config.heads import HEADS
from memmeta_exp.errors import ConfigError

SPLITS = ("train", "val", "test")
SYNTHETIC_BYTES = 2**35


@dataclass(frozen=True)
class DatasetFacts:
    """What is known of a dataset before it is loaded: classes per split, images per class, image shape."""

    classes: dict[str, int]
    images_per_class: int
    channels: int
    image_size: int


@dataclass(frozen=True)
class GlyphsConfig:
    """Characters of many scripts drawn from the fonts that matplotlib ships; val and test are new scripts."""

    name: str = "glyphs"

    def facts(self) -> DatasetFacts:
        return DatasetFacts({"train": 323, "val": 67, "test": 136}, 40, 1, 28)


@dataclass(frozen=True)
class CifarFsConfig:
    """CIFAR-FS (Bertinetto et al. 2019): CIFAR-100 classes split 64/16/20 at random."""

    name: str = "cifar_fs"

    def facts(self) -> DatasetFacts:
        return DatasetFacts({"train": 64, "val": 16, "test": 20}, 600, 3, 32)


@dataclass(frozen=True)
class Fc100Config:
    """FC100 (Oreshkin et al. 2018): CIFAR-100 classes split 60/20/20 by superclass."""

    name: str = "fc100"

    def facts(self) -> DatasetFacts:
        return DatasetFacts({"train": 60, "val": 20, "test": 20}, 600, 3, 32)


@dataclass(frozen=True)
class MiniImagenetConfig:
    """miniImageNet (Vinyals et al. 2016, split of Ravi and Larochelle 2017): 64/16/20 classes of ImageNet."""

    name: str = "miniimagenet"

    def facts(self) -> DatasetFacts:
        return DatasetFacts({"train": 64, "val": 16, "test": 20}, 600, 3, 84)


@dataclass(frozen=True)
class TieredImagenetConfig:
    """tieredImageNet (Ren et al. 2018): 351/97/160 classes of ImageNet by superclass, at least 732 images each."""

    name: str = "tieredimagenet"

    def facts(self) -> DatasetFacts:
        return DatasetFacts({"train": 351, "val": 97, "test": 160}, 732, 3, 84)


@dataclass(frozen=True)
class SyntheticConfig:
    """Random images with a class-dependent mean: nothing to read from disk, for speed and memory at any size."""

    name: str = "synthetic"
    classes: int = 20
    images_per_class: int = 40
    channels: int = 3
    image_size: int = 32

    def __post_init__(self) -> None:
        for key in ("classes", "images_per_class", "channels"):
            at_least(f"dataset.{key}", getattr(self, key), 1)
        at_least("dataset.image_size", self.image_size, 16)
        pixels = self.classes * self.images_per_class * self.channels * self.image_size**2
        if pixels > SYNTHETIC_BYTES:
            raise ConfigError(
                f"dataset=synthetic would take {pixels / 2**30:.0f} GiB a split; lower dataset.classes, "
                "images_per_class, channels or image_size to stay below 32 GiB"
            )

    def facts(self) -> DatasetFacts:
        return DatasetFacts(dict.fromkeys(SPLITS, self.classes), self.images_per_class, self.channels, self.image_size)


@dataclass(frozen=True)
class MemoryConfig:
    """What is computed twice to keep less.

    mode: `task`, or `half_task`: support and query pass through the backbone one after the other, for head-only
    algorithms; checkpoint: `none`; `inner_step`: one inner step's graph alive at a time, for unrolled algorithms; or
    `block`: of each block of the backbone its input alone until it is run again, for head-only algorithms;
    budget_mib: choose chunk, mode and checkpoint so that the peak (memory/peak_mib) stays below it.
    """

    mode: str = "task"
    checkpoint: str = "none"
    budget_mib: float | None = None

    def __post_init__(self) -> None:
        one_of("memory.mode", self.mode, ("task", "half_task"))
        one_of("memory.checkpoint", self.checkpoint, ("none", "inner_step", "block"))
        at_least("memory.budget_mib", self.budget_mib, 0, strict=True)


@dataclass(frozen=True)
class OptimizerConfig:
    """The upper optimiser on theta: torch.optim's adam, adamw or sgd, its rate constant or cosine to 0 over T. lr: null
    for 1/L_F, with sgd on dataset=quadratic, whose L_F is known."""

    name: str = "adam"
    lr: float | None = 1e-3
    weight_decay: float = 0.0
    momentum: float = 0.0
    schedule: str = "constant"

    def __post_init__(self) -> None:
        one_of("optimizer.schedule", self.schedule, ("constant", "cosine"))
        at_least("optimizer.lr", self.lr, 0, strict=True)
        at_least("optimizer.weight_decay", self.weight_decay, 0)
        at_least("optimizer.momentum", self.momentum, 0)
        if self.momentum >= 1:
            raise ConfigError(f"optimizer.momentum={self.momentum} is out of range: it must be below 1")
        if self.momentum and self.name != "sgd":
            raise ConfigError(f"optimizer.momentum={self.momentum} is for sgd; with {self.name} leave it 0")


@dataclass(frozen=True)
class TrackingConfig:
    """W&B: online, offline (no account needed) or disabled. The local files are written in every mode."""

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
    },
    "dataset": {
        "glyphs": GlyphsConfig,
        "cifar_fs": CifarFsConfig,
        "fc100": Fc100Config,
        "miniimagenet": MiniImagenetConfig,
        "tieredimagenet": TieredImagenetConfig,
        "synthetic": SyntheticConfig,
    },
    "backbone": BACKBONES,
    "head": HEADS,
    "optimizer": dict.fromkeys(("adam", "adamw", "sgd"), OptimizerConfig),
    "tracking": {"wandb": TrackingConfig},
}
