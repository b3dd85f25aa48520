"""Few-shot regression of sine waves (Finn et al. 2017, section 5.1): y = A sin(x - b).

    A ~ U[0.1, 5],  b ~ U[0, pi],  x ~ U[-5, 5]

Task k of a stream is a pure function of (seed, stream, k), as for images. Words 0 and 1 of its keys give A and b, word
2 gives the support x, word 3 the query x. So more shots or queries do not change the other points. Numbers are drawn in
float64 and rounded once.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from memmeta_exp.config.components import DatasetConfig
from memmeta_exp.config.facts import DatasetFacts
from memmeta_exp.config.registry import register
from memmeta_exp.data.counter_rng import GAMMA, children, mix, root_key, uniform
from memmeta_exp.data.episodes import STREAMS


@register
@dataclass(frozen=True)
class SinusoidConfig(DatasetConfig):
    """Sine waves of random amplitude and phase (Finn et al. 2017): regression from `shots` points, metric MSE."""

    has_images: ClassVar[bool] = False
    has_classes: ClassVar[bool] = False
    is_regression: ClassVar[bool] = True
    backbone: ClassVar[str | None] = "mlp"
    head: ClassVar[str | None] = "regression"
    name: str = "sinusoid"

    def facts(self) -> DatasetFacts:
        """One input number, and no classes."""
        return DatasetFacts({}, 0, 1, 1)


AMPLITUDE, PHASE, INPUT = (0.1, 5.0), (0.0, math.pi), (-5.0, 5.0)


@dataclass(frozen=True, eq=False)
class SinusoidTasks:
    """T tasks. amplitude A, phase b: float64 [T]. x: float64 [T, shots + queries], support first. dtype: of the
    network's inputs and targets."""

    amplitude: Tensor
    phase: Tensor
    x: Tensor
    shots: int
    dtype: torch.dtype = torch.float32
    origin: None = None

    def __len__(self) -> int:
        return len(self.amplitude)

    def __getitem__(self, tasks: slice | Tensor) -> "SinusoidTasks":
        return replace(self, amplitude=self.amplitude[tasks], phase=self.phase[tasks], x=self.x[tasks])

    def support(self) -> tuple[Tensor, Tensor]:
        """x and y, [T, shots, 1] each."""
        return self._pairs(self.x[:, : self.shots])

    def query(self) -> tuple[Tensor, Tensor]:
        """As `support`, [T, queries, 1]."""
        return self._pairs(self.x[:, self.shots :])

    def asked_at(self, x: Tensor) -> "SinusoidTasks":
        """The same tasks and support sets with the query points `x` [m]."""
        return replace(self, x=torch.cat([self.x[:, : self.shots], x.to(self.x).expand(len(self), -1)], 1))

    def _pairs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.amplitude[:, None] * torch.sin(x - self.phase[:, None])
        return x[..., None].to(self.dtype), y[..., None].to(self.dtype)


class SinusoidSampler:
    """Draws tasks of `shots` support and `queries` query points, on `device`."""

    tensors: tuple[Tensor, ...] = ()  # it keeps no tensors in memory

    def __init__(
        self, stream: str, seed: int, shots: int, queries: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        assert stream in STREAMS, stream
        self.shots, self.queries, self.device, self.dtype = shots, queries, device, dtype
        self._root = root_key(f"sinusoid/{stream}/{seed}")

    def draw(self, first: int, count: int) -> SinusoidTasks:
        """Tasks first, .., first + count - 1 of the stream."""
        words = children(mix(torch.arange(first, first + count, device=self.device) * GAMMA + self._root), 4)
        x = torch.cat([children(words[:, 2], self.shots), children(words[:, 3], self.queries)], 1)
        return SinusoidTasks(
            amplitude=_between(*AMPLITUDE, words[:, 0]),
            phase=_between(*PHASE, words[:, 1]),
            x=_between(*INPUT, x),
            shots=self.shots,
            dtype=self.dtype,
        )


def _between(low: float, high: float, keys: Tensor) -> Tensor:
    return low + (high - low) * uniform(keys)
