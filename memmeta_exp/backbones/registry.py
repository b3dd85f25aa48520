"""From a backbone's configuration to the backbone."""

import random
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch

from memmeta_exp.backbones.backbone import Backbone
from memmeta_exp.utils.errors import ConfigError


def build_backbone(
    config: Any, channels: int, image_size: int, generator: torch.Generator, materialise: bool = True
) -> tuple[Backbone, int]:
    """The backbone of `config` for images of `channels` x image_size x image_size, and its number of features.

    Initial values come from `generator`, or from the global generators, which are seeded with its seed meanwhile.
    materialise: False for meta tensors; no weights are then read. Raises ConfigError.
    """
    with nullcontext() if materialise else torch.device("meta"), seeded(generator.initial_seed()):
        backbone = config.build(channels, image_size, generator, materialise)
        features = backbone.features(image_size)
    backbone.blend_batch_norm(getattr(config, "task_stats_weight", 0.0))
    if features == 0:
        raise ConfigError(
            f"images of {image_size}x{image_size} leave backbone={config.name} no features; use 16x16 or larger"
        )
    return backbone, features


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the global generators of torch, NumPy and Python for the block, and restores them after it."""
    before = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            random.seed(seed)
            yield
    finally:
        np.random.set_state(before[0])  # noqa: NPY002
        random.setstate(before[1])


def require(config: Any, channels: int, image_size: int, memory: Any) -> None:
    """ConfigError where the backbone of `config` cannot be made for such images, or cannot run as the section `memory`
    says."""
    backbone, _ = build_backbone(config, channels, image_size, torch.Generator(), materialise=False)
    apply_memory_options(backbone, memory)


def apply_memory_options(backbone: Any, memory: Any) -> None:
    """From now on the backbone runs as the section `memory` says; ConfigError where it cannot."""
    if memory.mode == "images" and getattr(backbone, "mixes_images", True):
        raise ConfigError(
            "memory.mode=images: this backbone normalises by statistics of all images of a task, or draws random "
            "numbers for them together; set backbone.norm=none or fixed where there is such a choice, or "
            "memory.mode=half_task"
        )
    if memory.checkpoint == "block":
        backbone.checkpoint_blocks()
