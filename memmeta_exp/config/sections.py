"""The sections of a run's configuration: one dataclass for each option of each config group.

Letters follow the paper: mu, K = inner_steps, N = linear_steps.
"""

from dataclasses import dataclass, field

from memmeta_exp.config.checks import at_least, at_most, one_of
from memmeta_exp.errors import ConfigError

SPLITS = ("train", "val", "test")
SYNTHETIC_BYTES = 2**35


@dataclass(frozen=True)
class ProposedConfig:
    """The memory-reduced method: phi_i* by `inner_solver`, v_i by `linear_solver`, no inner history kept.

    mu: weight of R(phi) = mu/2 |phi|^2 (of mu/2 |phi - phi_0|^2 where the head's start is learned), 0 only for the
    released settings. inner_lr: step of gd, null for 1/L_g measured from the features. inner_tolerance: bound on
    |d_phi g| that counts as solved; linear_tolerance: the same for |H v - d_phi f| / |d_phi f|; null asks for none.
    """

    name: str = "proposed"
    mu: float = 0.1
    inner_solver: str = "newton"
    inner_steps: int = 20
    inner_lr: float | None = None
    inner_tolerance: float | None = 1e-4
    inner_warm_start: bool = False
    linear_solver: str = "direct"
    linear_steps: int = 20
    linear_tolerance: float | None = 1e-3
    linear_warm_start: bool = False
    head_start: str = "fixed"

    def __post_init__(self) -> None:
        one_of("algorithm.inner_solver", self.inner_solver, ("gd", "newton"))
        one_of("algorithm.linear_solver", self.linear_solver, ("cg", "direct"))
        one_of("algorithm.head_start", self.head_start, ("fixed", "learned"))
        at_least("algorithm.mu", self.mu, 0)
        at_least("algorithm.inner_steps", self.inner_steps, 1)
        at_least("algorithm.linear_steps", self.linear_steps, 1)
        at_least("algorithm.inner_lr", self.inner_lr, 0, strict=True)
        at_least("algorithm.inner_tolerance", self.inner_tolerance, 0, strict=True)
        at_least("algorithm.linear_tolerance", self.linear_tolerance, 0, strict=True)
        if self.inner_solver == "newton" and self.inner_tolerance is None:
            raise ConfigError(
                "algorithm.inner_tolerance=null with algorithm.inner_solver=newton: newton stops by its tolerance; "
                "set it (1e-4 is the default) or use algorithm.inner_solver=gd"
            )
        self._check_strong_convexity()

    def _check_strong_convexity(self) -> None:
        if self.mu > 0:
            return
        for key, solver in (("inner_solver", "newton"), ("linear_solver", "direct")):
            if getattr(self, key) == solver:
                other = "gd" if key == "inner_solver" else "cg"
                raise ConfigError(
                    f"algorithm.mu=0 with algorithm.{key}={solver}: without R the lower level has no unique solution; "
                    f"set algorithm.mu above 0 (0.1 is the default) or algorithm.{key}={other}"
                )
        if self.head_start == "learned":
            raise ConfigError(
                "algorithm.mu=0 with algorithm.head_start=learned: the start is learned through R, which is centred "
                "on it; set algorithm.mu above 0 or algorithm.head_start=fixed"
            )


@dataclass(frozen=True)
class UnrolledConfig:
    """ANIL and ITD-BiO: head-only, differentiated through K = inner_steps gradient steps of size inner_lr.

    mu: weight of R(phi) = mu/2 |phi|^2 in g; head_start: `learned` (ANIL) or `fixed` (ITD-BiO); first_order: treat the
    inner gradients as constants.
    """

    name: str = "anil"
    mu: float = 0.0
    inner_steps: int = 10
    inner_lr: float = 0.1
    head_start: str = "learned"
    first_order: bool = False

    def __post_init__(self) -> None:
        one_of("algorithm.head_start", self.head_start, ("fixed", "learned"))
        at_least("algorithm.mu", self.mu, 0)
        at_least("algorithm.inner_steps", self.inner_steps, 1)
        at_least("algorithm.inner_lr", self.inner_lr, 0, strict=True)


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
class Conv4Config:
    """Conv4 (Vinyals et al. 2016): 4 x [conv3x3, batch norm, ReLU, max-pool 2], `filters` channels each."""

    name: str = "conv4"
    filters: int = 64

    def __post_init__(self) -> None:
        at_least("backbone.filters", self.filters, 1)
        at_most("backbone.filters", self.filters, 4096)


@dataclass(frozen=True)
class OptimizerConfig:
    """The upper optimiser on theta: torch.optim's adam, adamw or sgd, its rate constant or cosine to 0 over T."""

    name: str = "adam"
    lr: float = 1e-3
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
    "algorithm": {"proposed": ProposedConfig, "anil": UnrolledConfig, "itd_bio": UnrolledConfig},
    "dataset": {"glyphs": GlyphsConfig, "cifar_fs": CifarFsConfig, "fc100": Fc100Config, "synthetic": SyntheticConfig},
    "backbone": {"conv4": Conv4Config},
    "optimizer": dict.fromkeys(("adam", "adamw", "sgd"), OptimizerConfig),
    "tracking": {"wandb": TrackingConfig},
}
