"""What to suggest when memory runs out: a way to run the configuration that would fit."""

import torch

from memmeta_exp.config import Config, ConfigError
from memmeta_exp.experiment.execution import resolve_device
from memmeta_exp.memory.budget import candidates, peak_mib, up

ELSE = "use fewer filters, smaller images or another device"


def suggest_config(config: Config) -> str:
    """One clause: the fastest tasks_per_pass, workers and memory settings that would fit, and the budget for them.

    They fit if their predicted peak is below that of `config` and at most what the device has free. If none fits, the
    clause names the smallest need.
    """
    try:
        device = resolve_device(config.device)
        free = _free_mib(device)
        needs = [(candidate, peak_mib(candidate, device)) for candidate in candidates(config, device)]
    except (ConfigError, RuntimeError) as error:  # no prediction; see memmeta_exp/memory/predict.py
        unknown = str(error).partition(":")[0]
        return f"set a smaller tasks_per_pass (at least 1) or workers=1, else {ELSE} (no prediction: {unknown})"
    tried = needs[0][1]
    room = f"the tasks need {tried:.1f} MiB" + ("" if free is None else f", {free:.0f} MiB are free")
    fitting = [(c, need) for c, need in needs if need < tried and (free is None or need <= free)]
    if fitting:
        smaller, need = fitting[0]
        return f"{room}; {_named(config, smaller)} needs {need:.1f} MiB, which memory.budget_mib={up(need):g} chooses"
    least = min(need for _, need in needs)
    return f"{room}, and no tasks_per_pass or memory.mode needs less than {least:.1f} MiB: {ELSE}"


def _named(config: Config, smaller: Config) -> str:
    values = {
        "tasks_per_pass": (config.tasks_per_pass, smaller.tasks_per_pass),
        "workers": (config.workers, smaller.workers),
        "memory.mode": (config.memory.mode, smaller.memory.mode),
        "memory.images_per_pass": (config.memory.images_per_pass, smaller.memory.images_per_pass),
        "memory.checkpoint": (config.memory.checkpoint, smaller.memory.checkpoint),
    }
    return " ".join(f"{key}={b}" for key, (a, b) in values.items() if a != b)


def _free_mib(device: torch.device) -> float | None:
    """MiB that this process could use: on CUDA the free memory and what its allocator holds, on a CPU what Linux calls
    available. None where that is unknown."""
    if device.type == "cuda":
        return (torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)) / 2**20
    try:
        with open("/proc/meminfo") as lines:
            return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
