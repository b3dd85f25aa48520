"""Names for the parts of a step, for profilers: `with phase("features"): ...`.

Without an observer a phase does nothing and costs a microsecond.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Protocol

PHASES = ("sampling", "features", "lower level", "linear solve", "backward", "optimizer")


class Observer(Protocol):
    """An observer of phases: each phase enters and leaves `observe(name)`."""

    def observe(self, name: str) -> AbstractContextManager[None]: ...


_observer: ContextVar[Observer | None] = ContextVar("observer", default=None)


def phase(name: str) -> AbstractContextManager[None]:
    """Marks the block as a phase, one of PHASES. A nested phase does not count in the phase around it."""
    assert name in PHASES, name
    observer = _observer.get()
    return nullcontext() if observer is None else observer.observe(name)


def observed() -> bool:
    """Whether an observer is active in this thread. It sees this thread alone."""
    return _observer.get() is not None


@contextmanager
def observed_by(observer: Observer) -> Iterator[None]:
    """Makes `observer` observe the phases in the block."""
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)
