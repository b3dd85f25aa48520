"""The base class of backbones: images of T tasks in, features out, block by block."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from memmeta_exp.backbones.memory_layout import image_layout
from memmeta_exp.backbones.task_norm import MOMENTUM, TaskBatchNorm2d, update_running_stats
from memmeta_exp.config import option
from memmeta_exp.config.components import BackboneConfig
from memmeta_exp.utils.errors import ConfigError

MAX_FILTERS = 4096
BLOCKS = 4  # of conv4 and of resnet12


@dataclass(frozen=True)
class NormalisedConfig(BackboneConfig):
    """Base of networks with batch norm."""

    norm: str = option(
        "task",
        "statistics of batch norm: task (each task's own) or running (each task's own in training, running statistics "
        "in evaluation)",
        choices=("task", "running"),
    )
    task_stats_weight: float = option(
        0.0,
        "with norm=running, the weight of each task's own statistics in evaluation; running statistics have the rest",
        at_least=0,
        below=1,
    )

    def check(self) -> None:
        if self.task_stats_weight and self.norm != "running":
            raise ConfigError(
                f"backbone.task_stats_weight={self.task_stats_weight} is for backbone.norm=running, and "
                f"norm={self.norm} has no running statistics to mix with: set backbone.norm=running, or leave it out"
            )


def check_filters(filters: list[Any], blocks: int = BLOCKS) -> None:
    """ConfigError unless `filters` has a number of channels for each block."""
    if len(filters) != blocks:
        raise ConfigError(
            f"backbone.filters={filters} has {len(filters)} numbers: give one for each of the {blocks} blocks"
        )
    for width in filters:
        if type(width) is not int:
            raise ConfigError(f"backbone.filters={width} is not a number of filters: use a whole number")


Keys = tuple[int, ...]


class Backbone(nn.Module, ABC):
    """z = backbone(images; theta): [T, n, C, H, W] in [0, 1] -> [T, n, d].

    theta is `parameters()`. What is not meta-learned (frozen stages, running statistics) is a buffer. checkpoint: store
    only the input of each block, and run the block again in the backward pass. The weights must still be in place then.
    functional_call removes them, so this is for head-only algorithms.
    """

    def __init__(self) -> None:
        super().__init__()
        self.checkpoint = False

    @abstractmethod
    def features(self, image_size: int) -> int:
        """d, the number of features of an image of image_size x image_size pixels; 0 where it is too small."""

    @property
    def random(self) -> bool:
        """Whether `forward` takes a random key for each task as its second argument."""
        return False

    @property
    def mixes_images(self) -> bool:
        """Whether the features of an image depend on the other images of the pass in training: by batch statistics, or
        by random numbers drawn for a whole task."""
        return self.random or any(isinstance(module, TaskBatchNorm2d) for module in self.modules())

    def checkpoint_blocks(self) -> None:
        """Turns `checkpoint` on; ConfigError where this backbone cannot run its blocks again."""
        self.checkpoint = True

    def blend_batch_norm(self, task_stats_weight: float) -> None:
        """Sets the weight of each task's own statistics in evaluation with norm=running (see TaskBatchNorm2d)."""
        for module in self.modules():
            if isinstance(module, TaskBatchNorm2d):
                module.task_stats_weight = task_stats_weight

    def prefers_joint_forward(self, device: torch.device) -> bool:
        """Whether one pass over support and query is better on `device` than a pass for each."""
        return False

    @property
    def supports_per_task_weights(self) -> bool:
        """Whether it also runs with weights for each task: every parameter [T, ...] in place of [...]."""
        return False

    def update_running_stats(self, tasks: Iterable[Tensor], weight: float = MOMENTUM) -> None:
        """Updates the running statistics (norm=running) once: running <- (1 - weight) running + weight mean.

        mean: of the statistics of `tasks`, images [1, n, C, H, W] each.
        """
        update_running_stats(
            self, [norm for norm in self.modules() if isinstance(norm, TaskBatchNorm2d)], tasks, weight
        )

    def _run(self, block: Callable[..., Tensor], *arguments: Any) -> Tensor:
        if not (self.checkpoint and torch.is_grad_enabled()):
            return block(*arguments)
        # no block draws from torch's global generators, so their state need not be kept
        return checkpoint(block, *arguments, use_reentrant=False, preserve_rng_state=False)  # pyright: ignore[reportReturnType]


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """W x + b of points [T, n, d]: one W [C, d] for all tasks, or one [T, C, d] with b [T, C] for each."""
    return F.linear(x, weight, bias) if weight.dim() == 2 else torch.baddbmm(bias[:, None], x, weight.mT)


def laid_out(x: Tensor) -> Tensor:
    """x [n, C, H, W] in the memory format that is fast for convolutions on its device."""
    return x.contiguous(memory_format=image_layout(x.device))


def sample_major(images: Tensor) -> Tensor:
    """[T, n, C, H, W] as [n*T, C, H, W], the order of `TaskBatchNorm2d`."""
    x = images.transpose(0, 1).flatten(0, 1)
    return laid_out(x) if len(images) == 1 else x


def by_task(x: Tensor, tasks: int) -> Tensor:
    """Sample-major [n*T, ...] as features [T, n, d]."""
    return x.reshape(len(x) // tasks, tasks, -1).transpose(0, 1)
