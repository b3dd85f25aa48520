"""References worked by hand, in the docstring of each case."""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from memmeta_exp.algorithms import Unrolled, build_algorithm
from memmeta_exp.algorithms.baseline import BaselineConfig
from memmeta_exp.algorithms.imaml import Imaml, ImamlConfig
from memmeta_exp.algorithms.losses import RegressionLosses
from memmeta_exp.algorithms.maml import FomamlConfig, Maml, MamlConfig
from memmeta_exp.algorithms.proposed import Proposed, ProposedConfig
from memmeta_exp.algorithms.unrolled import AnilConfig, ItdBioConfig
from memmeta_exp.algorithms.weight_space import Task
from memmeta_exp.backbones import MetaModel
from memmeta_exp.data import EpisodeSampler, ImageSet
from tests.algorithms.gradients.cases import BASELINE, EXACT, Compared, case
from tests.algorithms.problems import (
    gradient,
)


def one(value: float) -> Tensor:
    return torch.full((1, 1, 1), value, dtype=torch.float64)


@case("proposed", "by hand", regression=replace(EXACT, mu=2.0))
def regression_on_a_point(config: ProposedConfig) -> Compared:
    """One support point z = 1, y = 2 and mu = 2: phi* = y (z, 1) / (mu + z^2 + 1) = (1/2, 1/2). At z_q = 2, y_q = 0 it
    says p = y (z z_q + 1) / (mu + z^2 + 1) = 3/2, so f = 9/4, d_zq f = 2 p / 2 = 3/2, and with
    d_z p = y (z_q (mu + z^2 + 1) - 2 z (z z_q + 1)) / (mu + z^2 + 1)^2 = 1/4:  d_z f = 2 p / 4 = 3/4."""
    algorithm = Proposed(config, RegressionLosses())
    found = algorithm.feature_gradient((one(1), one(2)), (one(2), one(0)), torch.zeros(1, 2).double(), {})
    parts = (found.inner.value[0].flatten(), found.loss, found.d_query.flatten(), found.d_support.flatten())
    return torch.cat(parts), torch.tensor([0.5, 0.5, 2.25, 1.5, 0.75], dtype=torch.float64), 1e-9


@case("anil", "by hand", plain=AnilConfig(inner_steps=1, inner_lr=0.5))
@case("itd_bio", "by hand", plain=ItdBioConfig(inner_steps=1, inner_lr=0.5, mu=0.0))
@case("itd_bio", "by hand", R=ItdBioConfig(inner_steps=1, inner_lr=0.5, mu=0.3))
def one_step_on_a_point(config: AnilConfig) -> Compared:
    """One step of 1/2 from phi_0 = 0 on the one support point z = 1, y = 2, and one query point z = 2, y = 0, whose
    squared error is f. phi = (w, b), e = w z + b - y:

        phi_1 = 0 - 1/2 e (z, 1) = (1, 1),   f = (2 w + b)^2 = 9,   d_zq f = 2 * 3 w = 6,   d_phi1 f = 2 * 3 (2, 1)
        d_zs phi_1 = - 1/2 (e + w z, w) at phi_0 = (1, 0),                        d_zs f = 12
        d_phi0 phi_1 = I - 1/2 ((1, 1), (1, 1)) - mu/2 I,                         d_phi0 f = (3, -3) - mu/2 (12, 6)
    """
    algorithm, start = Unrolled(config, RegressionLosses()), torch.zeros(1, 2, dtype=torch.float64)
    found = algorithm.feature_gradient((one(1), one(2)), (one(2), one(0)), start, {})
    parts = (found.inner.value[0], found.loss, found.d_query, found.d_support, found.d_start)
    expected = torch.tensor([1, 1, 9, 6, 12, 3 - 6 * config.mu, -3 - 3 * config.mu], dtype=torch.float64)
    return torch.cat([part.flatten() for part in parts]), expected, 1e-14


class OneNumber(Task):
    """g = a/2 (w - 3)^2 and f = (w - 1)^2 / 2 of one number, w_0 = 0."""

    learned, stacked = ("head_start",), False

    def __init__(self, a: float) -> None:
        self.a, self.meta = a, {"head_start": torch.zeros(1, dtype=torch.float64)}

    def support_loss(self, weights: dict[str, Tensor]) -> Tensor:
        return self.a / 2 * (weights["head_start"] - 3).square().sum()

    def query_loss(self, weights: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return (weights["head_start"] - 1).square().sum() / 2, torch.ones((), dtype=torch.float64)


@case("maml", "by hand", one=(1, False, 0.25), one_by_adjoint=(1, True, 0.25))
@case("maml", "by hand", two=(2, False, 0.25 * 1.25), two_by_adjoint=(2, True, 0.25 * 1.25))
def steps_on_a_number(steps: int, recompute: bool, expected: float) -> Compared:
    """a = 1, step 1/2: w_1 = 1.5 and dF/dw_0 = (1 - 1/2) (1.5 - 1); w_2 = 2.25 and dF/dw_0 = 1/4 (2.25 - 1)."""
    config = MamlConfig(inner_steps=steps, inner_lr=0.5)
    found = Maml(config, recompute).meta_gradient(OneNumber(1.0))
    return found.grads["head_start"], torch.tensor([expected], dtype=torch.float64), 1e-15


@case("fomaml", "by hand", one=(1, 0.5), two=(2, 1.25))
def first_order_steps_on_a_number(steps: int, expected: float) -> Compared:
    """As above, without the factor of a step: w_1 - 1 and w_2 - 1."""
    found = Maml(FomamlConfig(inner_steps=steps, inner_lr=0.5)).meta_gradient(OneNumber(1.0))
    return found.grads["head_start"], torch.tensor([expected], dtype=torch.float64), 1e-15


@case("imaml", "by hand", plain=(0.0, 0.25), damped=(4.0, 1 / 3))
def proximal_number(damping: float, expected: float) -> Compared:
    """a = 4, lam = 4: phi* = 3a/(a + lam) = 1.5, dF = (1 + 4/4)^-1 (1.5 - 1) = 0.25; with damping 4 the system is
    (4 + 8) v = 0.5 and dF = 8 v = 1/3. The step is no power of two: the solve is exact."""
    config = ImamlConfig(lam=4.0, inner_steps=200, inner_lr=0.1, damping=damping)
    found = Imaml(config).meta_gradient(OneNumber(4.0))
    assert found.inner_residual is not None
    assert found.inner_residual.item() < 1e-12, "the damping is no part of the lower level"
    return found.grads["head_start"], torch.tensor([expected], dtype=torch.float64), 1e-11


@case("baseline", "by hand", plain=BASELINE)
def black_and_white(config: BaselineConfig) -> Compared:
    """One feature, 1 or -1, two classes, V = [[1, 0], [-1, 0]]: every image costs ln(1 + e^-2). White images, half of
    all, pull at V with -p (1, 1), black ones with p (-1, 1), p = sigmoid(-2): their biases cancel."""

    class Mean(nn.Module):
        """1 for a white image, -1 for a black one."""

        def forward(self, x: Tensor) -> Tensor:
            return 2 * x.mean((2, 3, 4))[..., None] - 1

    images = torch.full((2, 8, 3, 16, 16), 255, dtype=torch.uint8)
    images[1] = 0
    model = MetaModel(Mean(), 1, 2, False, torch.Generator(), classes=2).double()
    assert model.classifier is not None
    model.classifier.data = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    batch = EpisodeSampler(ImageSet(images, ("white", "black")), "train", 0, 2, 1, 3).draw(0, 2)
    learner = build_algorithm(config, model)
    p, found = 1 / (1 + math.exp(2)), gradient(learner, batch)
    report = learner.step(batch)
    torch.testing.assert_close(report.loss, torch.full((2,), -math.log(1 - p), dtype=torch.float64))
    assert report.accuracy is not None
    assert report.accuracy.tolist() == [1, 1]
    return found, torch.tensor([-p, 0, p, 0], dtype=torch.float64), 1e-14
