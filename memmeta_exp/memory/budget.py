"""`memory.budget_mib`: the fastest way to run a configuration whose peak stays below a budget."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from memmeta_exp.backbones import require
from memmeta_exp.config import Config, ConfigError, MemoryConfig, channels_and_size
from memmeta_exp.experiment.builder import Constants, Experiment, build
from memmeta_exp.experiment.execution import resolve_device, resolve_execution
from memmeta_exp.memory.predict import predict
from memmeta_exp.profiling.meta_memory import CUBLAS_WORKSPACE
from memmeta_exp.profiling.peak_memory import MIB

ROUNDING_UP = 1.005  # a CPU copies a little more than the predicted GPU: docs/memory.md


def fit_to_budget(config: Config, device: torch.device) -> Config:
    """`config` with workers, tasks_per_pass, memory.mode and memory.checkpoint chosen to fit memory.budget_mib.

    The predicted peak of everything allocated in an iteration is then at most the budget. Without a budget the result
    is `config` itself. The candidates go from fast to small: on a CPU all workers, whose peaks add up, then one; on
    CUDA tasks_per_pass halved repeatedly; then `_memory_options`, or checkpoint=inner_step. Values that the
    configuration fixes stay.

    The prediction is a bound. For bf16 it is that of float32 plus the weights in bf16. For fused attention it is that
    of plain attention. Raises ConfigError where no candidate fits, with the smallest sufficient budget, and where there
    is no bound.
    """
    budget = config.memory.budget_mib
    if budget is None:
        return config
    needs = []
    for candidate in candidates(config, device):
        needs.append(peak_mib(candidate, device))
        if needs[-1] <= budget:
            return candidate
    raise ConfigError(
        f"memory.budget_mib={budget:g} is too small for {config.algorithm.name}: "
        f"set memory.budget_mib={up(min(needs)):g}, the least that will do, or a smaller backbone or image"
    )


def build_within_budget(config: Config, of_dataset: Constants | None = None) -> Experiment:
    """The experiment of `config` on its device, in the fastest way that its memory budget allows.

    of_dataset: see `build`. Raises ConfigError and DataError.
    """
    device = resolve_device(config.device)
    return build(fit_to_budget(config, device), device, of_dataset)


def up(mib: float) -> float:
    """`mib` rounded up to a tenth."""
    return math.ceil(10 * mib) / 10


def candidates(config: Config, device: torch.device) -> Iterator[Config]:
    """The ways to run `config`, from fast to small. The first is the one without a budget."""
    memory = replace(config.memory, budget_mib=None)
    sizes = [replace(config, tasks_per_pass=c, workers=w, memory=memory) for c, w in _sizes(config, device)]
    yield from sizes
    a, last = config.algorithm, sizes[-1]
    if a.head_only:
        yield from (replace(last, memory=m) for m in _memory_options(last))
    if not a.head_only and a.unrolls and memory.checkpoint == "none":
        yield replace(last, memory=replace(memory, checkpoint="inner_step"))


def _memory_options(config: Config) -> Iterator[MemoryConfig]:
    """Other settings of the section `memory` for a head-only algorithm, from fast to small. What is set stays set."""
    memory = config.memory
    for mode, checkpoint, images in (
        ("half_task", "none", memory.images_per_pass),
        ("task", "block", memory.images_per_pass),
        ("images", "none", memory.images_per_pass),
        ("half_task", "block", memory.images_per_pass),
        ("images", "none", 1),
        ("images", "block", 1),
    ):
        changed = replace(memory, mode=mode, checkpoint=checkpoint, images_per_pass=images)
        kept = memory.mode in ("task", mode) and memory.checkpoint in ("none", checkpoint)
        allowed = mode != "images" or (config.workers == 1 and config.dataset.has_images)
        if kept and allowed and changed != memory and _takes(config, changed):
            yield changed


def _takes(config: Config, memory: MemoryConfig) -> bool:
    """Whether the backbone runs with these memory options."""
    try:
        require(config.backbone, *channels_and_size(config.dataset), memory)
    except ConfigError:
        return False
    return True


def _sizes(config: Config, device: torch.device) -> list[tuple[int, int]]:
    """(tasks_per_pass, workers), from the fastest to the smallest."""
    e = resolve_execution(config, device)
    sizes = [(e.tasks_per_pass, e.workers)]
    if isinstance(config.workers, str) and e.workers > 1:
        sizes.append((e.tasks_per_pass, 1))
    chunks = config.algorithm.head_only or config.dataset.is_regression
    while isinstance(config.tasks_per_pass, str) and chunks and sizes[-1][0] > 1:
        sizes.append((-(-sizes[-1][0] // 2), sizes[-1][1]))
    return sizes


def peak_mib(config: Config, device: torch.device) -> float:
    """The predicted peak of everything allocated, in MiB.

    On CUDA it includes what the allocator may leave unused and the workspaces of cuBLAS; those of cuDNN are unknown. On
    a CPU it includes the tensors of every worker.
    """
    bound = replace(config, device="cuda", precision="fp32", workers="auto", backbone=_bound(config))
    found = predict(bound, as_on=device)
    cast = found.parameters // 2 if config.precision == "bf16" else 0
    found = replace(found, tensors=found.tensors + cast)
    if device.type == "cuda":
        hopper = torch.cuda.is_available() and torch.cuda.get_device_capability(device) >= (9, 0)
        return ROUNDING_UP * (found.allocated(hopper) + found.unsplit_at_most) / MIB
    others = (resolve_execution(config, device).workers - 1) * found.tensors
    return ROUNDING_UP * (found.allocated() - found.matmul_threads * CUBLAS_WORKSPACE + others) / MIB


def _bound(config: Config) -> Any:
    """A backbone that needs no less memory and can be predicted."""
    backbone = config.backbone
    if config.precision == "bf16" and backbone.name == "timm":
        raise ConfigError(
            "memory.budget_mib with precision=bf16 and backbone=timm: what autocast casts and keeps has no bound here; "
            "set tasks_per_pass, memory.mode and memory.checkpoint instead"
        )
    return replace(backbone, attention="plain") if hasattr(backbone, "attention") else backbone
