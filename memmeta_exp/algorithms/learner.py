"""The interface of every algorithm, and what algorithms share: features in chunks of tasks, scores of heads."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from memmeta_exp.algorithms.losses import Losses
from memmeta_exp.algorithms.step_report import StepReport
from memmeta_exp.backbones import Keys, MetaModel, image_layout
from memmeta_exp.backbones.meta_model import scaled_cosines
from memmeta_exp.bilevel import Solution
from memmeta_exp.data.episodes import GivenTask, Half, TaskBatch, half
from memmeta_exp.data.tasks import Tasks
from memmeta_exp.profiling.phases import observed, phase
from memmeta_exp.utils.errors import ConfigError

INEXACT_TOLERANCE = 0.1  # relative error above which a solve counts as inexact, whatever its tolerance
Solve = Callable[[Any, Tensor], Solution]  # (lower level, phi_0) -> phi
Scores = tuple[Tensor | None, Tensor, Tensor]
T = TypeVar("T")


@dataclass(frozen=True)
class Adapt:
    """An adaptation of the head that replaces the algorithm's own. solve: minimises g with R = mu/2 |phi|^2."""

    solve: Solve
    mu: float = 0.0


@dataclass(frozen=True)
class Execution:
    """How a learner runs. It changes results by rounding at most; `workers` does not change them at all.

    tasks_per_pass: tasks in one pass of the backbone, called a chunk. Algorithms whose inner steps run the backbone
    take one task, unless the backbone supports weights per task. images_per_pass: images of each of these tasks in one
    pass, None for all. bf16: the backbone runs under bfloat16 autocast. workers: threads, each of which takes one chunk
    at a time. N workers need up to N times the memory of one. threads_each: torch's own threads for each worker. The
    memory meter and the phase profiler observe one thread: while they are active, one worker computes everything.
    as_on: the device whose execution strategy to emulate when tensors are on `meta`.
    """

    tasks_per_pass: int = 1
    bf16: bool = False
    workers: int = 1
    threads_each: int = 1
    images_per_pass: int | None = None
    as_on: torch.device | None = None


def require_methods(algorithm: object, *names: str) -> None:
    """ConfigError unless `algorithm`, which may be a user's own, has the methods `names`."""
    missing = [name for name in names if not callable(getattr(algorithm, name, None))]
    if missing:
        raise ConfigError(f"{type(algorithm).__qualname__} has no method {missing[0]}: it needs {', '.join(names)}")


class Learner(ABC):
    """An algorithm on a model: accumulates meta-gradients, adapts to tasks and scores them.

    losses: f and g. head_dtype: the precision of everything computed on features, by default the parameters'. warm:
    warm starts of the next iteration, [B, ...] each. check_interrupt: called before each chunk of tasks, in the
    caller's thread, with the position of the chunk's first task in the batch. Where it raises, the step ends and has
    changed nothing but .grad.
    """

    def __init__(
        self, model: MetaModel, execution: Execution, losses: Losses, head_dtype: torch.dtype | None = None
    ) -> None:
        self.model, self.execution, self.losses = model, execution, losses
        self.head_dtype = head_dtype or model.head_start.dtype
        self.warm: dict[str, Tensor] = {}
        self.check_interrupt: Callable[[int], None] = lambda at: None

    @property
    def tasks_per_pass(self) -> int:
        """Tasks in one pass of the backbone."""
        return self.execution.tasks_per_pass

    @abstractmethod
    def step(self, batch: Tasks) -> StepReport:
        """Adds grad F_B, the mean over the batch's tasks, to the parameters' .grad."""

    @abstractmethod
    def _evaluate(self, batch: Tasks) -> Scores:
        """`evaluate` with the algorithm's own adaptation."""

    def evaluate(self, batch: Tasks, adapt: Adapt | None = None) -> Scores:
        """(accuracy, loss, converged) on each task's query set after adaptation to its support set: float64 [B] each.

        accuracy is None where there are no classes; converged is 1 or 0. adapt: how the head adapts, None for the
        algorithm's own adaptation. The model is in evaluation mode meanwhile.
        """
        with self._evaluating():
            if adapt is None:
                return self._evaluate(batch)
            return self._score_heads(batch, self._around_zero(adapt.mu), adapt.solve)

    @abstractmethod
    def _outputs(self, batch: Tasks) -> Tensor:
        """`outputs` after the algorithm's own adaptation."""

    def outputs(self, batch: Tasks, adapt: Adapt | None = None) -> Tensor:
        """The outputs of the adapted head for the query points of each task, [B, m, C]: W z + b, or the scaled cosines
        of a cosine head.

        adapt: as in `evaluate`.
        """
        with self._evaluating():
            if adapt is None:
                return self._outputs(batch)
            return self._head_outputs(batch, self._around_zero(adapt.mu), adapt.solve)

    def _around_zero(self, mu: float) -> Callable[[Tensor, Tensor, Tensor], Any]:
        """g with R = mu/2 |phi|^2, of features, labels and phi_0."""
        return lambda z, labels, start: self.losses.lower(z, labels, start, mu, None)

    def update_running_stats(self, batch: Tasks, weight: float) -> None:
        """Moves the running statistics of batch norm (backbone.norm=running) towards those of the batch's images.

        running <- (1 - weight) running + weight batch. It costs one more forward pass.
        """
        tasks = (batch[k : k + 1] for k in range(len(batch)))
        halves = (half(one, which) for one in tasks for which in ("support", "query"))
        with phase("features"):
            self.model.backbone.update_running_stats((self._scaled(one) for one in halves), weight)  # pyright: ignore[reportCallIssue]

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        self.model.eval()
        try:
            yield
        finally:
            self.model.train()

    def _score_heads(self, batch: Tasks, lower: Callable[[Tensor, Tensor, Tensor], Any], solve: Solve) -> Scores:
        def score(_: int, tasks: Tasks) -> Tensor:
            with torch.no_grad():
                support, query = self._both_features(tasks)
                start = self._start_of(*support, self._ways(tasks))
                inner = solve(lower(*support, start), start.expand(len(tasks), -1, -1))
                upper, phi = self.losses.upper(*query, start), inner.value
                columns = (upper.value(phi), inner.converged, upper.accuracy(phi))
                return torch.stack([column.double() for column in columns if column is not None])

        loss, converged, *accuracy = torch.cat(list(self._map(score, batch, self.execution.tasks_per_pass)), 1)
        return accuracy[0] if accuracy else None, loss, converged

    def _head_outputs(self, batch: Tasks, lower: Callable[[Tensor, Tensor, Tensor], Any], solve: Solve) -> Tensor:
        def output(_: int, tasks: Tasks) -> Tensor:
            with torch.no_grad():
                support, (z, _labels) = self._both_features(tasks)
                start = self._start_of(*support, self._ways(tasks))
                (w,) = solve(lower(*support, start), start.expand(len(tasks), -1, -1)).value
                if self.model.cosine is not None:
                    return scaled_cosines(z, w[..., :-1], self.model.cosine)
                return torch.baddbmm(w[:, None, :, -1], z, w[..., :-1].mT)

        return torch.cat(list(self._map(output, batch, self.execution.tasks_per_pass)))

    def _start_of(self, z: Tensor, labels: Tensor, ways: int) -> Tensor:
        """phi_0 for tasks of C = `ways` classes: [C, d+1], or one for each task [T, C, d+1]. z: support features."""
        return self.model.head_start.detach()[:ways].to(self.head_dtype)

    def _ways(self, tasks: Tasks) -> int:
        """C, the number of rows of these tasks' heads."""
        return tasks.ways if isinstance(tasks, TaskBatch | GivenTask) else self.model.ways

    def _chunks(self, batch: Tasks, size: int) -> Iterator[tuple[int, Tasks]]:
        for at in range(0, len(batch), size):
            self.check_interrupt(at)
            yield at, batch[at : at + size]

    def _map(self, function: Callable[[int, Tasks], T], batch: Tasks, size: int) -> Iterator[T]:
        """`function` of each chunk of `size` tasks and its position in the batch, in the order of the batch."""
        if self._alone(batch, size):
            return (function(at, tasks) for at, tasks in self._chunks(batch, size))
        return self._in_threads(function, self._chunks(batch, size))

    def _in_threads(self, function: Callable[[int, Tasks], T], chunks: Iterator[tuple[int, Tasks]]) -> Iterator[T]:
        """Computes only a few chunks ahead, because each result holds gradients until it is taken. At the end no chunk
        is still being computed."""
        ahead: deque[Future[T]] = deque()
        try:
            for chunk in chunks:
                ahead.append(self._pool.submit(function, *chunk))
                if len(ahead) > 2 * self.execution.workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()
            wait(ahead)

    def _alone(self, batch: Tasks, size: int) -> bool:
        """Whether the calling thread computes every chunk."""
        return self.execution.workers == 1 or len(batch) <= size or is_in_torch_dispatch_mode() or observed()

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        e = self.execution
        return ThreadPoolExecutor(e.workers, "memmeta", lambda: torch.set_num_threads(e.threads_each))

    def _scaled(self, half: Half) -> Tensor:
        """Images [T, n, C, H, W] as floats in the precision of theta, channels-last on a CPU.

        They are in [0, 1], or augmented and normalised as `half.pixels` says. Data that are not uint8 images are
        returned unchanged.
        """
        if half.images.dtype != torch.uint8:
            return half.images
        start, tasks = self.model.head_start, len(half.images)
        flat = half.images.flatten(0, 1).to(start.device)
        keys = None if half.keys is None else half.keys.flatten().to(start.device)
        return half.pixels.floats(flat, keys, start.dtype, image_layout(start.device)).unflatten(0, (tasks, -1))

    def _autocast(self) -> AbstractContextManager[Any]:
        device = self.model.head_start.device.type
        return torch.autocast(device, torch.bfloat16) if self.execution.bf16 else nullcontext()

    def _keys(self, tasks: Tasks, half: str) -> Keys | None:
        """The random keys of `half` of the tasks, for training a backbone that draws random numbers; else None."""
        random = self.model.training and getattr(self.model.backbone, "random", False)
        return tasks.origin.keys(half) if random and tasks.origin else None

    def _features(self, half: Half, keys: Keys | None = None) -> tuple[Tensor, Tensor]:
        with phase("features"), self._autocast():
            x = self._scaled(half)
            z = self.model.backbone(x) if keys is None else self.model.backbone(x, keys)
            if half.pixels.mirrored:
                z = (z + self.model.backbone(x.flip(-1))) / 2
        return z.to(self.head_dtype), half.labels.to(z.device)

    def _parts(self, tasks: Tasks, which: str) -> Iterator[Half]:
        """A half of the tasks, `images_per_pass` images of each at a time where that is set."""
        size = self.execution.images_per_pass
        if size is None or not isinstance(tasks, TaskBatch):
            return iter([half(tasks, which)])
        return tasks.parts(which, size)

    def _features_by_parts(self, tasks: Tasks, which: str) -> tuple[Tensor, Tensor]:
        z, labels = zip(*(self._features(part) for part in self._parts(tasks, which)), strict=True)
        return torch.cat(z, 1), torch.cat(labels, 1)

    def _both_features(self, tasks: Tasks) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Features and labels of support and of query.

        One joint pass computes both where they have equally many images and the backbone prefers it. The backbone then
        treats each half as a task, with its own statistics. With `images_per_pass` it takes as many images at a time,
        which saves memory where no graph is kept.
        """
        if self.execution.images_per_pass is not None:
            return self._features_by_parts(tasks, "support"), self._features_by_parts(tasks, "query")
        support, query = half(tasks, "support"), half(tasks, "query")
        device = self.execution.as_on or self.model.head_start.device
        with self._autocast():
            prefers_joint_forward = getattr(self.model.backbone, "prefers_joint_forward", lambda _: False)(device)
        if support.images.shape != query.images.shape or not prefers_joint_forward:
            keys_s, keys_q = (self._keys(tasks, which) for which in ("support", "query"))
            return self._features(support, keys_s), self._features(query, keys_q)
        z, labels = self._features(support.with_tasks_of(query))
        count = len(tasks)
        return (z[:count], labels[:count]), (z[count:], labels[count:])
