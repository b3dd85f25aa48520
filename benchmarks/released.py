"""The step structure of the released code of Algorithm 1, for comparison. It processes task by task and recomputes
features with a graph at every inner step, although only the head moves. It keeps a second-order graph that is not used,
computes Hessian-vector products through the features, and keeps the query graph to the end of the task. torch's
operators are in the order conv, batch norm, ReLU, pooling.

As a command it measures the memory of one 5-way 5-shot task with 5 queries on Conv4-64, and writes JSON:

    python -m benchmarks.released [--sizes 32,84] [--steps 5,10,15,20] [--out docs/results/released_memory.json]

It is written from the description in docs/theory.md, not from the code. Its meta-gradient equals that of
`proposed` with inner_solver=gd, linear_solver=cg and mu=0 (tests/benchmarks/test_gpu.py).
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from memmeta_exp.backbones import MetaModel, build_model
from memmeta_exp.backbones.conv4 import Conv4Config
from memmeta_exp.data import EpisodeSampler, TaskBatch, load_split
from memmeta_exp.data.datasets import SyntheticConfig
from memmeta_exp.profiling.peak_memory import measure_peak

LINEAR_STEPS = 5  # the peak does not depend on it


def released_step(model: MetaModel, batch: TaskBatch, steps: int, lr: float, linear_steps: int) -> None:
    """Adds the mean meta-gradient of the batch to the backbone's .grad. The head starts from the frozen phi_0."""
    theta, start = list(model.backbone.parameters()), model.head_start
    for at in range(len(batch)):
        (x_s, y_s), (x_q, y_q) = (
            (x.to(start.device, start.dtype).div_(255), y[0].to(start.device))
            for x, y in (batch[at : at + 1].support(), batch[at : at + 1].query())
        )
        head = start.detach().requires_grad_()
        for _ in range(steps):
            (slope,) = torch.autograd.grad(_loss(model, x_s, y_s, head), head, create_graph=True)
            head = (head - lr * slope).detach().requires_grad_()
        query = _loss(model, x_q, y_q, head)
        d_theta = torch.autograd.grad(query, theta, retain_graph=True)
        (d_head,) = torch.autograd.grad(query, head, retain_graph=True)
        (slope,) = torch.autograd.grad(_loss(model, x_s, y_s, head), head, create_graph=True)

        def product(v: Tensor, slope: Tensor = slope, head: Tensor = head) -> Tensor:
            return torch.autograd.grad(slope, head, v, retain_graph=True)[0]

        cross = torch.autograd.grad(slope, theta, _conjugate_gradients(product, d_head, linear_steps))
        for parameter, a, b in zip(theta, d_theta, cross, strict=True):
            gradient = (a - b) / len(batch)
            parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)


def _loss(model: MetaModel, images: Tensor, labels: Tensor, head: Tensor) -> Tensor:
    z = model.backbone(images)[0]
    return F.cross_entropy(F.linear(z, head[:, :-1], head[:, -1]), labels)


def _conjugate_gradients(product: Callable[[Tensor], Tensor], b: Tensor, steps: int) -> Tensor:
    """Conjugate gradients without tolerance or damping."""
    x, r, p = torch.zeros_like(b), b, b
    for _ in range(steps):
        image = product(p)
        rr = (r * r).sum()
        alpha = rr / (p * image).sum()
        x, r = x + alpha * p, r - alpha * image
        p = r + (r * r).sum() / rr * p
    return x


def peak_mib(size: int, steps: int, filters: int = 64) -> float:
    """Peak MiB of a step on one task of `size` x `size` images above persistent tensors: live tensors on a CPU, without
    scratch memory of operators."""
    images = load_split(SyntheticConfig(classes=6, images_per_class=12, image_size=size), "train")
    batch = EpisodeSampler(images, "train", 0, 5, 5, 5).draw(0, 1)
    model = build_model(Conv4Config(filters=filters, block="plain"), 3, size, 5, False, seed=0)
    step = partial(released_step, model, batch, steps, 0.1, LINEAR_STEPS)
    return measure_peak(step, torch.device("cpu"), [model, images.images])[1].above_baseline_mib


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=_numbers, default=[32, 84])
    parser.add_argument("--steps", type=_numbers, default=[5, 10, 15, 20])
    parser.add_argument("--filters", type=int, default=64)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    found = {
        f"{s}x{s}": {f"K={k}": round(peak_mib(s, k, options.filters), 2) for k in options.steps} for s in options.sizes
    }
    text = json.dumps({"above_baseline_mib": found, "filters": options.filters, "tasks": 1}, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")
    return 0


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
