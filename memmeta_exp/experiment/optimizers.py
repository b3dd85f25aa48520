"""The outer optimiser of theta, its schedule, and the moving average of theta."""

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
    optimizer = c.build(model.parameters(), lr)
    if c.schedule == "cosine":
        return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=config.iterations)
    return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


def build_average(config: Config, model: MetaModel) -> AveragedModel | None:
    """The moving average of the model, None where optimizer.average=0. Buffers are copied, not averaged."""
    decay = config.optimizer.average
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay)) if decay else None
