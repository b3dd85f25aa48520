"""`memory.budget_mib`: the fastest way to run a configuration whose peak stays below a budget."""

import math
from collections.abc import Iterator
from dataclasses import replace

import torch

from memmeta_exp.build import execution_of
from memmeta_exp.config import Config, ConfigError
from memmeta_exp.measure.foretell import CUBLAS_WORKSPACE
from memmeta_exp.measure.peak_memory import MIB
from memmeta_exp.prediction import predict

ROUNDING_UP = 1.005  # a CPU copies a little more than a GPU, whose layout is predicted: docs/memory.md


def fitted(config: Config, device: torch.device) -> Config:
    """`config` with workers, chunk, memory.mode and memory.checkpoint chosen so that the predicted peak of everything
    allocated in an iteration is at most memory.budget_mib; `config` itself where there is no budget.

    The candidates go from fast to small: on a CPU all workers, whose peaks add up, then one; on CUDA chunks that halve;
    then half_task or checkpoint=inner_step. What the configuration fixes (a chunk, workers, a mode) stays. In bf16 it
    is what float32 needs with the plain block, which bounds it, that has to fit. Raises ConfigError, with the smallest
    budget that would do, where none fits.
    """
    budget = config.memory.budget_mib
    if budget is None:
        return config
    needs = []
    for candidate in _candidates(config, device):
        needs.append(_peak_mib(candidate, device))
        if needs[-1] <= budget:
            return candidate
    raise ConfigError(
        f"memory.budget_mib={budget:g} is too small for {config.algorithm.name}: "
        f"set memory.budget_mib={_up(min(needs)):g}, the least that will do, or fewer filters or smaller images"
    )


def _up(mib: float) -> float:
    """To a tenth, upwards."""
    return math.ceil(10 * mib) / 10


def _candidates(config: Config, device: torch.device) -> Iterator[Config]:
    memory = replace(config.memory, budget_mib=None)
    sizes = [replace(config, chunk=c, workers=w, memory=memory) for c, w in _sizes(config, device)]
    yield from sizes
    a, last = config.algorithm, sizes[-1]
    if a.in_feature_space and memory.mode == "task":
        yield replace(last, memory=replace(memory, mode="half_task"))
    if not a.in_feature_space and a.unrolls and memory.checkpoint == "none":
        yield replace(last, memory=replace(memory, checkpoint="inner_step"))


def _sizes(config: Config, device: torch.device) -> list[tuple[int, int]]:
    """Chunk and workers, from the fastest to the smallest."""
    e = execution_of(config, device)
    sizes = [(e.chunk, e.workers)]
    if isinstance(config.workers, str) and e.workers > 1:
        sizes.append((e.chunk, 1))
    while isinstance(config.chunk, str) and config.algorithm.in_feature_space and sizes[-1][0] > 1:
        sizes.append((-(-sizes[-1][0] // 2), sizes[-1][1]))
    return sizes


def _peak_mib(config: Config, device: torch.device) -> float:
    """The predicted peak of everything allocated: on CUDA with what the allocator may leave unused and the workspaces
    of cuBLAS (those of cuDNN are unknown), on a CPU with the tensors of every worker."""
    backbone = replace(config.backbone, block="plain") if config.precision == "bf16" else config.backbone
    found = predict(replace(config, device="cuda", precision="fp32", workers="auto", backbone=backbone))
    if device.type == "cuda":
        hopper = torch.cuda.is_available() and torch.cuda.get_device_capability(device) >= (9, 0)
        return ROUNDING_UP * (found.allocated(hopper) + found.unsplit_at_most) / MIB
    others = (execution_of(config, device).workers - 1) * found.tensors
    return ROUNDING_UP * (found.allocated() - found.matmul_threads * CUBLAS_WORKSPACE + others) / MIB
