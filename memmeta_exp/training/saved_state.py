"""What a checkpoint is expected to hold, and whether one that opens holds it: its hash says only that it is whole."""

from collections.abc import Mapping
from typing import Annotated, Any, NotRequired, TypedDict, get_args

import torch
from torch import Tensor, nn

from memmeta_exp.training.progress import Progress
from memmeta_exp.utils.reading import Count, Plain, Rule, mismatch


def _is_plain(tensor: Tensor) -> bool:
    """Whether it is on the CPU, dense, and takes no more memory than it was stored in."""
    usual = type(tensor) in (Tensor, nn.Parameter) and tensor.layout == torch.strided and tensor.device.type == "cpu"
    if not usual or tensor.is_quantized or tensor.is_nested:
        return False
    return tensor.numel() * tensor.element_size() <= max(tensor.untyped_storage().nbytes(), 2**20)


Stored = Annotated[Tensor, Rule("a dense tensor", _is_plain)]
Tensors = dict[str, Stored]


class Weights(TypedDict):
    """What a model is restored from: best.pt, and a part of last.pt. average: the state of an AveragedModel."""

    iteration: Count
    model: Tensors
    average: NotRequired[Tensors | None]


class Position(TypedDict):
    """How far metrics.jsonl goes."""

    bytes: Count
    sha256: str


class Mean(TypedDict):
    """The state of a RunningMean."""

    mean: float
    count: Count


class OptimizerState(TypedDict):
    """state: of parameters by their number."""

    state: dict[int, dict[str, Stored | float | None]]
    param_groups: list[dict[str, Any]]


class Configured(TypedDict):
    """What of the stored configuration is used before it is compared."""

    iterations: Count


class Saved(Weights):
    """last.pt and previous.pt."""

    optimizer: OptimizerState
    scheduler: dict[str, Any]
    warm: Tensors
    convergence: Mean
    progress: Progress
    config: Annotated[Configured, *get_args(Plain)[1:]]
    images: dict[str, str]
    metrics: Position
    wandb_id: str | None


def weights_fault(found: Any) -> str | None:
    """The first fault of the content of a checkpoint as weights, in one clause."""
    return mismatch(found, Weights)


def saved_fault(found: Any) -> str | None:
    """The first fault of the content of a checkpoint to go on from, in one clause."""
    inexact = mismatch(found, Saved)
    if inexact is None and found["progress"]["iteration"] != found["iteration"]:
        return "'progress.iteration' is not 'iteration'"
    return inexact


def like(value: Any, template: Any, where: str) -> str | None:
    """The first place where `value` has another type, length, keys or shape than `template`, in one clause. A number
    stands for any number, None in the template for any value that holds no other."""
    if isinstance(template, Mapping):
        if not isinstance(value, dict) or value.keys() != template.keys():
            return f"'{where}' has other keys"
        parts = [like(value[key], of, f"{where}.{key}") for key, of in template.items()]
        return next((part for part in parts if part), None)
    if isinstance(template, list):
        if not isinstance(value, list) or len(value) != len(template):
            return f"'{where}' is no list of {len(template)}"
        parts = [like(item, of, f"{where}.{at}") for at, (item, of) in enumerate(zip(value, template, strict=True))]
        return next((part for part in parts if part), None)
    if isinstance(template, Tensor):
        same = isinstance(value, Tensor) and (value.shape, value.dtype) == (template.shape, template.dtype)
        return None if same else f"'{where}' is no {template.dtype} {tuple(template.shape)}"
    kinds: Any = {int: int | float, float: float, type(None): bool | int | float | str | None}
    return mismatch(value, kinds.get(type(template), type(template)), where)


def optimizer_fault(found: OptimizerState, optimizer: torch.optim.Optimizer) -> str | None:
    """The first place where a stored state is none of `optimizer`, in one clause."""
    inexact = like(found["param_groups"], optimizer.state_dict()["param_groups"], "optimizer.param_groups")
    if inexact:
        return inexact
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    entry = _entry(optimizer)
    for number, state in found["state"].items():
        if not 0 <= number < len(parameters):
            return f"'optimizer.state' has a parameter {number}, of {len(parameters)}"
        shaped = {
            key: torch.empty_like(parameters[number], device="cpu") if isinstance(of, Tensor) and of.ndim else of
            for key, of in entry.items()
        }
        inexact = like(state, shaped, f"optimizer.state.{number}")
        if inexact:
            return inexact
    return None


def _entry(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What an optimiser of this kind keeps of a parameter [1] after a step."""
    parameter = nn.Parameter(torch.zeros(1))
    other = type(optimizer)([parameter], **optimizer.defaults)
    parameter.grad = torch.zeros(1)
    other.step()
    return other.state[parameter]
