"""A learner whose meta-step is recorded once as a CUDA graph and replayed: one launch in place of hundreds.

The K inner and N linear steps of a head are small kernels whose launches cost more than their work. The shapes of a
meta-step do not change from one iteration to the next, so the kernels are recorded at the third step and replayed at
every later one, on indices that are copied to where the recording reads them. What an eager loop stops for, the
recording cannot see: it goes the full number of steps and holds solved tasks where they are, to the same result.

One exception is theta's gradient: it lies where the recording left it, so .grad is replaced and not added to.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from memmeta_exp.algorithms.learner import Adapt, Learner, Scores, StepReport
from memmeta_exp.algorithms.wrapper import LearnerWrapper
from memmeta_exp.bilevel.vectors import every_round
from memmeta_exp.data.episodes import TaskBatch
from memmeta_exp.data.tasks import Tasks
from memmeta_exp.measure.phases import observed

WARM_UP = 2  # eager steps before the recording: libraries choose kernels and make their workspaces in them

T = TypeVar("T")
logger = logging.getLogger("memmeta")


class Graphs(Protocol):
    """How work is recorded. warm: does it as it will be recorded; capture: records it, and gives what does it again and
    the tensors that hold its result from then on, which that rewrites."""

    def warm(self, work: Callable[[], T]) -> T: ...

    def capture(self, work: Callable[[], T]) -> tuple[Callable[[], None], T]: ...


class CudaGraphs:
    """By torch.cuda.CUDAGraph, on a stream of its own."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)

    def warm(self, work: Callable[[], T]) -> T:
        """On that stream, which autograd remembers."""
        self.stream.wait_stream(torch.cuda.current_stream(self.stream.device))
        with torch.cuda.stream(self.stream):
            result = work()
        torch.cuda.current_stream(self.stream.device).wait_stream(self.stream)
        return result

    def capture(self, work: Callable[[], T]) -> tuple[Callable[[], None], T]:
        """RuntimeError where something in `work` cannot be recorded. A recording does nothing yet."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
            result = work()
        return graph.replay, result


@dataclass(frozen=True)
class _Recording:
    """replay: the kernels; batch, warm: what they read; report, gradients, kept: what they write."""

    replay: Callable[[], None]
    batch: TaskBatch
    warm: dict[str, Tensor]
    report: StepReport
    gradients: list[Tensor | None]
    kept: dict[str, Tensor]


class CapturedLearner(LearnerWrapper):
    """`inner`, its steps recorded by `graphs`. A step under an observer (the meters of memory and of phases) is eager;
    the report of a replayed one holds until the next step. Where recording fails, every step is eager, with one
    warning. Evaluation is always eager."""

    def __init__(self, inner: Learner, graphs: Graphs) -> None:
        super().__init__(inner)
        self.graphs = graphs
        self._recording: _Recording | None = None
        self._key: Any = None
        self._warmed, self._able = 0, True

    @property
    def replays(self) -> bool:
        return self._recording is not None

    def step(self, batch: Tasks) -> StepReport:
        """.grad must be empty before."""
        assert all(p.grad is None for p in self.model.parameters())
        if not self._able or observed() or is_in_torch_dispatch_mode() or not isinstance(batch, TaskBatch):
            return self.inner.step(batch)
        key = (batch.items.shape, batch.keys is None, batch.pixels, *((k, v.shape) for k, v in self.warm.items()))
        if key != self._key:
            self._key, self._recording, self._warmed = key, None, 0
        if self._recording is None:
            if self._warmed < WARM_UP:
                self._warmed += 1
                return self.graphs.warm(lambda: self.inner.step(batch))
            self._recording = self._recorded(batch)
            if self._recording is None:
                return self.inner.step(batch)
        return self._replayed(self._recording, batch)

    def _recorded(self, batch: TaskBatch) -> _Recording | None:
        mine = replace(batch, classes=batch.classes.clone(), items=batch.items.clone(), origin=None)
        mine = replace(mine, keys=None if batch.keys is None else batch.keys.clone())
        before, warm, poll = self.warm, {key: value.clone() for key, value in self.warm.items()}, self.poll
        parameters = list(self.model.parameters())

        def work() -> tuple[StepReport, list[Tensor | None], dict[str, Tensor]]:
            self.inner.warm = warm
            with every_round():
                report = self.inner.step(mine)
            return report, [p.grad for p in parameters], self.inner.warm

        self.inner.poll = lambda: None  # to stop in a recording would leave it broken
        try:
            replay, (report, gradients, kept) = self.graphs.capture(work)
        except RuntimeError as error:
            self._able = False
            logger.warning("cuda_graph=true: the step cannot be recorded (%s), so it runs eagerly", _first_line(error))
            return None
        finally:
            self.inner.poll, self.inner.warm = poll, before
            self.model.zero_grad(set_to_none=True)
        return _Recording(replay, mine, warm, report, gradients, kept)

    def _replayed(self, recording: _Recording, batch: TaskBatch) -> StepReport:
        self.poll()
        r = recording
        r.batch.classes.copy_(batch.classes)
        r.batch.items.copy_(batch.items)
        if r.batch.keys is not None and batch.keys is not None:
            r.batch.keys.copy_(batch.keys)
        for key, value in r.warm.items():
            value.copy_(self.warm[key])
        r.replay()
        for parameter, gradient in zip(self.model.parameters(), r.gradients, strict=True):
            parameter.grad = gradient
        self.inner.warm = dict(r.kept)
        return r.report

    def evaluate(self, batch: Tasks, adapt: Adapt | None = None) -> Scores:
        return self.inner.evaluate(batch, adapt)

    def _evaluate(self, batch: Tasks) -> Scores:
        return self.inner.evaluate(batch)

    def outputs(self, batch: Tasks, adapt: Adapt | None = None) -> Tensor:
        return self.inner.outputs(batch, adapt)

    def _outputs(self, batch: Tasks) -> Tensor:
        return self.inner.outputs(batch)

    def record(self, batch: Tasks, weight: float) -> None:
        self.inner.record(batch, weight)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
