"""`memory.budget_mib`: the fastest way to run a configuration whose peak stays below a budget."""

import math
from collections.abc import Iterator
from dataclasses import replace

import torch

from memmeta_exp.config import Config, ConfigError
from memmeta_exp.measure.foretell import CUBLAS_WORKSPACE
from memmeta_exp.measure.peak_memory import MIB
from memmeta_exp.prediction import predict

ROUNDING_UP = 1.005  # layouts differ a little between the meta device and the CPU: under 0.2 %, docs/memory.md


def fitted(config: Config, device: torch.device) -> Config:
    """`config` with chunk, memory.mode and memory.checkpoint chosen so that the predicted peak of an iteration,
    memory/peak_mib, is at most memory.budget_mib; `config` itself where there is no budget.

    The candidates go from fast to small: chunks that halve, then half_task or checkpoint=inner_step. What the
    configuration fixes (a chunk, a mode) stays. In bf16 it is float32's need, which is larger, that has to fit. Raises
    ConfigError, with the smallest budget that would do, where none fits.
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
    a, chunks = config.algorithm, _chunks(config, device)
    for chunk in chunks:
        yield replace(config, chunk=chunk, memory=memory)
    last = chunks[-1]
    if a.in_feature_space and memory.mode == "task":
        yield replace(config, chunk=last, memory=replace(memory, mode="half_task"))
    if not a.in_feature_space and a.unrolls and memory.checkpoint == "none":
        yield replace(config, chunk=last, memory=replace(memory, checkpoint="inner_step"))


def _chunks(config: Config, device: torch.device) -> list[int]:
    """From the fastest to the smallest: on a CPU one task is both."""
    if not isinstance(config.chunk, str):
        return [config.chunk]
    if device.type == "cpu" or not config.algorithm.in_feature_space:
        return [1]
    sizes = [config.batch_size]
    while sizes[-1] > 1:
        sizes.append(-(-sizes[-1] // 2))
    return sizes


def _peak_mib(config: Config, device: torch.device) -> float:
    """The predicted peak of everything allocated: on CUDA with the workspaces of cuBLAS."""
    found = predict(replace(config, device="cuda", precision="fp32", workers="auto"))
    if device.type == "cuda":
        hopper = torch.cuda.is_available() and torch.cuda.get_device_capability(device) >= (9, 0)
        return ROUNDING_UP * found.allocated(hopper) / MIB
    return ROUNDING_UP * (found.allocated() - found.matmul_threads * CUBLAS_WORKSPACE) / MIB
