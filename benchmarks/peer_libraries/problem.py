"""The input of every library: the same tasks, initial weights and hyperparameters, and for the peers a network.

The network is the usual Conv4: 4 x [conv3x3 (pad 1), batch norm, ReLU, max-pool 2] and a linear head. It computes the
same function as `memmeta_exp.backbones`; tests/benchmarks compares them. Batch norm always uses the statistics of its
input, so support and query are normalised separately.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Step = Callable[[], None]  # adds the mean meta-gradient of the tasks to the parameters' .grad


@dataclass(frozen=True)
class Settings:
    """The hyperparameters of one algorithm.

    lam: weight of iMAML's lam/2 |phi - theta|^2. mu: weight of mu/2 |phi|^2 in g of head-only algorithms. linear_steps:
    steps of conjugate gradients; 0: no linear system. learned: the start of the head is a meta-parameter.
    """

    inner_steps: int
    inner_lr: float = 0.1
    linear_steps: int = 0
    lam: float = 0.0
    mu: float = 0.0
    learned: bool = True


# iMAML: with the published lam = 2 the matrix H + lam I is indefinite at these weights. Our conjugate gradients then
# stop, the peer's continue. With lam = 50 both do all steps, with the same result.
SETTINGS = {
    "maml": Settings(inner_steps=5),
    "fomaml": Settings(inner_steps=5),
    "imaml": Settings(inner_steps=5, inner_lr=0.01, linear_steps=5, lam=50.0),
    "anil": Settings(inner_steps=10),
    "itd_bio": Settings(inner_steps=20, mu=1e-4, learned=False),
    "proposed": Settings(inner_steps=20, linear_steps=20, mu=0.1, learned=False),
}
# Settings for comparing gradients, if they differ from the timed ones. In every library, 20 steps of conjugate
# gradients on the Hessian of a head amplify rounding errors of 1e-15 to 1e-6; 5 steps do not.
COMPARED = {**SETTINGS, "proposed": replace(SETTINGS["proposed"], linear_steps=5)}


@dataclass(frozen=True)
class Task:
    """Images in [0, 1] [n, C, H, W] and labels [n] of the support and the query set."""

    x_s: Tensor
    y_s: Tensor
    x_q: Tensor
    y_q: Tensor


class Conv4(nn.Module):
    """Maps images [n, C, H, W] to logits [n, ways]; `features` returns the input of the head.

    tuned: max-pool before ReLU, the same function with a quarter of the ReLU's work and memory.
    """

    def __init__(self, widths: list[int], features: int, ways: int, bias: bool, tuned: bool) -> None:
        super().__init__()
        pairs = list(pairwise(widths))
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1, bias=bias) for a, b in pairs)
        self.norms = nn.ModuleList(nn.BatchNorm2d(b, track_running_stats=False) for _, b in pairs)
        self.head = nn.Linear(features, ways)
        self.tuned = tuned

    def features(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(conv(x))
            x = F.relu(F.max_pool2d(x, 2)) if self.tuned else F.max_pool2d(F.relu(x), 2)
        return x.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


@dataclass(frozen=True)
class Problem:
    """The input of one algorithm in a peer library."""

    model: Conv4
    tasks: list[Task]
    settings: Settings


def load_problem(file: Path, settings: Settings, dtype: torch.dtype, tuned: bool) -> Problem:
    """The problem stored in `file`: "images" uint8 [T, ways, shots + queries, C, H, W], "shots", and "state", the
    weights under the names of `memmeta_exp.backbones.MetaModel`. tuned: use the optimised version of the peers'
    network."""
    stored = torch.load(file, weights_only=True)
    model = build_network(stored["state"], dtype, tuned)
    tasks = [task_of(images, stored["shots"], dtype, tuned) for images in stored["images"]]
    return Problem(model, tasks, settings)


def task_of(images: Tensor, shots: int, dtype: torch.dtype, tuned: bool) -> Task:
    """A task from its images uint8 [ways, shots + queries, C, H, W], support first."""
    x_s, x_q = (part.flatten(0, 1).to(dtype) / 255 for part in (images[:, :shots], images[:, shots:]))
    if tuned:
        x_s, x_q = (x.contiguous(memory_format=torch.channels_last) for x in (x_s, x_q))
    labels = torch.arange(len(images))
    return Task(x_s, labels.repeat_interleave(shots), x_q, labels.repeat_interleave(images.shape[1] - shots))


def build_network(state: dict[str, Tensor], dtype: torch.dtype, tuned: bool) -> Conv4:
    """The network with the weights of `state`. Its convolutions have biases if `state` has them."""
    weights = {name.removeprefix("backbone."): tensor for name, tensor in state.items() if name != "head_start"}
    start = state["head_start"]
    blocks = [tensor for name, tensor in weights.items() if name.startswith("convs.") and name.endswith(".weight")]
    widths = [blocks[0].shape[1], *[tensor.shape[0] for tensor in blocks]]
    model = Conv4(widths, start.shape[1] - 1, len(start), "convs.0.bias" in weights, tuned)
    model.load_state_dict({**weights, "head.weight": start[:, :-1], "head.bias": start[:, -1]})
    model = model.to(dtype)
    return model.to(memory_format=torch.channels_last) if tuned else model  # pyright: ignore[reportCallIssue]


def head_loss(head: nn.Module, z: Tensor, labels: Tensor, mu: float) -> Tensor:
    """g of the head-only algorithms, CE + mu/2 |phi|^2, for a head wrapped by any library."""
    loss = F.cross_entropy(head(z), labels)
    return loss + mu / 2 * sum(p.square().sum() for p in head.parameters()) if mu else loss


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """The .grad of every parameter; those of a `Conv4` under the names of a `MetaModel`."""
    found = {name: p.grad.detach().clone() for name, p in model.named_parameters() if p.grad is not None}
    if not isinstance(model, Conv4):
        return found
    head = [found.pop(f"head.{name}") for name in ("weight", "bias") if f"head.{name}" in found]
    named = {f"backbone.{name}": tensor.contiguous() for name, tensor in found.items()}
    return {**named, "head_start": torch.cat([head[0], head[1][:, None]], 1)} if head else named


def gradient_error(found: dict[str, Tensor], reference: dict[str, Tensor]) -> float:
    """max over tensors t of |found_t - reference_t| / max(|reference_t|, 1e-3 |reference|); a missing tensor is 0.

    The lower bound of the denominator is for tensors with zero gradient up to rounding (biases before a batch norm).
    """
    floor = 1e-3 * sum(float(tensor.double().square().sum()) for tensor in reference.values()) ** 0.5
    errors = []
    for name in found.keys() | reference.keys():
        mine, theirs = (side.get(name, torch.zeros(())).double() for side in (found, reference))
        errors.append(float((mine - theirs).norm()) / max(float(theirs.norm()), floor))
    return max(errors)


def describe(error: BaseException) -> str:
    """One line: the kind of error and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def module_version(module: ModuleType) -> str:
    """The installed version of a library, or its own `__version__`."""
    try:
        return version(module.__name__)
    except PackageNotFoundError:
        return str(getattr(module, "__version__", "?"))
