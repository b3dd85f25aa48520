"""Where and how an experiment runs: device, tasks per pass, workers and threads."""

import torch

from memmeta_exp.algorithms import Execution
from memmeta_exp.config import Config, channels_and_size
from memmeta_exp.utils.errors import ConfigError

DEFAULT_THREADS = torch.get_num_threads()
PIXELS_PER_PASS = 2**20  # on a GPU: 64 filters make 2^26 numbers of them, hundreds for each thread it can run at once


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
    small operators do not divide well over threads. On other devices a pass takes tasks of up to PIXELS_PER_PASS
    pixels, so that peak memory does not grow with the batch. With memory.mode=images one worker takes one task at a
    time on any device. Problems without images have small matrices: one worker takes the whole batch.
    """
    with_images, by_image = config.dataset.has_images, config.memory.mode == "images"
    threads = config.threads or (DEFAULT_THREADS if with_images else 1)
    chunk, workers = config.tasks_per_pass, config.workers
    if isinstance(chunk, str):
        chunk = _tasks_per_pass(config, device)
    if isinstance(workers, str):
        workers = threads if device.type == "cpu" and with_images and not by_image else 1
    workers = min(workers, -(-config.batch_size // chunk))
    images = config.memory.images_per_pass if by_image else None
    return Execution(chunk, config.precision == "bf16", workers, max(1, threads // workers), images)


def _tasks_per_pass(config: Config, device: torch.device) -> int:
    if not config.dataset.has_images:
        return config.batch_size
    if device.type == "cpu" or config.memory.mode == "images":
        return 1
    task, (_, size) = config.task("train"), channels_and_size(config.dataset)
    pixels = task.ways * (task.shots + task.queries) * size**2
    return min(config.batch_size, max(1, PIXELS_PER_PASS // pixels))
