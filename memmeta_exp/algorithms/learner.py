"""What every algorithm offers the runner, and what they share: features in chunks, heads scored on them."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from memmeta_exp.algorithms.losses import Losses
from memmeta_exp.backbones import Keys, MetaModel, image_layout
from memmeta_exp.backbones.meta_model import scaled_cosines
from memmeta_exp.bilevel import Solution
from memmeta_exp.data.episodes import GivenTask, Half, TaskBatch, half
from memmeta_exp.data.tasks import Tasks
from memmeta_exp.profiling.phases import observed, phase
from memmeta_exp.utils.errors import ConfigError

INEXACT_TOLERANCE = 0.1  # relative error above which a solve is called wrong, tolerance or none
Solve = Callable[[Any, Tensor], Solution]  # of a lower level and phi_0 to its phi
Scores = tuple[Tensor | None, Tensor, Tensor]
T = TypeVar("T")


@dataclass(frozen=True)
class Adapt:
    """An adaptation of the head alone, in place of the algorithm's own: `solve` minimises g with R = mu/2 |phi|^2."""

    solve: Solve
    mu: float = 0.0


@dataclass(frozen=True)
class Execution:
    """How a learner runs. No result depends on it beyond rounding, and none on `workers` at all.

    tasks_per_pass: tasks of one backbone pass, a chunk, where no inner step moves the backbone. bf16: the backbone runs
    under bfloat16 autocast. workers: threads that each take a chunk at a time, with `threads_each` threads of torch's
    own; N of them hold up to N times the memory of one. While the memory meter or the phase profiler observes, one
    worker does everything, because they see one thread alone. as_on: the device whose execution strategy to emulate
    when tensors are on `meta`.
    """

    tasks_per_pass: int = 1
    bf16: bool = False
    workers: int = 1
    threads_each: int = 1
    as_on: torch.device | None = None


@dataclass(frozen=True)
class StepReport:
    """What one meta-step did, per task: tensors [B] on the device, None for what the algorithm does not have.

    loss (nats), accuracy: of the query set after adaptation. inexact: a solve missed what it has to reach, so the
    task's hypergradient is not the gradient of what is minimised. gradients, products: how many gradients of f or g,
    and derivatives of < d_phi g, v >, were evaluated. inner_residual: |d_phi g| where the inner solver stopped.
    linear_residual: |b - A x| / |b|. inner_steps, linear_steps: steps taken. smoothness: the bound on L_g of a
    head-only lower level.
    """

    loss: Tensor
    accuracy: Tensor | None
    inexact: Tensor
    gradients: Tensor
    products: Tensor
    inner_residual: Tensor | None = None
    inner_steps: Tensor | None = None
    linear_residual: Tensor | None = None
    linear_steps: Tensor | None = None
    smoothness: Tensor | None = None

    @staticmethod
    def join(parts: list["StepReport"]) -> "StepReport":
        """The reports of consecutive tasks as one."""

        def column(name: str) -> Any:
            values = [getattr(part, name) for part in parts]
            return None if values[0] is None else torch.cat(values)

        return StepReport(**{f.name: column(f.name) for f in fields(StepReport)})


def require_methods(algorithm: object, *names: str) -> None:
    """ConfigError unless `algorithm`, which may be a user's own, has the methods `names`."""
    missing = [name for name in names if not callable(getattr(algorithm, name, None))]
    if missing:
        raise ConfigError(f"{type(algorithm).__qualname__} has no method {missing[0]}: it needs {', '.join(names)}")


class Learner(ABC):
    """An algorithm on a model: accumulates meta-gradients, adapts and scores.

    losses: what f and g are. head_dtype: the precision of everything computed on features, by default the parameters'.
    warm: what the next iteration starts from, [B, ...]. check_interrupt: called before each chunk of tasks, in the
    caller's thread; where it raises, the step ends there and leaves everything but .grad unchanged.
    """

    def __init__(
        self, model: MetaModel, execution: Execution, losses: Losses, head_dtype: torch.dtype | None = None
    ) -> None:
        self.model, self.execution, self.losses = model, execution, losses
        self.head_dtype = head_dtype or model.head_start.dtype
        self.warm: dict[str, Tensor] = {}
        self.check_interrupt: Callable[[], None] = lambda: None

    @property
    def tasks_per_pass(self) -> int:
        """Tasks at a time."""
        return self.execution.tasks_per_pass

    @abstractmethod
    def step(self, batch: Tasks) -> StepReport:
        """Adds grad F_B, the mean over the batch's tasks, to the parameters' .grad."""

    @abstractmethod
    def _evaluate(self, batch: Tasks) -> Scores:
        """`evaluate` by the algorithm's own adaptation."""

    def evaluate(self, batch: Tasks, adapt: Adapt | None = None) -> Scores:
        """Query accuracy, loss, and whether the adaptation converged, of each task after adapting to its support set:
        float64 [B] each. The accuracy is None where nothing is classified.

        adapt: how the head adapts, None for the algorithm's own adaptation. Batch norm works as in evaluation.
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
        of a cosine head. Adaptation as in `evaluate`.
        """
        with self._evaluating():
            if adapt is None:
                return self._outputs(batch)
            return self._head_outputs(batch, self._around_zero(adapt.mu), adapt.solve)

    def _around_zero(self, mu: float) -> Callable[[Tensor, Tensor, Tensor], Any]:
        """g with R = mu/2 |phi|^2, of features, labels and phi_0."""
        return lambda z, labels, start: self.losses.lower(z, labels, start, mu, None)

    def update_running_stats(self, batch: Tasks, weight: float) -> None:
        """Moves the running statistics of batch norm (backbone.norm=running) towards those of the batch's images, by
        this weight. Costs one more forward pass."""
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
        """phi_0 [C, d+1], or of each task [T, C, d+1], of tasks of C = `ways` classes with support features z."""
        return self.model.head_start.detach()[:ways].to(self.head_dtype)

    def _ways(self, tasks: Tasks) -> int:
        """Rows of a head of these tasks."""
        return tasks.ways if isinstance(tasks, TaskBatch | GivenTask) else self.model.ways

    def _chunks(self, batch: Tasks, size: int) -> Iterator[tuple[int, Tasks]]:
        for at in range(0, len(batch), size):
            self.check_interrupt()
            yield at, batch[at : at + size]

    def _map(self, function: Callable[[int, Tasks], T], batch: Tasks, size: int) -> Iterator[T]:
        """`function` of each chunk of `size` tasks and its position in the batch, in the order of the batch."""
        if self._alone(batch, size):
            return (function(at, tasks) for at, tasks in self._chunks(batch, size))
        return self._in_threads(function, self._chunks(batch, size))

    def _in_threads(self, function: Callable[[int, Tasks], T], chunks: Iterator[tuple[int, Tasks]]) -> Iterator[T]:
        """Computes only a few chunks ahead, because results hold gradients until they are taken. Leaves no thread
        running."""
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
        """Whether this thread does every chunk."""
        return self.execution.workers == 1 or len(batch) <= size or is_in_torch_dispatch_mode() or observed()

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        e = self.execution
        return ThreadPoolExecutor(e.workers, "memmeta", lambda: torch.set_num_threads(e.threads_each))

    def _scaled(self, half: Half) -> Tensor:
        """Images [T, n, C, H, W] as floats in the precision of theta, on a CPU channels-last.

        They are in [0, 1], or augmented and normalised as their tasks say. Data that are not uint8 images are returned
        unchanged.
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
        """The random keys of a backbone with randomness, for `half` of the tasks, in training; otherwise None."""
        random = self.model.training and getattr(self.model.backbone, "random", False)
        return tasks.origin.keys(half) if random and tasks.origin else None

    def _features(self, half: Half, keys: Keys | None = None) -> tuple[Tensor, Tensor]:
        with phase("features"), self._autocast():
            x = self._scaled(half)
            z = self.model.backbone(x) if keys is None else self.model.backbone(x, keys)
            if half.pixels.mirrored:
                z = (z + self.model.backbone(x.flip(-1))) / 2
        return z.to(self.head_dtype), half.labels.to(z.device)

    def _both_features(self, tasks: Tasks) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Features and labels of support and of query.

        One joint pass computes both where they have equally many images and the backbone prefers it. Each half is then
        a task of its own to the backbone, with its own statistics.
        """
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
