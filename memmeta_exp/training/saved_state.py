"""The schema of a checkpoint, and checks against it. A checkpoint's hash shows only that the file is whole."""

import copy
from collections import defaultdict
from collections.abc import Mapping
from typing import Annotated, Any, NotRequired, TypedDict, get_args

import torch
from torch import Tensor, nn

from memmeta_exp.training.progress import Progress
from memmeta_exp.utils.reading import Count, Plain, Rule, mismatch


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is dense, on the CPU, and needs no more memory than its storage (or 1 MiB)."""
    usual = type(tensor) in (Tensor, nn.Parameter) and tensor.layout == torch.strided and tensor.device.type == "cpu"
    if not usual or tensor.is_quantized or tensor.is_nested:
        return False
    return tensor.numel() * tensor.element_size() <= max(tensor.untyped_storage().nbytes(), 2**20)


Stored = Annotated[Tensor, Rule("a dense tensor", _is_plain)]
Tensors = dict[str, Stored]


class Weights(TypedDict):
    """The weights of a model: best.pt, and a part of last.pt. average: the state of an AveragedModel."""

    iteration: Count
    model: Tensors
    average: NotRequired[Tensors | None]


class Position(TypedDict):
    """The size and digest of metrics.jsonl at the time of the checkpoint."""

    bytes: Count
    sha256: str


class OptimizerState(TypedDict):
    """The state of a torch optimiser. state: for each parameter, by its number."""

    state: dict[int, dict[str, Stored | float | None]]
    param_groups: list[dict[str, Any]]


class Configured(TypedDict):
    """The keys of the stored configuration that are used before it is compared."""

    iterations: Count


class Saved(Weights):
    """last.pt and previous.pt."""

    optimizer: OptimizerState
    scheduler: dict[str, Any]
    warm: Tensors
    progress: Progress
    config: Annotated[Configured, *get_args(Plain)[1:]]
    images: dict[str, str]
    metrics: Position
    wandb_id: str | None


def weights_fault(found: Any) -> str | None:
    """The first fault of a checkpoint's content as weights, in one clause; None if there is none."""
    return mismatch(found, Weights)


def saved_fault(found: Any) -> str | None:
    """The first fault of a checkpoint's content as a state to resume from, in one clause; None if there is none."""
    problem = mismatch(found, Saved)
    if problem is None and found["progress"]["iteration"] != found["iteration"]:
        return "'progress.iteration' is not 'iteration'"
    return problem


def like(value: Any, template: Any, where: str) -> str | None:
    """The first place where `value` differs from `template` in type, length, keys or shape, in one clause; else None.

    A number in the template allows any number; None allows any plain value.
    """
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
    """The first place where a stored state does not fit `optimizer`, in one clause; None if it fits."""
    problem = like(found["param_groups"], optimizer.state_dict()["param_groups"], "optimizer.param_groups")
    if problem:
        return problem
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    entry = _entry(optimizer)
    for number, state in found["state"].items():
        if not 0 <= number < len(parameters):
            return f"'optimizer.state' has a parameter {number}, of {len(parameters)}"
        shaped = {
            key: torch.empty_like(parameters[number], device="cpu") if isinstance(of, Tensor) and of.ndim else of
            for key, of in entry.items()
        }
        problem = like(state, shaped, f"optimizer.state.{number}")
        if problem:
            return problem
    return None


def _entry(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The state of a parameter of zeros after one step of an optimiser of this kind."""
    group = optimizer.param_groups[0]
    parameter = nn.Parameter(torch.zeros_like(group["params"][0], device="cpu"))
    parameter.grad = torch.zeros_like(parameter)
    other = copy.copy(optimizer)  # not made anew: `defaults` does not always hold what the constructor takes
    other.state = defaultdict(dict)
    other.param_groups = [{**group, "params": [parameter]}]
    other.step()
    return other.state[parameter]
