"""Small problems in float64 that meta-gradients are compared on: images, sine waves and quadratic tasks."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from memmeta_exp.algorithms import Execution, Learner, build_algorithm
from memmeta_exp.algorithms.losses import LinearHeadConfig, QuadraticLosses, RegressionLosses
from memmeta_exp.backbones import MetaModel, QuadraticModel, build_model
from memmeta_exp.backbones.mlp import MlpConfig
from memmeta_exp.config import MemoryConfig
from memmeta_exp.data import EpisodeSampler, SinusoidSampler, SinusoidTasks, TaskBatch, TaskIndices, load_split
from memmeta_exp.data.datasets import SyntheticConfig
from memmeta_exp.data.quadratic import QuadraticConfig, draw_tasks
from memmeta_exp.data.tasks import Tasks

WAYS, SHOTS, QUERIES, TASKS, CLASSES = 3, 2, 4, 5, 6
RECOMPUTE = MemoryConfig(checkpoint="inner_step")
HALF_TASK = MemoryConfig(mode="half_task")
EPS = 1e-5


class Smooth(nn.Module):
    """A backbone without kinks: tanh of a linear map, in float64."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.map = nn.Parameter(0.05 * torch.randn(3 * 16 * 16, 6, dtype=torch.float64, generator=generator))

    def forward(self, images: Tensor) -> Tensor:
        return torch.tanh((images.flatten(2) - 0.5) @ self.map)


def image_tasks(count: int = TASKS) -> TaskBatch:
    images = load_split(SyntheticConfig(classes=CLASSES, images_per_class=8, image_size=16), "train")
    return EpisodeSampler(images, "train", 0, WAYS, SHOTS, QUERIES).draw(0, count)


def smooth_learner(
    config: Any, chunk: int = 2, memory: MemoryConfig | None = None, workers: int = 1, head: Any = None
) -> Any:  # whose algorithm tests look into
    """On image tasks, of a softmax head unless `head` is another's configuration."""
    head, generator = head or LinearHeadConfig(), torch.Generator().manual_seed(5)
    learned, classes = config.head_start == "learned", CLASSES if config.classifies else None
    model = MetaModel(Smooth(generator), 6, WAYS, learned, generator, classes).double()
    model.cosine = head.cosine
    execution = Execution(chunk if config.head_only else 1, workers=workers)
    return build_algorithm(config, model, execution, memory, head.losses())


def sine_tasks(count: int = 6) -> SinusoidTasks:
    return SinusoidSampler("train", 0, 5, 6, torch.device("cpu"), torch.float64).draw(0, count)


def sine_learner(config: Any, chunk: int = 6, memory: MemoryConfig | None = None) -> Learner:
    """On sine waves, with a perceptron, whose kinks a test takes away."""
    model = build_model(MlpConfig(hidden=[8, 7]), 1, 1, 1, config.head_start == "learned", seed=1).double()
    return build_algorithm(config, model, Execution(chunk), memory, RegressionLosses())


class Quadratics:
    """Tasks of g = <phi - y, S (phi - y)> / 2 with y = M theta + m, and f = |phi - c|^2 / 2 + rho |theta - d|^2 / 2."""

    n, p, q, kappa = 6, 3, 8, 10.0

    def __init__(self) -> None:
        self.tasks = draw_tasks(QuadraticConfig(tasks=self.n, dim_theta=self.p, dim_phi=self.q, kappa=self.kappa))
        self.batch = TaskIndices(torch.arange(self.n))

    def learner(self, config: Any, chunk: int = 6) -> Learner:
        model = QuadraticModel(self.p, self.q, config.head_start == "learned", seed=3).double()
        return build_algorithm(config, model, Execution(chunk), losses=QuadraticLosses(self.tasks))

    def gradient(self, config: Any, chunk: int = 6) -> Tensor:
        """By theta, and by phi_0 where that is learned."""
        learner = self.learner(config, chunk)
        learner.step(self.batch)
        named = {name: p.grad.flatten() for name, p in learner.model.named_parameters() if p.grad is not None}
        return torch.cat([named[name] for name in ("backbone.theta", "head_start") if name in named])

    def start(self, config: Any) -> tuple[Tensor, Tensor]:
        """theta and phi_0."""
        model = self.learner(config).model
        return next(model.backbone.parameters()).detach(), model.head_start.detach().flatten()

    def joint(self) -> tuple[Tensor, Tensor]:
        """Hessian of g in w = (theta, phi) and its gradient at 0, [n, p + q, ...]."""
        t, eye = self.tasks, torch.eye(self.q).double().expand(self.n, -1, -1)
        lift = torch.cat([-t.slope, eye], 2)  # phi - M theta
        return lift.mT @ t.curvature @ lift, -(lift.mT @ t.curvature @ t.offset[..., None]).squeeze(2)

    def descended(self, w: Tensor, steps: int, lr: float, lam: float = 0.0) -> Tensor:
        """w_K [n, p + q] of K steps on g + lam/2 |w_k - w|^2."""
        hessian, slope = self.joint()
        at = w.expand(self.n, -1)
        for _ in range(steps):
            at = at - lr * ((hessian @ at[..., None]).squeeze(2) + slope + lam * (at - w))
        return at

    def query(self, theta: Tensor, phi: Tensor) -> Tensor:
        """The mean of f."""
        t = self.tasks
        return ((phi - t.target).square().sum(1) + t.rho * (theta - t.anchor).square().sum(1)).mean() / 2

    def query_slope(self, w: Tensor) -> Tensor:
        """d_w f, [n, p + q]."""
        t = self.tasks
        return torch.cat([t.rho[:, None] * (w[:, : self.p] - t.anchor), w[:, self.p :] - t.target], 1)


def gradient(learner: Learner, batch: Tasks) -> Tensor:
    """The meta-gradient of all parameters as one vector, those of the head first."""
    learner.model.zero_grad(set_to_none=True)
    learner.step(batch)
    return torch.cat([p.grad.flatten() for p in learner.model.parameters() if p.grad is not None])


def evaluated(learner: Learner, batch: Tasks) -> Tensor:
    """The loss that `evaluate` reports, which knows nothing of the meta-gradient."""
    return learner.evaluate(batch)[1].mean()


def differences(
    learner: Learner, batch: Tasks, loss: Callable[[Learner, Tasks], Tensor] = evaluated
) -> tuple[Tensor, Tensor]:
    """About twelve entries of each parameter's meta-gradient, and the central differences of `loss` there."""
    whole, picked, expected, position = gradient(learner, batch), [], [], 0
    for parameter in learner.model.parameters():
        flat = parameter.data.view(-1)
        for i in range(0, flat.numel(), max(1, flat.numel() // 12)):
            old, values = flat[i].item(), []
            for shift in (EPS, -EPS):
                flat[i] = old + shift
                values.append(loss(learner, batch).item())
            flat[i] = old
            picked.append(whole[position + i])
            expected.append((values[0] - values[1]) / (2 * EPS))
        position += flat.numel()
    assert sum(abs(value) > 1e-4 for value in expected) >= 8, "differences of zero say nothing"
    return torch.stack(picked), torch.tensor(expected, dtype=whole.dtype)
