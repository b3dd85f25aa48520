"""f and g of a task, of features (head-only algorithms) or of a network's output (algorithms that adapt weights)."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from memmeta_exp.bilevel import (
    CosineHead,
    Lower,
    QuadraticLower,
    QuadraticTasks,
    QuadraticUpper,
    RidgeHead,
    ScaledSoftmax,
    SoftmaxHead,
    SquaredError,
    Upper,
)
from memmeta_exp.bilevel.vectors import one_hot
from memmeta_exp.config import option, register
from memmeta_exp.config.components import HeadConfig


@register
@dataclass(frozen=True)
class LinearHeadConfig(HeadConfig):
    """Softmax-linear: f and g are mean cross-entropies of the logits W z + b; g adds R."""

    label: ClassVar[str] = "softmax"
    name: str = "linear"

    def losses(self) -> "Losses":
        return SOFTMAX


@register
@dataclass(frozen=True)
class RidgeHeadConfig(HeadConfig):
    """Ridge regression on one-hot labels (R2D2, Bertinetto et al. 2019): g = mean 1/2 |W z + b - y|^2 + R; f is the
    mean cross-entropy of the scaled outputs."""

    label: ClassVar[str] = "ridge"
    name: str = "ridge"
    scale: float = option(10.0, "scale of the outputs in f", above=0)

    def losses(self) -> "Losses":
        return RidgeLosses(self.scale)


@register
@dataclass(frozen=True)
class CosineHeadConfig(HeadConfig):
    """Softmax on cosine similarity (Gidaris and Komodakis 2018): logits scale <z / |z|, w_c / |w_c|> in f and g."""

    convex: ClassVar[bool] = False
    label: ClassVar[str] = "cosine"
    name: str = "cosine"
    scale: float = option(10.0, "scale of the cosines", above=0)

    @property
    def cosine(self) -> float | None:
        return self.scale

    def losses(self) -> "Losses":
        return CosineLosses(self.scale)


@register
@dataclass(frozen=True)
class RegressionHeadConfig(HeadConfig):
    """Linear regression: g = mean 1/2 |W z + b - y|^2 + R, f = mean |W z + b - y|^2. For dataset=sinusoid."""

    is_regression: ClassVar[bool] = True
    label: ClassVar[str] = "linear regression"
    name: str = "regression"

    def losses(self) -> "Losses":
        return RegressionLosses()


class Losses(Protocol):
    """f and g of tasks: `upper` and `lower` of features, `query` and `support` of a network's output.

    z: features [T, ...]. labels: labels or targets of the tasks' data, [T, ...]. start: phi_0, one for all tasks or one
    for each; its shape gives the number of classes. mu, center: R = mu/2 |phi - center|^2, around 0 where center is
    None. output, label: those of one task. Where `supports_per_task_weights`, also those of T tasks, [T, ...]; the
    losses are then [T].
    """

    @property
    def supports_per_task_weights(self) -> bool: ...

    def lower(self, z: Tensor, labels: Tensor, start: Tensor, mu: float, center: Tensor | None) -> Lower: ...

    def upper(self, z: Tensor, labels: Tensor, start: Tensor) -> Upper: ...

    def support(self, output: Tensor, label: Tensor) -> Tensor:
        """g without R, a scalar."""
        ...

    def query(self, output: Tensor, label: Tensor) -> tuple[Tensor, Tensor | None]:
        """f and the accuracy (detached, float64; None where there are no classes), scalars."""
        ...


class SoftmaxLosses:
    """Mean cross-entropy of a softmax-linear head. output: logits [n, C]; label: int64 [n]."""

    supports_per_task_weights = False

    def lower(self, z: Tensor, labels: Tensor, start: Tensor, mu: float, center: Tensor | None) -> Lower:
        return SoftmaxHead(z, labels, start.shape[-2], mu, center)

    def upper(self, z: Tensor, labels: Tensor, start: Tensor) -> Upper:
        return SoftmaxHead(z, labels, start.shape[-2])

    def logits(self, output: Tensor) -> Tensor:
        """What f takes the softmax of."""
        return output

    def support(self, output: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(output, label)

    def query(self, output: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        return F.cross_entropy(output, label), (output.detach().argmax(-1) == label).double().mean()


class RidgeLosses:
    """g: half the squared error to the one-hot labels. f: cross-entropy of `scale` times the outputs."""

    supports_per_task_weights = False

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def lower(self, z: Tensor, labels: Tensor, start: Tensor, mu: float, center: Tensor | None) -> RidgeHead:
        return RidgeHead(z, one_hot(labels, start.shape[-2], z.dtype), mu, center)

    def upper(self, z: Tensor, labels: Tensor, start: Tensor) -> ScaledSoftmax:
        return ScaledSoftmax(z, labels, start.shape[-2], self.scale)

    def support(self, output: Tensor, label: Tensor) -> Tensor:
        return (output - one_hot(label, output.shape[-1], output.dtype)).square().sum(-1).mean() / 2

    def logits(self, output: Tensor) -> Tensor:
        """What f takes the softmax of."""
        return self.scale * output

    def query(self, output: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        return SOFTMAX.query(self.logits(output), label)


class CosineLosses(SoftmaxLosses):
    """Cross-entropy of cosines times `scale`. A network's output is that already (`MetaModel.cosine`)."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def lower(self, z: Tensor, labels: Tensor, start: Tensor, mu: float, center: Tensor | None) -> CosineHead:
        return CosineHead(z, labels, start.shape[-2], self.scale, mu, center)

    def upper(self, z: Tensor, labels: Tensor, start: Tensor) -> CosineHead:
        return CosineHead(z, labels, start.shape[-2], self.scale)


class RegressionLosses:
    """g: half the mean squared error. f: the mean squared error. labels: targets [T, n, C]. output, label: [n, C] or
    [T, n, C]."""

    supports_per_task_weights = True

    def lower(self, z: Tensor, labels: Tensor, start: Tensor, mu: float, center: Tensor | None) -> RidgeHead:
        return RidgeHead(z, labels, mu, center)

    def upper(self, z: Tensor, labels: Tensor, start: Tensor) -> SquaredError:
        return SquaredError(z, labels.to(z.dtype))

    def support(self, output: Tensor, label: Tensor) -> Tensor:
        return (output - label).square().sum(-1).mean(-1) / 2

    def query(self, output: Tensor, label: Tensor) -> tuple[Tensor, None]:
        return (output - label).square().sum(-1).mean(-1), None


class QuadraticLosses:
    """f and g of quadratic tasks. labels: indices into `tasks`, int64 [T]. output: theta and phi joined, [p + q]."""

    supports_per_task_weights = False

    def __init__(self, tasks: QuadraticTasks) -> None:
        self.tasks = tasks

    def lower(self, z: Tensor, labels: Tensor, start: Tensor, mu: float, center: Tensor | None) -> QuadraticLower:
        return QuadraticLower(z, self.tasks[labels].to(z.device, z.dtype), mu, center)

    def upper(self, z: Tensor, labels: Tensor, start: Tensor) -> QuadraticUpper:
        return QuadraticUpper(z, self.tasks[labels].to(z.device, z.dtype))

    def support(self, output: Tensor, label: Tensor) -> Tensor:
        theta, phi = self._split(output)
        return QuadraticLower(theta, self.tasks[label[None]]).value(phi)[0]

    def query(self, output: Tensor, label: Tensor) -> tuple[Tensor, None]:
        theta, phi = self._split(output)
        return QuadraticUpper(theta, self.tasks[label[None]]).value(phi)[0], None

    def _split(self, output: Tensor) -> tuple[Tensor, tuple[Tensor]]:
        theta, phi = torch.split(output, [self.tasks.slope.shape[2], self.tasks.slope.shape[1]])
        return theta[None], (phi[None, None],)


SOFTMAX = SoftmaxLosses()
