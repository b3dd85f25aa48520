"""Naming the parts of a step, so that a profiler can tell them apart: `with phase("features"): ...`.

Without an observer a phase costs a microsecond and does nothing.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Protocol

PHASES = ("sampling", "features", "lower level", "linear solve", "backward", "optimizer")


class Observer(Protocol):
    """An observer of phases: `observe` is entered and left with each."""

    def observe(self, name: str) -> AbstractContextManager[None]: ...


_observer: ContextVar[Observer | None] = ContextVar("observer", default=None)


def phase(name: str) -> AbstractContextManager[None]:
    """One part of a step, one of PHASES; an inner phase is no part of the one around it."""
    assert name in PHASES, name
    observer = _observer.get()
    return nullcontext() if observer is None else observer.observe(name)


def observed() -> bool:
    """Whether an observer sees the phases of this thread, and of this thread alone."""
    return _observer.get() is not None


@contextmanager
def observed_by(observer: Observer) -> Iterator[None]:
    """Tells `observer` of the phases entered in the block."""
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)
