"""The outer optimiser of theta, its schedule, and the moving average of theta."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from memmeta_exp.backbones import MetaModel
from memmeta_exp.config import Config, option, register
from memmeta_exp.config.components import OptimizerBase
from memmeta_exp.utils.errors import ConfigError


@dataclass(frozen=True)
class OptimizerConfig(OptimizerBase):
    """The options that the optimisers of torch.optim share."""

    lr: float | None = option(
        1e-3,
        "step size, with schedule=cosine the first one; null: 1/L_F, for sgd on dataset=quadratic alone",
        above=0,
    )
    weight_decay: float = option(0.0, "as in torch.optim", at_least=0)
    momentum: float = option(0.0, "as in torch.optim, for sgd", at_least=0, below=1)
    schedule: str = option(
        "constant", "schedule of lr over the run: constant, or cosine to 0", choices=("constant", "cosine")
    )
    warmup: int = option(0, "first iterations over which lr rises linearly, from lr / warmup; 0: none", at_least=0)
    clip_norm: float | None = option(
        None,
        "largest norm of the meta-gradient over all parameters: a longer one is scaled down to it; null: any",
        above=0,
    )
    head_lr: float | None = option(
        None,
        "step size of the learned head start phi_0 and of a classifier of training; null: lr, as the backbone",
        above=0,
    )
    average: float = option(
        0.0,
        "decay of an exponential moving average of theta, which replaces theta in validation, test and best.pt; 0: no "
        "average; theta_1 keeps the weight average^(T-1), so a run should be several 1 / (1 - average) iterations long",
        at_least=0,
        below=1,
    )

    def check(self) -> None:
        if self.momentum:
            raise ConfigError(f"optimizer.momentum={self.momentum} is for sgd; with {self.name} leave it 0")


@register
@dataclass(frozen=True)
class AdamConfig(OptimizerConfig):
    """Adam (Kingma and Ba 2015)."""

    label: ClassVar[str] = "Adam"
    name: str = "adam"

    def build(self, parameters: Iterable[torch.nn.Parameter], lr: float) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, **self._shared(lr))

    def _shared(self, lr: float) -> dict[str, Any]:
        """`foreach` is set because its default differs between devices."""
        return {"lr": lr, "weight_decay": self.weight_decay, "foreach": True}


@register
@dataclass(frozen=True)
class AdamwConfig(AdamConfig):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    label: ClassVar[str] = "AdamW"
    name: str = "adamw"

    def build(self, parameters: Iterable[torch.nn.Parameter], lr: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, **self._shared(lr))


@register
@dataclass(frozen=True)
class SgdConfig(AdamConfig):
    """Stochastic gradient descent, with momentum where it is set."""

    plain_gradient: ClassVar[bool] = True
    label: ClassVar[str] = "SGD"
    name: str = "sgd"

    def check(self) -> None:
        """SGD has momentum."""

    def build(self, parameters: Iterable[torch.nn.Parameter], lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, momentum=self.momentum, **self._shared(lr))


def build_optimizer(
    config: Config, model: MetaModel, smoothness: float | None = None
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """The outer optimiser and its schedule. smoothness: L_F, for optimizer.lr=null."""
    c = config.optimizer
    lr = c.lr if c.lr is not None or smoothness is None else 1 / smoothness
    optimizer = c.build(_groups(model, lr, c.head_lr) if c.head_lr else model.parameters(), lr)
    if c.warmup:
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: _factor(config, done))
    if c.schedule == "cosine":
        return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=config.iterations)
    return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


def _groups(model: MetaModel, lr: float | None, head_lr: float) -> list[dict[str, Any]]:
    """The backbone's parameters, then those of the head."""
    head = [p for name, p in model.named_parameters() if not name.startswith("backbone.")]
    return [{"params": list(model.backbone.parameters()), "lr": lr}, {"params": head, "lr": head_lr}]


def _factor(config: Config, done: int) -> float:
    """What every lr is multiplied by after `done` iterations: a linear rise, then the schedule over the rest."""
    c, rest = config.optimizer, max(1, config.iterations - config.optimizer.warmup)
    if done < c.warmup:
        return (done + 1) / c.warmup
    if c.schedule == "constant":
        return 1.0
    return (1 + math.cos(math.pi * min(1.0, (done - c.warmup) / rest))) / 2


def build_average(config: Config, model: MetaModel) -> AveragedModel | None:
    """The moving average of the model, None where optimizer.average=0. Buffers are copied, not averaged."""
    decay = config.optimizer.average
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay)) if decay else None
