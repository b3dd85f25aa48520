"""Peak memory of one step: by the CUDA allocator's counters, or on a CPU as the sum over live tensors.

`measure_peak` is the entry point. On a CPU it runs the step under a `PeakMeter`, a dispatch mode that sees every
operator and follows each storage by weak reference. The result is exact and repeatable, which the resident set size of
the process is not. MiB = 2**20 bytes throughout.
"""

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MIB = 2**20
ALLOCATOR_BLOCK = 512  # bytes: the CUDA caching allocator rounds every request up to a multiple of this

T = TypeVar("T")


@dataclass(frozen=True)
class Peak:
    """Peak memory of one step, in MiB.

    absolute_mib: everything allocated at the peak, in blocks of 512 bytes, with what existed before the step.
    above_baseline_mib: bytes requested at the peak minus bytes requested before the step. It contains no rounding to
    allocator blocks and no workspaces from before the step, so compare methods by this number.
    kind: "cuda" (the caching allocator's statistics) or "cpu-tensors" (bytes of live tensors, without kernel scratch).
    """

    absolute_mib: float
    above_baseline_mib: float
    kind: str


def _storages(tree: Any) -> Iterator[torch.UntypedStorage]:
    for leaf in tree_leaves(tree):
        if isinstance(leaf, Tensor) and leaf.layout is torch.strided:  # sparse tensors own no storage
            yield leaf.untyped_storage()


def tensors_of(owner: Any) -> list[Tensor]:
    """The tensors that `owner` (a module, an optimiser, a tensor, or a tree of these) keeps alive, .grad included."""
    found: list[Tensor] = []
    for leaf in tree_leaves(owner):
        if isinstance(leaf, torch.nn.Module):
            found += [*leaf.parameters(), *leaf.buffers()]
        elif isinstance(leaf, torch.optim.Optimizer):
            found += [value for value in tree_leaves(list(leaf.state.values())) if isinstance(value, Tensor)]
        elif isinstance(leaf, Tensor):
            found.append(leaf)
    return found + [tensor.grad for tensor in found if tensor.is_leaf and tensor.grad is not None]


class PeakMeter(TorchDispatchMode):
    """Counts the bytes of live tensors, operator by operator: `with PeakMeter(model) as meter: step()`.

    A storage that an operator returns counts until its last reference (Python, the autograd graph, .grad, an optimiser)
    is gone. Views count once, in-place results do not count, and scratch counts while it lives. What existed before,
    whether named in `persistent` or first seen as an argument, belongs to the baseline.

    block: every storage is rounded up to a multiple of this many bytes (1 counts exactly); `requested` is never
    rounded. device: the type of the devices whose storages count, None for all. For eager code only. Where several
    gradients of one tensor are added, autograd adds in place unless a dispatch mode is active. So the count can exceed
    an unmetered run's by one such gradient.
    """

    def __init__(self, *persistent: Any, block: int = ALLOCATOR_BLOCK, device: str | None = None) -> None:
        super().__init__()
        self.block, self.device = block, device
        self.current = self.peak = self.baseline = 0
        self.requested = self.requested_peak = self.requested_baseline = self._lap_peak = 0
        self._live: dict[int, tuple[weakref.ref[torch.UntypedStorage], int]] = {}
        self._raise_baseline(tensors_of(persistent))

    @property
    def above_baseline(self) -> int:
        """Peak bytes above the baseline, every storage in whole blocks."""
        return self.peak - self.baseline

    @property
    def requested_above_baseline(self) -> int:
        """Peak bytes above the baseline, not rounded."""
        return self.requested_peak - self.requested_baseline

    def lap(self) -> int:
        """As `requested_above_baseline`, but since the last lap. The next lap starts from what is live now."""
        peak, self._lap_peak = self._lap_peak, self.requested
        return peak - self.requested_baseline

    def report(self) -> Peak:
        """The peak so far."""
        return Peak(self.peak / MIB, self.requested_above_baseline / MIB, "cpu-tensors")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.ops.aten.lift_fresh.default:  # its argument is what torch.tensor(...) has just made
            self._raise_baseline((args, kwargs))
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            self._follow(storage)
        self.peak = max(self.peak, self.current)
        self.requested_peak = max(self.requested_peak, self.requested)
        self._lap_peak = max(self._lap_peak, self.requested)
        return result

    def _raise_baseline(self, tree: Any) -> None:
        """Adds storages first seen as arguments to the baseline and to the peaks: they existed before the step."""
        for storage in _storages(tree):
            if storage._cdata in self._live:
                continue
            rounded, requested = self._follow(storage)
            self.baseline, self.peak = self.baseline + rounded, self.peak + rounded
            self.requested_baseline += requested
            self.requested_peak += requested
            self._lap_peak += requested

    def _follow(self, storage: torch.UntypedStorage) -> tuple[int, int]:
        """Counts `storage` from now on; returns the bytes added, rounded and requested."""
        key, requested = storage._cdata, storage.nbytes()
        if self.device not in (None, storage.device.type):
            return 0, 0
        if key in self._live:
            if self._live[key][1] == requested:
                return 0, 0
            self._forget(key)  # resized in place
        self._live[key] = (weakref.ref(storage, lambda _: self._forget(key)), requested)
        self._count(requested, 1)
        return self._rounded(requested), requested

    def _forget(self, key: int) -> None:
        _, requested = self._live.pop(key)
        self._count(requested, -1)

    def _count(self, requested: int, sign: int) -> None:
        """One storage of `requested` bytes more (sign 1) or less (sign -1)."""
        self.current += sign * self._rounded(requested)
        self.requested += sign * requested

    def _rounded(self, requested: int) -> int:
        return -(-requested // self.block) * self.block


class CudaMeter:
    """As a `PeakMeter`, by the counters of the CUDA caching allocator."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        self.before = torch.cuda.memory_stats(device).get("requested_bytes.all.current", 0)
        self.requested_peak = self.allocated_peak = 0

    def lap(self) -> int:
        """As `PeakMeter.lap`; synchronises. Raises RuntimeError where the allocator in use keeps no statistics."""
        torch.cuda.synchronize(self.device)
        requested = torch.cuda.memory_stats(self.device).get("requested_bytes.all.peak", 0)
        if requested == 0:
            raise RuntimeError(
                f"the CUDA allocator in use keeps no statistics on {self.device}: unset PYTORCH_CUDA_ALLOC_CONF"
            )
        self.requested_peak = max(self.requested_peak, requested)
        self.allocated_peak = max(self.allocated_peak, torch.cuda.max_memory_allocated(self.device))
        torch.cuda.reset_peak_memory_stats(self.device)
        return requested - self.before

    def report(self) -> Peak:
        """The peak so far."""
        self.lap()
        return Peak(self.allocated_peak / MIB, (self.requested_peak - self.before) / MIB, "cuda")


class Meter(Protocol):
    """What `metered` gives: laps while the step runs, the report after it."""

    def lap(self) -> int: ...

    def report(self) -> Peak: ...


@contextmanager
def metered(device: torch.device | str, persistent: Any = ()) -> Iterator[Meter]:
    """Meters the block on `device`; persistent as for `measure_peak`, and the same errors."""
    device = torch.device(device)
    if device.type == "cpu":
        gc.collect()  # else cycles of earlier work would be freed during the step
        with torch.compiler.set_stance("force_eager"), PeakMeter(persistent, device="cpu") as meter:
            yield meter  # eager, because a dispatch mode makes Dynamo drop compiled code for good
    elif device.type != "cuda":
        raise RuntimeError(f"peak memory on device={device} cannot be measured: use cpu or cuda")
    elif not torch.cuda.is_available():
        raise RuntimeError(f"peak memory on device={device} cannot be measured: torch finds no CUDA here; use cpu")
    else:
        yield CudaMeter(device)


def measure_peak(step: Callable[[], T], device: torch.device | str, persistent: Any = ()) -> tuple[T, Peak]:
    """Runs `step` once, and returns its result and its peak memory on `device`.

    persistent: what outlives the step (modules, optimisers, tensors, in any nesting). On a CPU it is the baseline of
    `Peak.absolute_mib`; on CUDA the allocator counts it already. Metering slows a CPU step, so do not time this step. A
    CUDA step is synchronised twice. Raises RuntimeError for a device other than a CPU or an available CUDA device.
    """
    with metered(device, persistent) as meter:
        result = step()
    return result, meter.report()
