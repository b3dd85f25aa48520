"""Where and how an experiment runs: device, tasks per pass, workers and threads."""

import torch

from memmeta_exp.algorithms import Execution
from memmeta_exp.config import Config
from memmeta_exp.utils.errors import ConfigError

DEFAULT_THREADS = torch.get_num_threads()


def resolve_device(name: str) -> torch.device:
    """The torch device that `device=NAME` means; ConfigError where this machine does not have it."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if count else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= count:
        found = f"{count} CUDA device{'s' if count > 1 else ''}" if count else "no CUDA device"
        raise ConfigError(f"device={name}: torch finds {found} here; use device=cpu or device=auto")
    return device


def resolve_execution(config: Config, device: torch.device) -> Execution:
    """The execution of `config` on `device`, with numbers in place of `auto`.

    On a CPU each worker takes one task at a time, with one thread. A task's activations then fit a core's cache, and
    small operators do not divide well over threads. Problems without images have small matrices: one worker takes the
    whole batch.
    """
    by_task = device.type == "cpu" and config.dataset.has_images
    threads = config.threads or (DEFAULT_THREADS if config.dataset.has_images else 1)
    chunk = (1 if by_task else config.batch_size) if isinstance(config.tasks_per_pass, str) else config.tasks_per_pass
    workers = (threads if by_task else 1) if isinstance(config.workers, str) else config.workers
    workers = min(workers, -(-config.batch_size // chunk))
    return Execution(chunk, config.precision == "bf16", workers, max(1, threads // workers))
