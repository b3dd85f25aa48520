"""The backbones' sections of a configuration, one dataclass each."""

from dataclasses import dataclass, field
from typing import Any

from memmeta_exp.config.validation import PATH, at_least, at_most, below, one_of
from memmeta_exp.utils.errors import ConfigError

BLOCKS = 4  # of conv4 and of resnet12
MAX_FILTERS = 4096


def _check_filters(filters: list[Any]) -> None:
    for width in filters:
        if type(width) is not int:
            raise ConfigError(f"backbone.filters={width} is no number of filters: use a whole number")
        at_least("backbone.filters", width, 1)
        at_most("backbone.filters", width, MAX_FILTERS)


def _check_four(filters: list[Any]) -> None:
    if len(filters) != BLOCKS:
        raise ConfigError(f"backbone.filters={filters} has {len(filters)} numbers: give one for each of the 4 blocks")
    _check_filters(filters)


def _check_share(share: float, norm: str) -> None:
    at_least("backbone.task_stats_weight", share, 0)
    below("backbone.task_stats_weight", share, 1)
    if share and norm != "running":
        raise ConfigError(
            f"backbone.task_stats_weight={share} is for backbone.norm=running, and norm={norm} has no running statistics to "
            "share with: set backbone.norm=running, or leave it out"
        )


@dataclass(frozen=True)
class Conv4Config:
    """Conv4 (Vinyals et al. 2016): 4 x [conv3x3, batch norm, ReLU, max-pool 2].

    filters: channels of every block, or a list of four, [96,192,384,512] being the widths of R2D2's net; norm: batch
    norm by each task's batch statistics (`task`), by those in training and running statistics in evaluation
    (`running`), or `none`; task_stats_weight: under `running`, the share of each task's own batch statistics in those of
    evaluation; block: `fused`, or `plain` (the released code's operators in its order).
    """

    name: str = "conv4"
    filters: Any = field(default=64, metadata={"type": "int or list[int]"})  # OmegaConf has no such union
    norm: str = "task"
    task_stats_weight: float = 0.0
    block: str = "fused"

    def __post_init__(self) -> None:
        one_of("backbone.norm", self.norm, ("task", "running", "none"))
        _check_share(self.task_stats_weight, self.norm)
        one_of("backbone.block", self.block, ("fused", "plain"))
        if isinstance(self.filters, list):
            _check_four(self.filters)
        else:
            _check_filters([self.filters])


@dataclass(frozen=True)
class Resnet12Config:
    """ResNet-12 (Lee et al. 2019): 4 residual blocks of three convolutions, features averaged over places.

    filters: channels of each of the four blocks; norm: as for conv4, `task` or `running`; task_stats_weight: as for conv4;
    drop_rate: in training, of what dropout (blocks 1 and 2) and DropBlock (blocks 3 and 4) drop; drop_block: side of
    DropBlock's squares.
    """

    name: str = "resnet12"
    filters: list[int] = field(default_factory=lambda: [64, 160, 320, 640])
    norm: str = "task"
    task_stats_weight: float = 0.0
    drop_rate: float = 0.0
    drop_block: int = 5

    def __post_init__(self) -> None:
        one_of("backbone.norm", self.norm, ("task", "running"))
        _check_share(self.task_stats_weight, self.norm)
        _check_four(self.filters)
        at_least("backbone.drop_block", self.drop_block, 1)
        at_least("backbone.drop_rate", self.drop_rate, 0)
        below("backbone.drop_rate", self.drop_rate, 1)


@dataclass(frozen=True)
class WideResnetConfig:
    """Wide residual network (Zagoruyko and Komodakis 2016), features averaged over places, without dropout.

    depth: 6 n + 4, from 10 on: n blocks in each of three groups; width: times 16, 32 and 64 channels; norm: as for
    conv4, `task` or `running`; task_stats_weight: as for conv4.
    """

    name: str = "wrn28_10"
    depth: int = 28
    width: int = 10
    norm: str = "task"
    task_stats_weight: float = 0.0

    def __post_init__(self) -> None:
        one_of("backbone.norm", self.norm, ("task", "running"))
        _check_share(self.task_stats_weight, self.norm)
        at_least("backbone.width", self.width, 1)
        at_most("backbone.width", self.width, MAX_FILTERS // 64)
        at_most("backbone.depth", self.depth, 1000)
        if self.depth < 10 or self.depth % 6 != 4:
            low = max(10, self.depth - (self.depth - 4) % 6)
            raise ConfigError(
                f"backbone.depth={self.depth} is no depth of a wide residual network, 6 n + 4 from 10 on; "
                f"use {low} or {low + 6}"
            )


@dataclass(frozen=True)
class TimmConfig:
    """Any model of timm, without its classifier: features as pooled for it.

    model: timm's name for it. weights: a file of weights (safetensors, or a state dict that torch.load takes with
    weights_only=True); with neither this nor pretrained, initial values from `seed`. pretrained: timm's own weights for
    the model, from the hub. frozen: how many of timm's groups of layers are not meta-learned, from the stem (the first)
    on: a stage of a convolutional network, a block of a transformer. norm: batch norm by each task's batch statistics
    (`task`) or by the statistics that came with the weights, never updated (`fixed`); models without batch norm are the
    same under both. attention: `plain`, or `fused` (one kernel, less memory, no second derivative).
    """

    name: str = "timm"
    model: str = "resnet18"
    weights: str | None = field(default=None, metadata=PATH)
    pretrained: bool = False
    frozen: int = 0
    norm: str = "task"
    attention: str = "plain"

    def __post_init__(self) -> None:
        one_of("backbone.norm", self.norm, ("task", "fixed"))
        one_of("backbone.attention", self.attention, ("plain", "fused"))
        at_least("backbone.frozen", self.frozen, 0)
        if self.pretrained and self.weights is not None:
            raise ConfigError("backbone.pretrained=true with backbone.weights=FILE are two sources: leave one out")
        if self.norm == "fixed" and not (self.pretrained or self.weights):
            raise ConfigError(
                "backbone.norm=fixed without weights: an untrained network has no statistics to fix; set "
                "backbone.weights=FILE or backbone.pretrained=true, or leave backbone.norm=task"
            )

    @property
    def title(self) -> str:
        """The model, for the names of runs."""
        return self.model.rpartition("/")[2]


BACKBONES: dict[str, type] = {
    "conv4": Conv4Config,
    "resnet12": Resnet12Config,
    "wrn28_10": WideResnetConfig,
    "timm": TimmConfig,
}
