"""Sharing one machine among the jobs that run at once: a GPU of its own for each, and its part of the cores."""

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from memmeta_exp.utils.reading import open_handle

POLL_S = 0.1


def visible_gpus() -> list[str]:
    """The GPUs of this machine that this process may see, as CUDA_VISIBLE_DEVICES names them. Does not start CUDA."""
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [str(i) for i in range(count)] if named is None else [n.strip() for n in named.split(",")][:count]


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_budget(processes: int) -> int:
    """Threads for each of `processes` that run at once: its part of the cores, and no more than OMP_NUM_THREADS."""
    share = max(1, cores() // processes)
    said = os.environ.get("OMP_NUM_THREADS", "")
    return min(share, int(said)) if said.isdecimal() and int(said) else share


@contextmanager
def claimed(
    gpus: Sequence[str], locks: Path | None = None, stopping: Callable[[], object] = lambda: None
) -> Iterator[tuple[str, int] | None]:
    """One of `gpus`, as soon as one is free, and the descriptor of its lock: for the block no other job of this user's
    sweeps has it; None once `stopping` says so. A child that keeps the descriptor open keeps the GPU, should this
    process die before it. The system frees the lock when the last holder ends, however it ends."""
    folder = locks or Path(tempfile.gettempdir()) / f"memmeta-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    handles = {
        gpu: open_handle(folder / f"{gpu.replace('/', '_')}.lock", os.O_RDWR | os.O_CREAT, 0o600) for gpu in gpus
    }
    try:
        gpu = _first_free(handles, stopping)
        yield None if gpu is None else (gpu, handles[gpu])
    finally:
        for handle in handles.values():
            os.close(handle)


def _first_free(handles: dict[str, int], stopping: Callable[[], object]) -> str | None:
    while not stopping():
        for gpu, handle in handles.items():
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            return gpu
        time.sleep(POLL_S)
    return None
