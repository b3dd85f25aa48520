"""Heterogeneous quadratic tasks, drawn from a seed."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from memmeta_exp.bilevel import QuadraticTasks
from memmeta_exp.config.components import DatasetConfig
from memmeta_exp.config.registry import register
from memmeta_exp.config.section import option
from memmeta_exp.utils.errors import ConfigError

MAX_NUMBERS = 2**28  # float64 numbers of all S_i and M_i together: 2 GiB


@register
@dataclass(frozen=True)
class QuadraticConfig(DatasetConfig):
    """Quadratic tasks: F, its gradient and its minimiser have closed forms.

    `draw_tasks` has the formulas.
    """

    has_images: ClassVar[bool] = False
    has_finite_tasks: ClassVar[bool] = True
    has_classes: ClassVar[bool] = False
    knows_smoothness: ClassVar[bool] = True
    modulus: ClassVar[float] = 1.0
    backbone: ClassVar[str | None] = "none"
    name: str = "quadratic"
    tasks: int = option(16, "n: number of tasks", at_least=1)
    dim_theta: int = option(10, "p: dimension of theta", at_least=1)
    dim_phi: int = option(20, "q: dimension of phi", at_least=2)
    kappa: float = option(
        10.0, "condition number of g: L_g = kappa and modulus 1 (algorithm.mu above 0 adds to both)", at_least=1
    )
    heterogeneity: float = option(
        1.0, "h: difference between tasks in everything but their spectra; 0: no difference", at_least=0
    )
    seed: int = option(0, "seed of the tasks, independent of the run's seed", at_least=0, at_most=2**63 - 1)

    def check(self) -> None:
        numbers = self.tasks * self.dim_phi * (self.dim_phi + self.dim_theta)
        if numbers > MAX_NUMBERS:
            raise ConfigError(
                f"dataset=quadratic would take {numbers / 2**27:.0f} GiB; lower dataset.tasks, dim_phi or dim_theta to "
                "stay below 2 GiB"
            )


RHO = 0.1  # weight of rho/2 |theta - d_i|^2 in f, so that f has a direct derivative by theta


def draw_tasks(config: QuadraticConfig) -> QuadraticTasks:
    """The n tasks of `config`, in float64. h is the heterogeneity, E has independent standard normal entries for every
    task, and E_0 has standard normal entries shared by all tasks:

        M_i = (E_0 + h/2 E) / sqrt q    m_i = h E / sqrt q    c_i = (E_0 + h E) / sqrt q    d_i = (E_0 + h E) / sqrt p
        S_i = Q_i diag(lambda) Q_i^T,  Q_i uniform among rotations,
        lambda_j = (kappa + 1)/2 - (kappa - 1)/2 cos(pi j / (q - 1)),  j = 0..q-1

    The lambda_j are the extrema of a Chebyshev polynomial on [1, kappa], a worst case for conjugate gradients: for
    N < q steps their error attains the bound ((sqrt kappa - 1)/(sqrt kappa + 1))^N up to a constant.
    """
    generator = np.random.Generator(np.random.Philox(key=config.seed))
    n, p, q, h = config.tasks, config.dim_theta, config.dim_phi, config.heterogeneity

    def spread(width: float, scale: int, *shape: int) -> torch.Tensor:
        """(E_0 + width * E) / sqrt(scale): [n, *shape]."""
        common, own = generator.standard_normal(shape), generator.standard_normal((n, *shape))
        return torch.from_numpy((common + width * own) / math.sqrt(scale))

    slope, target, anchor = spread(h / 2, q, q, p), spread(h, q, q), spread(h, p, p)
    offset = torch.from_numpy(h * generator.standard_normal((n, q)) / math.sqrt(q))
    eigenvalues = chebyshev_extrema(config.kappa, q)
    rotation = torch.linalg.qr(torch.from_numpy(generator.standard_normal((n, q, q)))).Q
    curvature = (rotation * eigenvalues) @ rotation.mT
    return QuadraticTasks(
        curvature=(curvature + curvature.mT) / 2,
        slope=slope,
        offset=offset,
        target=target,
        anchor=anchor,
        rho=torch.full((n,), RHO, dtype=torch.float64),
        least=torch.full((n,), config.modulus, dtype=torch.float64),
        largest=torch.full((n,), config.kappa, dtype=torch.float64),
    )


def chebyshev_extrema(kappa: float, count: int) -> torch.Tensor:
    """The `count` extrema of a Chebyshev polynomial on [1, kappa], ascending, including both ends: float64 [count]."""
    angle = torch.arange(count, dtype=torch.float64) * (math.pi / (count - 1))
    return (kappa + 1) / 2 - (kappa - 1) / 2 * angle.cos()
