"""From a backbone's configuration to the backbone."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch

from memmeta_exp.backbones.backbone import Backbone
from memmeta_exp.backbones.conv4 import Conv4
from memmeta_exp.backbones.mlp import MLP
from memmeta_exp.backbones.plain import LinearMap
from memmeta_exp.backbones.resnet12 import ResNet12
from memmeta_exp.backbones.wide_resnet import WideResNet
from memmeta_exp.errors import ConfigError


def _conv4(c: Any, channels: int, image_size: int, generator: torch.Generator, materialise: bool) -> Backbone:
    return Conv4(channels, c.filters, generator, c.norm, c.block)


def _resnet12(c: Any, channels: int, image_size: int, generator: torch.Generator, materialise: bool) -> Backbone:
    return ResNet12(channels, c.filters, generator, c.norm, c.drop_rate, c.drop_block)


def _wide_resnet(c: Any, channels: int, image_size: int, generator: torch.Generator, materialise: bool) -> Backbone:
    return WideResNet(channels, c.depth, c.width, generator, c.norm)


def _linear(c: Any, channels: int, image_size: int, generator: torch.Generator, materialise: bool) -> Backbone:
    return LinearMap(channels * image_size**2, c.features, generator)


def _mlp(c: Any, channels: int, image_size: int, generator: torch.Generator, materialise: bool) -> Backbone:
    return MLP(channels * image_size**2, c.hidden, generator)


def _timm(c: Any, channels: int, image_size: int, generator: torch.Generator, materialise: bool) -> Backbone:
    from memmeta_exp.backbones.timm_backbone import TimmBackbone

    return TimmBackbone(c, channels, image_size, generator, materialise)


BACKBONES: dict[str, Callable[[Any, int, int, torch.Generator, bool], Backbone]] = {
    "conv4": _conv4,
    "resnet12": _resnet12,
    "wrn28_10": _wide_resnet,
    "mlp": _mlp,
    "timm": _timm,
    "linear": _linear,
}


def build_backbone(
    config: Any, channels: int, image_size: int, generator: torch.Generator, materialise: bool = True
) -> tuple[Backbone, int]:
    """The backbone of `config` and its number of features, initial values drawn from `generator`. Not materialised, it
    is of meta tensors, and no weights are read. Raises ConfigError."""
    with nullcontext() if materialise else torch.device("meta"):
        backbone = BACKBONES[config.name](config, channels, image_size, generator, materialise)
        features = backbone.features(image_size)
    backbone.blend_batch_norm(getattr(config, "batch_share", 0.0))
    if features == 0:
        raise ConfigError(
            f"images of {image_size}x{image_size} leave backbone={config.name} no features; use 16x16 or larger"
        )
    return backbone, features


def require(config: Any, channels: int, image_size: int, checkpoint: bool) -> None:
    """ConfigError where the backbone of `config` cannot be made for such images here, or run as it is to be."""
    backbone, _ = build_backbone(config, channels, image_size, torch.Generator(), materialise=False)
    if checkpoint:
        backbone.checkpoint_blocks()
