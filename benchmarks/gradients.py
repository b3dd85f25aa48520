"""How far the meta-gradient of a batch survives its arithmetic, at the paper's settings: two tables.

    python -m benchmarks.gradients [--dataset cifar_fs --data-root DIR] [--tasks 8] [--seed 0]
                                   [--algorithms maml,fomaml,...] [--steps 1,2,4,8,12,16,20] [--out FILE.json]

The first compares the gradient by theta of each algorithm in float32 and with `precision=bf16` with that in float64:
its cosine, and the relative distance. The second takes `proposed` as released (mu = 0, undamped conjugate gradients)
with N steps: the relative distance of its float64 gradient from an independent float64 formula (`by_formula`: the
Hessian as a matrix, the cross derivative by autograd), that of float32 from float64, its norm, the largest relative
residual of H v = d_phi f, and its cosine to the exact gradient with mu = 0.01. Initial weights of one seed, the batch
of iteration 1.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.arguments import at_least, names
from memmeta_exp.config.compose import jobs
from memmeta_exp.data.episodes import half
from memmeta_exp.experiment.builder import Experiment, build
from memmeta_exp.tracking.environment import cpu_model

ALGORITHMS = ("maml", "fomaml", "imaml", "anil", "itd_bio", "proposed")
STEPS = "1,2,4,8,12,16,20"
EXACT = (
    "algorithm.mu=0.01", "algorithm.inner_solver=newton", "algorithm.inner_steps=100",
    "algorithm.inner_tolerance=1e-9", "algorithm.linear_solver=direct",
)  # fmt: skip


def experiment(options: argparse.Namespace, algorithm: str, precision: str, *more: str) -> Experiment:
    """The released settings of `algorithm` on the batch that the options ask for."""
    (config,) = jobs(
        [
            "experiment=paper/released", f"algorithm={algorithm}", f"dataset={options.dataset}", f"seed={options.seed}",
            *([f"data_root={options.data_root}"] if options.data_root else []), f"precision={precision}",
            f"batch_size={options.tasks}", "device=cpu", "threads=1", "tracking=disabled", *more,
        ],
        multirun=False,
    )  # fmt: skip
    return build(config)


def gradient(of: Experiment) -> tuple[Tensor, float]:
    """dF/dtheta over the batch of iteration 1, flat, in float64, and the largest linear residual."""
    report = of.learner.step(of.samplers["train"].draw(0, of.config.batch_size))
    residual = 0.0 if report.linear_residual is None else float(report.linear_residual.max())
    return flat(of), residual


def flat(of: Experiment) -> Tensor:
    return torch.cat([p.grad.flatten().double() for p in of.model.parameters() if p.grad is not None])


def by_formula(of: Experiment, steps: int) -> Tensor:
    """The gradient of `proposed` as released, without a line of the package's solvers: K gradient steps, `steps` of
    conjugate gradients on the Hessian as a matrix, and autograd for every derivative by features."""
    model, algorithm = of.model, of.config.algorithm
    model.zero_grad(set_to_none=True)
    tasks = of.samplers["train"].draw(0, of.config.batch_size)
    for k in range(len(tasks)):
        (z_s, y_s), (z_q, y_q) = (features(of, tasks[k : k + 1], part) for part in ("support", "query"))
        phi = model.head_start.detach().clone()
        for _ in range(algorithm.inner_steps):
            phi.requires_grad_()
            (slope,) = torch.autograd.grad(cross_entropy(with_ones(z_s.detach()) @ phi.mT, y_s), phi)
            phi = phi.detach() - algorithm.inner_lr * slope
        phi.requires_grad_()
        upper = cross_entropy(with_ones(z_q) @ phi.mT, y_q)
        b, d_query = torch.autograd.grad(upper, (phi, z_q))
        v = conjugate_gradients(hessian(with_ones(z_s.detach()), phi.detach()), b.flatten(), steps).view_as(phi)
        (slope,) = torch.autograd.grad(cross_entropy(with_ones(z_s) @ phi.mT, y_s), phi, create_graph=True)
        (d_support,) = torch.autograd.grad((slope * v).sum(), z_s)
        torch.autograd.backward((z_s, z_q), (-d_support / len(tasks), d_query / len(tasks)))
    return flat(of)


def features(of: Experiment, task: Any, part: Any) -> tuple[Tensor, Tensor]:
    """Features [n, d] with a graph to theta, and labels [n], of one task's `part`."""
    given = half(task, part)
    images = given.images.to(of.model.head_start.dtype)
    return of.model.backbone(images / 255 if given.images.dtype == torch.uint8 else images)[0], given.labels[0]


def with_ones(z: Tensor) -> Tensor:
    return torch.cat([z, z.new_ones(len(z), 1)], 1)


def hessian(z: Tensor, phi: Tensor) -> Tensor:
    """1/n sum_i (diag p_i - p_i p_i^T) (x) z_i z_i^T, [C (d + 1), C (d + 1)]."""
    p = torch.softmax(z @ phi.mT, 1)
    curved = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    return (torch.einsum("nab,ni,nj->aibj", curved, z, z) / len(z)).reshape(phi.numel(), phi.numel())


def conjugate_gradients(a: Tensor, b: Tensor, steps: int) -> Tensor:
    """The textbook's, from 0."""
    x, r, p = torch.zeros_like(b), b, b
    for _ in range(steps):
        ap = a @ p
        alpha = r @ r / (p @ ap)
        x, after = x + alpha * p, r - alpha * ap
        p, r = after + (after @ after) / (r @ r) * p, after
    return x


def apart(found: Tensor, true: Tensor) -> float:
    return float((found - true).norm() / true.norm())


def cosine(found: Tensor, true: Tensor) -> float:
    return float(found @ true / (found.norm() * true.norm()))


def precisions(options: argparse.Namespace) -> dict[str, Any]:
    """The first table, printed as it comes."""
    rows: dict[str, Any] = {}
    print("algorithm   cosine to float64: float32       bf16   distance: float32     bf16")
    for name in options.algorithms:
        true, single, half_precision = (gradient(experiment(options, name, p))[0] for p in ("fp64", "fp32", "bf16"))
        row = rows[name] = {
            "cosine": [cosine(single, true), cosine(half_precision, true)],
            "distance": [apart(single, true), apart(half_precision, true)],
            "norm": float(true.norm()),
        }
        (a, b), (c, d) = row["cosine"], row["distance"]
        print(f"{name:10} {a:28.6f} {b:10.4f} {c:19.1e} {d:8.1e}", flush=True)
    return rows


def steps_table(options: argparse.Namespace) -> dict[str, Any]:
    """The second table, printed as it comes."""
    rows: dict[str, Any] = {}
    exact, _ = gradient(experiment(options, "proposed", "fp64", *EXACT))
    print(f"\nexact gradient, mu = 0.01: |g| {float(exact.norm()):.4g}")
    print(" N   float64 to formula  float32 to float64     |g|     residual  cosine to exact")
    for n in options.steps:
        key = f"algorithm.linear_steps={n}"
        wide = experiment(options, "proposed", "fp64", key)
        found, residual = gradient(wide)
        row = rows[str(n)] = {
            "to_formula": apart(found, by_formula(wide, n)),
            "float32": apart(gradient(experiment(options, "proposed", "fp32", key))[0], found),
            "norm": float(found.norm()),
            "residual": residual,
            "cosine_to_exact": cosine(found, exact),
        }
        print(
            f"{n:2d} {row['to_formula']:20.1e} {row['float32']:19.1e} {row['norm']:11.4g} {residual:10.1e} "
            f"{row['cosine_to_exact']:13.3f}",
            flush=True,
        )
    return {"rows": rows, "exact_norm": float(exact.norm())}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="synthetic", choices=("synthetic", "cifar_fs", "fc100"))
    parser.add_argument("--data-root")
    parser.add_argument("--tasks", type=at_least(1), default=8)
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument("--algorithms", default=",".join(ALGORITHMS), help="of the first table; empty: none")
    parser.add_argument("--steps", default=STEPS, help="of the second table; empty: none")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    options.algorithms = names(parser, "algorithm", options.algorithms, ALGORITHMS)
    try:
        options.steps = [at_least(1)(text) for text in options.steps.split(",") if text]
    except (argparse.ArgumentTypeError, ValueError) as error:
        parser.error(str(error))
    found = {"precisions": precisions(options) if options.algorithms else {}}
    found |= {"steps": steps_table(options) if options.steps else {}}
    found |= {key: getattr(options, key) for key in ("dataset", "tasks", "seed")}
    text = json.dumps(found | {"torch": torch.__version__, "cpu": cpu_model()}, indent=1)
    if options.out is not None:
        options.out.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
