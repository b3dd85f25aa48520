"""TorchOpt: `MetaSGD` for unrolled algorithms, its implicit differentiation for iMAML and for `proposed`."""

import importlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.peer_libraries.problem import Conv4, Problem, Settings, Step, head_loss

torchopt: Any = importlib.import_module("torchopt")
LIBRARY = torchopt


def maml(problem: Problem) -> Step:
    model, s = problem.model, problem.settings
    inner = torchopt.MetaSGD(model, lr=s.inner_lr)
    start, inner_start = _state(model), _state(inner)

    def step() -> None:
        for task in problem.tasks:
            for _ in range(s.inner_steps):
                inner.step(F.cross_entropy(model(task.x_s), task.y_s))
            (F.cross_entropy(model(task.x_q), task.y_q) / len(problem.tasks)).backward()
            torchopt.recover_state_dict(model, start)
            torchopt.recover_state_dict(inner, inner_start)

    return step


def anil(problem: Problem) -> Step:
    """ANIL and ITD-BiO: computes the features once, and adapts the head on them."""
    model, s = problem.model, problem.settings
    inner = torchopt.MetaSGD(model.head, lr=s.inner_lr)
    start, inner_start = _state(model.head), _state(inner)

    def step() -> None:
        for task in problem.tasks:
            z_s, z_q = model.features(task.x_s), model.features(task.x_q)
            for _ in range(s.inner_steps):
                inner.step(head_loss(model.head, z_s, task.y_s, s.mu))
            (F.cross_entropy(model.head(z_q), task.y_q) / len(problem.tasks)).backward()
            torchopt.recover_state_dict(model.head, start)
            torchopt.recover_state_dict(inner, inner_start)

    return step


def _state(target: Any) -> Any:
    return torchopt.extract_state_dict(target, by="reference")


def _solver(steps: int) -> Any:
    """Conjugate gradients with exactly `steps` steps. TorchOpt's default solves the normal equations instead."""
    return torchopt.linear_solve.solve_cg(maxiter=steps, rtol=0.0, atol=0.0)


def imaml(problem: Problem) -> Step:
    """iMAML: phi by K gradient steps from theta on g = CE + lam/2 |phi - theta|^2, with the implicit meta-gradient
    (I + H/lam)^-1 d_phi f, where H is the Hessian of the cross-entropy."""
    inner = _proximal_class(problem.settings.linear_steps)(problem.model, problem.settings)

    def step() -> None:
        for task in problem.tasks:
            inner.restart()
            inner.solve(task.x_s, task.y_s)
            (F.cross_entropy(inner.net(task.x_q), task.y_q) / len(problem.tasks)).backward()

    return step


def _proximal_class(linear_steps: int) -> Any:
    """A class for this number of linear steps: `ImplicitMetaGradientModule` takes the linear solver at class
    creation."""

    base: Any = torchopt.nn.ImplicitMetaGradientModule

    class Proximal(base, linear_solve=_solver(linear_steps)):  # pyright: ignore[reportGeneralTypeIssues, reportCallIssue]
        def __init__(self, meta: Conv4, settings: Settings) -> None:
            super().__init__()
            self.meta = meta
            self.net = torchopt.module_clone(meta, by="deepcopy", detach_buffers=True)
            self.settings = settings

        def restart(self) -> None:
            """phi <- theta."""
            with torch.no_grad():
                for phi, theta in zip(self.parameters(), self.meta_parameters(), strict=True):
                    phi.detach_().copy_(theta).requires_grad_()

        def objective(self, images: Tensor, labels: Tensor) -> Tensor:
            pairs = zip(self.parameters(), self.meta_parameters(), strict=True)
            offset = sum((phi - theta).square().sum() for phi, theta in pairs)
            return F.cross_entropy(self.net(images), labels) + self.settings.lam / 2 * offset

        def solve(self, images: Tensor, labels: Tensor) -> nn.Module:
            parameters = tuple(self.parameters())
            optimizer = torch.optim.SGD(parameters, lr=self.settings.inner_lr)
            with torch.enable_grad():
                for _ in range(self.settings.inner_steps):
                    optimizer.zero_grad()
                    self.objective(images, labels).backward(inputs=parameters)
                    optimizer.step()
            return self

    return Proximal


def proposed(problem: Problem) -> Step:
    """`proposed`: the implicit gradient of the head by `custom_root`, on features that are computed once."""
    model, s = problem.model, problem.settings
    solve = _head_solver(s)
    start = (model.head.weight, model.head.bias)

    def step() -> None:
        for task in problem.tasks:
            z_s, z_q = model.features(task.x_s), model.features(task.x_q)
            weight, bias = solve(start, z_s, task.y_s)
            (F.cross_entropy(F.linear(z_q, weight, bias), task.y_q) / len(problem.tasks)).backward()

    return step


def _head_solver(s: Settings) -> Any:
    """The function (phi_0, z, labels) -> phi_K for g = CE + mu/2 |phi|^2, with the implicit derivative by z."""

    def objective(phi: tuple[Tensor, Tensor], z: Tensor, labels: Tensor) -> Tensor:
        size = sum(p.square().sum() for p in phi)
        return F.cross_entropy(F.linear(z, *phi), labels) + s.mu / 2 * size

    optimality = torch.func.grad(objective)

    @torchopt.diff.implicit.custom_root(optimality, argnums=1, solve=_solver(s.linear_steps))
    def solve(phi: tuple[Tensor, Tensor], z: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        for _ in range(s.inner_steps):
            grads = optimality(phi, z, labels)
            phi = (phi[0] - s.inner_lr * grads[0], phi[1] - s.inner_lr * grads[1])
        return phi

    return solve


ALGORITHMS = {"maml": maml, "anil": anil, "itd_bio": anil, "imaml": imaml, "proposed": proposed}
