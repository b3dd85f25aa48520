"""What a meta-step reports of each task, and the metrics that a run logs of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class StepReport:
    """The report of one meta-step, per task: tensors [B] on the device, None for what the algorithm does not have.

    loss, accuracy: on the query set after adaptation; the loss is in nats, or a squared error. inexact: a solve was too
    inaccurate, so the task's hypergradient is not the gradient of what is minimised. gradients: gradients of f or g
    that were evaluated. products: derivatives of < d_phi g, v > that were evaluated. inner_residual: |d_phi g| where
    the inner solver stopped. linear_residual: |b - A x| / |b|. inner_steps, linear_steps: steps taken. smoothness: the
    bound on L_g of a head-only lower level. metrics: other numbers that the algorithm wants logged, by their names in
    metrics.jsonl and W&B; the mean over the tasks is logged.
    """

    loss: Tensor
    accuracy: Tensor | None
    inexact: Tensor
    gradients: Tensor
    products: Tensor
    inner_residual: Tensor | None = None
    inner_steps: Tensor | None = None
    linear_residual: Tensor | None = None
    linear_steps: Tensor | None = None
    smoothness: Tensor | None = None
    metrics: Mapping[str, Tensor] = field(default_factory=dict)

    @staticmethod
    def join(parts: list["StepReport"]) -> "StepReport":
        """The reports of consecutive tasks as one."""

        def column(name: str) -> Any:
            values = [getattr(part, name) for part in parts]
            return None if values[0] is None else _joined(values)

        return StepReport(**{f.name: column(f.name) for f in fields(StepReport)})

    def logged(self, mu: float) -> dict[str, float]:
        """The metrics of the step that a run logs, for what the algorithm has, in one read from the device. mu: g's
        modulus. docs/outputs.md defines the keys."""
        values = {name: metric.double().mean() for name, metric in self.metrics.items()}
        values["train/loss"] = self.loss.mean()
        if self.accuracy is not None:
            values["train/acc"] = self.accuracy.mean()
        values |= {
            "hypergrad/inexact_fraction": self.inexact.double().mean(),
            "cost/gradient_evaluations": self.gradients.sum(),
            "cost/hessian_vector_products": self.products.sum(),
        }
        if self.inner_residual is not None:
            values["inner/grad_norm_max"] = self.inner_residual.max()
        if self.smoothness is not None:
            smoothness = self.smoothness.max()
            values["inner/L_g"] = smoothness
            values["inner/kappa"] = smoothness / mu if mu else torch.full_like(smoothness, torch.inf)
        if self.linear_residual is not None:
            values["linear/residual_max"] = self.linear_residual.max()
        for key, steps in (("inner/steps", self.inner_steps), ("linear/steps", self.linear_steps)):
            if steps is not None:
                values[key] = steps.double().mean()
        numbers = torch.stack([value.double() for value in values.values()]).tolist()
        return dict(zip(values, numbers, strict=True))


def _joined(values: list[Any]) -> Any:
    """Tensors one after the other; of mappings, those of each key."""
    if isinstance(values[0], Mapping):
        return {key: torch.cat([value[key] for value in values]) for key in values[0]}
    return torch.cat(values)
