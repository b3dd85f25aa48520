"""Where a run stands: what it has added up so far, all of which a checkpoint holds."""

import math
from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Progress:
    """Every field is saved with each checkpoint and restored from it; something more to add up is a field more.

    iteration: outer iterations done. row: what the row of that iteration holds so far, None where it has been logged;
    until then its validation may be missing. best_value: of the evaluator's key; best_model: the weights of
    best_iteration, on the CPU. latest, largest, total: the last value, the largest and the sum of each key of which the
    run keeps that. inexact_sum: of hypergrad/inexact_fraction. step_seconds: of the iterations that count. seconds:
    wall clock of all processes so far.
    """

    iteration: int = 0
    row: dict[str, float] | None = field(default_factory=dict)
    best_value: float = math.nan
    best_iteration: int = 0
    best_model: dict[str, Tensor] = field(default_factory=dict)
    latest: dict[str, float] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=dict)
    total: dict[str, int] = field(default_factory=dict)
    inexact_sum: float = 0.0
    memory_kind: str = ""
    step_seconds: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def add_up(self, metrics: dict[str, float], keys: tuple[str, ...]) -> dict[str, int]:
        """The sums of `keys` so far, a row's values taken in."""
        self.total = {key: self.total.get(key, 0) + int(metrics[key]) for key in keys}
        return self.total

    def keep_largest(self, metrics: dict[str, float], keys: tuple[str, ...]) -> None:
        """Takes in a row's values of `keys`, those that it has."""
        for key in [key for key in keys if key in metrics]:
            self.largest[key] = max(self.largest.get(key, metrics[key]), metrics[key])
