"""The base of learners that wrap another learner."""

from collections.abc import Callable

from torch import Tensor

from memmeta_exp.algorithms.learner import Learner


class LearnerWrapper(Learner):
    """Behaves as the learner `inner`, except in what a subclass overrides."""

    def __init__(self, inner: Learner) -> None:
        self.inner = inner
        self.model, self.execution, self.losses = inner.model, inner.execution, inner.losses
        self.head_dtype = inner.head_dtype

    @property
    def tasks_per_pass(self) -> int:
        """That of `inner`."""
        return self.inner.tasks_per_pass

    @property
    def check_interrupt(self) -> Callable[[int], None]:
        """That of `inner`."""
        return self.inner.check_interrupt

    @check_interrupt.setter
    def check_interrupt(self, poll: Callable[[int], None]) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] - an attribute
        self.inner.check_interrupt = poll

    @property
    def warm(self) -> dict[str, Tensor]:
        """That of `inner`."""
        return self.inner.warm

    @warm.setter
    def warm(self, warm: dict[str, Tensor]) -> None:  # pyright: ignore[reportIncompatibleVariableOverride] - as above
        self.inner.warm = warm
