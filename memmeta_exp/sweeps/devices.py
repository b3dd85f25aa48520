"""Shares one machine among parallel jobs: each gets its own GPU and an equal part of the cores."""

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
    """The GPUs visible to this process, as CUDA_VISIBLE_DEVICES names them. Does not initialise CUDA."""
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [str(i) for i in range(count)] if named is None else [n.strip() for n in named.split(",")][:count]


def cores() -> int:
    """The number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_budget(processes: int) -> int:
    """Threads for each of `processes` parallel processes: an equal part of the cores, at most OMP_NUM_THREADS."""
    share = max(1, cores() // processes)
    said = os.environ.get("OMP_NUM_THREADS", "")
    return min(share, int(said)) if said.isdecimal() and int(said) else share


@contextmanager
def claimed(
    gpus: Sequence[str], locks: Path | None = None, stopping: Callable[[], object] = lambda: None
) -> Iterator[tuple[str, int] | None]:
    """Waits for one of `gpus` to be free, and locks it for the block against other jobs of this user's sweeps.

    Yields the GPU and the file descriptor of its lock, or None once `stopping` returns true. A child process that
    inherits the descriptor keeps the GPU even if this process dies. The system releases the lock when its last holder
    ends, however it ends.
    """
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
