"""What every library is given: the same tasks, initial weights and hyperparameters, and for the peers a network.

The network is Conv4 as it is commonly written, 4 x [conv3x3 (pad 1), batch norm, ReLU, max-pool 2] and a linear head.
It is the function of `memmeta_exp.backbones` (tests/benchmarks holds them together): batch norm always uses the
statistics of the images it is given, so that support and query are normalised separately.
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
    """The hyperparameters of one algorithm. lam: weight of iMAML's lam/2 |phi - theta|^2; mu: weight of mu/2 |phi|^2 in
    g of the head-only algorithms; linear_steps: steps of plain conjugate gradients, 0 where no linear system is solved;
    learned: whether the head's start is a meta-parameter."""

    inner_steps: int
    inner_lr: float = 0.1
    linear_steps: int = 0
    lam: float = 0.0
    mu: float = 0.0
    learned: bool = True


# iMAML: with the published lam = 2 the matrix H + lam I is indefinite at these weights, where our conjugate gradients
# stop and the peer's go on; with lam = 50 both do all their steps, to the same result.
SETTINGS = {
    "maml": Settings(inner_steps=5),
    "fomaml": Settings(inner_steps=5),
    "imaml": Settings(inner_steps=5, inner_lr=0.01, linear_steps=5, lam=50.0),
    "anil": Settings(inner_steps=10),
    "itd_bio": Settings(inner_steps=20, mu=1e-4, learned=False),
    "proposed": Settings(inner_steps=20, linear_steps=20, mu=0.1, learned=False),
}
# Where gradients are compared with other settings than are timed. 20 steps of conjugate gradients on a head's Hessian
# amplify a rounding of 1e-15 to 1e-6, in whichever library; 5 do not.
COMPARED = {**SETTINGS, "proposed": replace(SETTINGS["proposed"], linear_steps=5)}


@dataclass(frozen=True)
class Task:
    """Images in [0, 1] [n, C, H, W] and labels [n] of the support and the query set."""

    x_s: Tensor
    y_s: Tensor
    x_q: Tensor
    y_q: Tensor


class Conv4(nn.Module):
    """Images [n, C, H, W] -> logits [n, ways]; `features` stops before the head.

    tuned: max-pool before ReLU, the same function for a quarter of the ReLU's work and memory.
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
    """One algorithm's work for a peer."""

    model: Conv4
    tasks: list[Task]
    settings: Settings


def load_problem(file: Path, settings: Settings, dtype: torch.dtype, tuned: bool) -> Problem:
    """The work stored in `file`: "images" uint8 [T, ways, shots + queries, C, H, W], "shots", and "state", the weights
    under the names of `memmeta_exp.backbones.MetaModel`. tuned: the peers' network is written as fast as ours."""
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
    """The network with the weights of `state`; its convolutions have a bias where those of `state` have one."""
    weights = {name.removeprefix("backbone."): tensor for name, tensor in state.items() if name != "head_start"}
    start = state["head_start"]
    blocks = [tensor for name, tensor in weights.items() if name.startswith("convs.") and name.endswith(".weight")]
    widths = [blocks[0].shape[1], *[tensor.shape[0] for tensor in blocks]]
    model = Conv4(widths, start.shape[1] - 1, len(start), "convs.0.bias" in weights, tuned)
    model.load_state_dict({**weights, "head.weight": start[:, :-1], "head.bias": start[:, -1]})
    model = model.to(dtype)
    return model.to(memory_format=torch.channels_last) if tuned else model  # pyright: ignore[reportCallIssue]


def head_loss(head: nn.Module, z: Tensor, labels: Tensor, mu: float) -> Tensor:
    """g of the head-only algorithms, CE + mu/2 |phi|^2, for a head as whichever library wraps it."""
    loss = F.cross_entropy(head(z), labels)
    return loss + mu / 2 * sum(p.square().sum() for p in head.parameters()) if mu else loss


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """The .grad of every parameter, a `Conv4`'s under the names of a `MetaModel`'s."""
    found = {name: p.grad.detach().clone() for name, p in model.named_parameters() if p.grad is not None}
    if not isinstance(model, Conv4):
        return found
    head = [found.pop(f"head.{name}") for name in ("weight", "bias") if f"head.{name}" in found]
    named = {f"backbone.{name}": tensor.contiguous() for name, tensor in found.items()}
    return {**named, "head_start": torch.cat([head[0], head[1][:, None]], 1)} if head else named


def gradient_error(found: dict[str, Tensor], reference: dict[str, Tensor]) -> float:
    """max over tensors t of |found_t - reference_t| / max(|reference_t|, 1e-3 |reference|), a missing tensor being 0.

    The floor keeps tensors whose gradient is zero but for rounding (biases in front of a batch norm) from deciding.
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
    """The version a library was installed with, else what it says itself."""
    try:
        return version(module.__name__)
    except PackageNotFoundError:
        return str(getattr(module, "__version__", "?"))
