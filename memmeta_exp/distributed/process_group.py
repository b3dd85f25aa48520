"""Several processes, the ranks, that do one run: the only module that calls torch.distributed.

Every rank makes the same collective calls in the same order. Each begins with a status all-reduce: one all-reduce of a
few numbers, in which a rank says that it is present, that it gave up its work because a stop was requested, or that it
failed. So when one rank ends, the others learn of it at their next collective call, and all end at the same iteration.

Status and the reports of tasks go over gloo, on the CPU: its connections break at once when a process dies. Gradients
on GPUs go over NCCL, right after a status all-reduce that found every rank present.

`SINGLE_PROCESS` stands for one process. Its methods do nothing or return their arguments.
"""

import io
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from memmeta_exp.distributed.launch_env import RankInfo
from memmeta_exp.utils.errors import ConfigError, MemmetaError, RankFailed, RankLost, RunError
from memmeta_exp.utils.signals import StopAsked, StopRequest

PRESENT, GAVE_UP, FAILED = 0.0, 1.0, 2.0
VALUES = 2  # further numbers in a status all-reduce
RANK_0_REPORTS_S = 5.0  # seconds that others wait for rank 0 to report a lost rank; then rank 0 itself is lost
_REPORTED, _OTHERS = "memmeta/rank-0-reports", "memmeta/others-who-could-report"

T = TypeVar("T")


class Ranks:
    """A single process, and the interface of a group. rank: in 0 .. size - 1; rank 0 writes files."""

    rank, size = 0, 1

    def share(self, count: int) -> slice:
        """The slice of `count` tasks that this rank computes."""
        return slice(0, count)

    def with_device(self, config: T) -> T:
        """The configuration with the device of this rank."""
        return config

    def listen(self, stop: StopRequest) -> None:
        """Makes status all-reduces pass on the signal of `stop`."""

    def check(self, stop: StopRequest) -> None:
        """Raises StopAsked if a stop was requested; in a group, once all ranks know it."""
        stop.check()

    def signum(self, stop: StopRequest) -> int | None:
        """The signal that requested the stop, None without one."""
        return stop.signum

    def largest(self, *values: float) -> tuple[float, ...]:
        """Each value's maximum over ranks."""
        return values

    def require_same(self, what: str, value: Any) -> None:
        """ConfigError unless `value` is equal on all ranks."""

    def require_same_weights(self, model: nn.Module) -> None:
        """RunError unless the norm of the model's parameters is equal, to the bit, on all ranks."""

    def send(self, order: dict[str, Any]) -> None:
        """Sends `order`, what to do next, from rank 0 to the others."""


SINGLE_PROCESS = Ranks()


class Group(Ranks):
    """This rank in a group of several.

    Methods that wait for the others raise RankLost where a rank is gone, RankFailed where one has failed, and StopAsked
    where one gave up because a stop was requested.
    """

    def __init__(self, info: RankInfo, control: Any = None, store: Any = None) -> None:
        self.rank, self.size, self.info = info.rank, info.size, info
        self.agreed: int | None = None
        self._control, self._store, self._fast = control, store, None
        self._stop: StopRequest | None = None

    @staticmethod
    def join(info: RankInfo) -> "Group":
        """Joins the group, as all other ranks must at the same time. RunError where they cannot be reached."""
        try:
            store, _, _ = next(rendezvous("env://", info.rank, info.size))
            dist.init_process_group("gloo", store=store, rank=info.rank, world_size=info.size)
        except (RuntimeError, ValueError) as error:
            raise RunError(f"rank {info.rank} of {info.size} cannot join the others ({_reason(error)})") from None
        return Group(info, dist.group.WORLD, store)

    def leave(self) -> None:
        """Leaves the group after a successful run. A rank that fails ends without it."""
        dist.destroy_process_group()

    def share(self, count: int) -> slice:
        """Shares are contiguous, so joined results keep the order of tasks. Sizes differ by at most 1."""
        return self._share_of(self.rank, count)

    def sizes(self, count: int) -> list[int]:
        """How many of `count` tasks each rank has."""
        shares = (self._share_of(rank, count) for rank in range(self.size))
        return [share.stop - share.start for share in shares]

    def _share_of(self, rank: int, count: int) -> slice:
        return slice(rank * count // self.size, (rank + 1) * count // self.size)

    def with_device(self, config: Any) -> Any:
        """The configuration with this rank's device. ConfigError where ranks of this machine would share a GPU."""
        head, _, index = config.device.partition(":")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if head == "cpu" or (head == "auto" and not count):
            return replace(config, device="cpu")
        if index and self.info.local_size > 1:
            raise ConfigError(
                f"device={config.device} puts the {self.info.local_size} ranks of a machine on one GPU: "
                "use device=cuda, which gives each its own"
            )
        if count and not index and self.info.local_size > count:
            raise ConfigError(
                f"{self.info.local_size} ranks on a machine where torch finds {count} CUDA devices: use torchrun "
                f"--nproc-per-node {count}, or device=cpu"
            )
        return replace(config, device=f"cuda:{index or self.info.local_rank}") if count else config

    def listen(self, stop: StopRequest) -> None:
        self._stop = stop

    def check(self, stop: StopRequest) -> None:
        if self.agreed is not None:
            raise StopAsked

    def signum(self, stop: StopRequest) -> int | None:
        return self.agreed

    def status_all_reduce(self, status: float = PRESENT, *values: float) -> list[float]:
        """Waits for all ranks, and returns the maximum over ranks of each of up to VALUES values."""
        largest, found = self._call(status, values)
        if found == FAILED:
            self._learn(None)
        if found == GAVE_UP:
            raise StopAsked
        return largest

    def fail(self, error: BaseException) -> None:
        """Tells the others that this rank ends with `error`. They raise RankFailed at their next collective call."""
        said = str(error) if isinstance(error, MemmetaError) else f"{type(error).__name__}: {error}"
        with suppress(RankLost, RankFailed):
            self._call(FAILED, ())
            self._learn((getattr(error, "exit_code", 1), said.partition("\n")[0]))

    def _call(self, status: float, values: tuple[float, ...]) -> tuple[list[float], float]:
        signum = (self._stop.signum if self._stop else None) or 0
        line = torch.tensor([status, signum, *values, *[0.0] * (VALUES - len(values))], dtype=torch.float64)
        self._do(lambda: dist.all_reduce(line, dist.ReduceOp.MAX, self._control))
        found, signum, *largest = line.tolist()
        self.agreed = int(signum) or self.agreed
        return largest[: len(values)], found

    def _learn(self, mine: tuple[int, str] | None) -> None:
        """Gathers the errors of the ranks that failed, and raises that of the first."""
        said = self._all_objects(mine)
        rank, (code, line) = next((rank, found) for rank, found in enumerate(said) if found is not None)
        raise RankFailed(f"rank {rank}: {line}", code)

    def _all_objects(self, mine: Any) -> list[Any]:
        found: list[Any] = [None] * self.size
        self._do(lambda: dist.all_gather_object(found, mine, self._control))
        return found

    def largest(self, *values: float) -> tuple[float, ...]:
        return tuple(self.status_all_reduce(PRESENT, *values))

    def require_same(self, what: str, value: Any) -> None:
        self.status_all_reduce()
        found = self._all_objects(value)
        other = next((rank for rank in range(self.size) if found[rank] != found[0]), None)
        if other is not None:
            raise ConfigError(f"{what}: {found[0]} on rank 0, {found[other]} on rank {other}; they have to be the same")

    def require_same_weights(self, model: nn.Module) -> None:
        norms = [torch.linalg.vector_norm(p.detach(), dtype=torch.float64) for p in model.parameters()]
        norm = float(torch.stack(norms).sum())
        most, least = self.status_all_reduce(PRESENT, norm, -norm)
        if most != -least:
            raise RunError(
                f"theta is no longer the same on all ranks (norms from {-least!r} to {most!r}): use machines and GPUs "
                "of one kind, and look for faulty memory; the last checkpoint is that of rank 0"
            )

    def gather(self, mine: Tensor, sizes: list[int]) -> list[Tensor]:
        """Every rank's tensor, on the CPU. sizes: their lengths. Call it right after a status all-reduce."""
        mine = mine.detach().cpu()
        padded = mine.new_zeros(max(sizes), *mine.shape[1:])
        padded[: len(mine)] = mine
        found = [torch.empty_like(padded) for _ in sizes]
        self._do(lambda: dist.all_gather(found, padded, self._control))
        return [one[:size] for one, size in zip(found, sizes, strict=True)]

    def sum_(self, flat: Tensor) -> None:
        """The sum over ranks, in place and equal to the bit on all. Call it right after a status all-reduce."""
        if flat.device.type == "cuda" and self._fast is None:
            self._fast = dist.new_group(backend="nccl")
        group = self._fast if flat.device.type == "cuda" else self._control
        self._do(lambda: dist.all_reduce(flat, dist.ReduceOp.SUM, group))

    def send(self, order: dict[str, Any]) -> None:
        """order: plain values and tensors, such as a checkpoint."""
        self.status_all_reduce()
        stream = io.BytesIO()
        torch.save(order, stream)
        content = torch.frombuffer(bytearray(stream.getvalue()), dtype=torch.uint8)
        size = torch.tensor([len(content)])
        self._do(lambda: dist.broadcast(size, 0, self._control))
        self._do(lambda: dist.broadcast(content, 0, self._control))

    def receive(self) -> dict[str, Any]:
        """What rank 0 sent."""
        self.status_all_reduce()
        size = torch.zeros(1, dtype=torch.int64)
        self._do(lambda: dist.broadcast(size, 0, self._control))
        content = torch.empty(int(size), dtype=torch.uint8)
        self._do(lambda: dist.broadcast(content, 0, self._control))
        return torch.load(io.BytesIO(content.numpy().tobytes()), weights_only=True)

    def _do(self, collective: Callable[[], Any]) -> None:
        try:
            collective()
        except RuntimeError as error:  # torch's error for every broken connection
            if self.rank == 0:
                self.report_loss()
            raise RankLost(f"a rank of this run is gone ({_reason(error)})") from None

    def report_loss(self) -> None:
        """Notes in the store that rank 0 is alive and will print how the run ended."""
        with suppress(RuntimeError):
            self._store.set(_REPORTED, "yes")

    def loss_already_reported(self) -> bool:
        """Whether another rank prints that a rank was lost: rank 0, or, where rank 0 is lost, the first to ask."""
        try:
            until = time.monotonic() + RANK_0_REPORTS_S
            while time.monotonic() < until:  # the store's own wait prints a warning when it times out
                if self._store.check([_REPORTED]):
                    return True
                time.sleep(0.1)
            return self._store.add(_OTHERS, 1) > 1
        except RuntimeError:  # the store is gone too
            return False


def _reason(error: BaseException) -> str:
    """The first clause of torch's message, without the place in its source."""
    line = str(error).partition("\n")[0]
    line = line.partition("] ")[2] if line.startswith("[/") else line
    return line.partition(". ")[0].rstrip(".")
