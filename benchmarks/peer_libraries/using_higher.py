"""higher, as in its MAML example: per task an `innerloop_ctx`, with backward of the query loss inside."""

import importlib
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.peer_libraries.problem import Problem, Step, head_loss

higher: Any = importlib.import_module("higher")
LIBRARY = higher


def _sgd(module: nn.Module, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), lr=lr)


def maml(problem: Problem) -> Step:
    model, s = problem.model, problem.settings
    optimizer = _sgd(model, s.inner_lr)

    def step() -> None:
        for task in problem.tasks:
            with higher.innerloop_ctx(model, optimizer, copy_initial_weights=False) as (net, inner):
                for _ in range(s.inner_steps):
                    inner.step(F.cross_entropy(net(task.x_s), task.y_s))
                (F.cross_entropy(net(task.x_q), task.y_q) / len(problem.tasks)).backward()

    return step


def fomaml(problem: Problem) -> Step:
    """FOMAML: `track_higher_grads=False` keeps no graph, so the gradient of the adapted weights is copied to the
    initial weights."""
    model, s = problem.model, problem.settings
    optimizer = _sgd(model, s.inner_lr)

    def step() -> None:
        for task in problem.tasks:
            with higher.innerloop_ctx(model, optimizer, track_higher_grads=False) as (net, inner):
                for _ in range(s.inner_steps):
                    inner.step(F.cross_entropy(net(task.x_s), task.y_s))
                loss = F.cross_entropy(net(task.x_q), task.y_q) / len(problem.tasks)
                found = torch.autograd.grad(loss, list(net.parameters()))
            for parameter, grad in zip(model.parameters(), found, strict=True):
                parameter.grad = grad if parameter.grad is None else parameter.grad.add_(grad)

    return step


def anil(problem: Problem) -> Step:
    """ANIL and ITD-BiO: computes the features once, and adapts the head on them."""
    model, s = problem.model, problem.settings
    optimizer = _sgd(model.head, s.inner_lr)

    def step() -> None:
        for task in problem.tasks:
            z_s, z_q = model.features(task.x_s), model.features(task.x_q)
            with higher.innerloop_ctx(model.head, optimizer, copy_initial_weights=False) as (head, inner):
                for _ in range(s.inner_steps):
                    inner.step(head_loss(head, z_s, task.y_s, s.mu))
                (F.cross_entropy(head(z_q), task.y_q) / len(problem.tasks)).backward()

    return step


ALGORITHMS = {"maml": maml, "fomaml": fomaml, "anil": anil, "itd_bio": anil}
