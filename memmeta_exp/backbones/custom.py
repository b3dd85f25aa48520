"""`backbone=custom`: any network by its import path. It needs no base class and no task axis."""

import importlib
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from memmeta_exp.backbones.backbone import Backbone, Keys
from memmeta_exp.backbones.whole_network import by_tasks, use_batch_statistics
from memmeta_exp.config import closest, option, register
from memmeta_exp.config.components import BackboneConfig
from memmeta_exp.utils.errors import ConfigError
from memmeta_exp.utils.import_path import search_current_folder, why_not_imported

TRIED = 3  # images in the pass that finds the number of features


@register
@dataclass(frozen=True)
class CustomConfig(BackboneConfig):
    """Any torch.nn.Module by its import path: images [N, C, H, W] in [0, 1] to features [N, d]."""

    label: ClassVar[str] = "custom"
    name: str = "custom"
    target: str | None = option(None, "MODULE.NAME of the class, or of a function that makes the network")
    arguments: dict[str, Any] = option({}, "keyword arguments of that class or function", type="mapping")

    def check(self) -> None:
        parts = (self.target or "").split(".")
        if len(parts) < 2 or not all(part.isidentifier() for part in parts):
            raise ConfigError(
                f"backbone=custom with backbone.target={self.target} names no network: write "
                "backbone.target=MODULE.NAME of a class or function"
            )

    @property
    def title(self) -> str:
        return str(self.target).rpartition(".")[2]

    def build(
        self, channels: int, image_size: int, generator: torch.Generator, materialise: bool = True
    ) -> "CustomBackbone":
        shape, seed = (channels, image_size, image_size), generator.initial_seed()
        if materialise:
            return CustomBackbone(self, shape, seed)
        try:
            return CustomBackbone(self, shape, seed)
        except ConfigError:  # not every network can be made of meta tensors
            with torch.device("cpu"):
                return CustomBackbone(self, shape, seed, runs_on_meta=False)


class CustomBackbone(Backbone):
    """The network that a `CustomConfig` names, [T, n, C, H, W] in [0, 1] -> [T, n, d].

    Initial values are drawn from torch's global generator, which is seeded with `seed` meanwhile. The network is always
    in evaluation mode (no dropout). Its batch norm uses each task's own statistics, and it then takes one task at a
    time. memory.checkpoint=block treats it as one block. shape: of an image, [C, H, W]. Outputs with more dimensions
    than [N, d] are flattened.
    """

    def __init__(self, config: CustomConfig, shape: tuple[int, ...], seed: int, runs_on_meta: bool = True) -> None:
        super().__init__()
        self.config, self.runs_on_meta = config, runs_on_meta
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.default_generator.manual_seed(seed)
            self.net = _made(config)
            self.by_batch = use_batch_statistics(self.net)
            self.train()
            self.dim = self._tried(torch.zeros(TRIED, *shape))

    def train(self, mode: bool = True) -> "CustomBackbone":
        """The network itself stays in evaluation mode: see the class."""
        super().train(mode)
        self.net.eval()
        return self

    @property
    def mixes_images(self) -> bool:
        return self.by_batch

    def features(self, image_size: int) -> int:
        return self.dim

    def forward(self, images: Tensor, keys: Keys | None = None) -> Tensor:
        if images.is_meta and not self.runs_on_meta:
            raise ConfigError(
                f"backbone.target={self.config.target} cannot be predicted: it does not run on meta tensors; measure "
                "it with memmeta profile"
            )
        return by_tasks(lambda x: self._run(self.net, x).flatten(1), images, alone=self.by_batch)

    def _tried(self, images: Tensor) -> int:
        """d, from one pass of the network, which also creates the weights of torch's lazy layers."""
        target = f"backbone.target={self.config.target}"
        try:
            z = self.net(images)
        except Exception as error:  # noqa: BLE001 - whatever the user's network raises is the user's to read
            size = "x".join(map(str, images.shape[1:]))
            raise ConfigError(f"{target} does not take images of {size} (channels, pixels): {_said(error)}") from None
        if not isinstance(z, Tensor) or z.dim() < 2 or len(z) != len(images) or not z.is_floating_point():
            raise ConfigError(
                f"{target} gives {_described(z)} for {list(images.shape)} images: it has to give features [N, d], a "
                "row an image"
            )
        return z.flatten(1).shape[1]


def _made(config: CustomConfig) -> nn.Module:
    """The network; ConfigError where it cannot be found or made."""
    try:
        net = _found(str(config.target))(**config.arguments)
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001 - as above
        raise ConfigError(
            f"backbone.target={config.target} cannot be made with backbone.arguments={config.arguments}: {_said(error)}"
        ) from None
    if not isinstance(net, nn.Module):
        raise ConfigError(
            f"backbone.target={config.target} makes a {type(net).__name__}: name a class or function that makes a "
            "torch.nn.Module"
        )
    return net


def _found(target: str) -> Any:
    """The class or function of that import path."""
    module, _, name = target.rpartition(".")
    search_current_folder()
    try:
        namespace = vars(importlib.import_module(module))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - as above
        raise ConfigError(f"backbone.target={target}: the module {module} {why_not_imported(module, error)}") from None
    if name not in namespace:
        public = [key for key, value in namespace.items() if callable(value) and not key.startswith("_")]
        raise ConfigError(f"backbone.target={target}: the module {module} has no {name}{closest(name, public)}")
    if not callable(namespace[name]):
        raise ConfigError(f"backbone.target={target} is neither a class nor a function")
    return namespace[name]


def _described(z: Any) -> str:
    return f"{str(z.dtype).removeprefix('torch.')} {list(z.shape)}" if isinstance(z, Tensor) else type(z).__name__


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
