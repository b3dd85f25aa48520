"""What learners that stand in for another have in common."""

from collections.abc import Callable

from torch import Tensor

from memmeta_exp.algorithms.learner import Learner


class LearnerWrapper(Learner):
    """To whoever calls it it is `inner`, but for what a subclass does in another way."""

    def __init__(self, inner: Learner) -> None:
        self.inner = inner
        self.model, self.execution, self.losses = inner.model, inner.execution, inner.losses
        self.head_dtype = inner.head_dtype

    @property
    def tasks_per_pass(self) -> int:
        """Tasks at a time."""
        return self.inner.tasks_per_pass

    @property
    def check_interrupt(self) -> Callable[[int], None]:
        """As the learner's."""
        return self.inner.check_interrupt

    @check_interrupt.setter
    def check_interrupt(self, poll: Callable[[int], None]) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] - an attribute
        self.inner.check_interrupt = poll

    @property
    def warm(self) -> dict[str, Tensor]:
        """As the learner's."""
        return self.inner.warm

    @warm.setter
    def warm(self, warm: dict[str, Tensor]) -> None:  # pyright: ignore[reportIncompatibleVariableOverride] - as above
        self.inner.warm = warm
