"""The progress of a run: its iteration and running totals, all of which a checkpoint holds."""

import math
from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Progress:
    """Every checkpoint saves and restores all fields.

    iteration: outer iterations done. row: the metrics of that iteration so far, perhaps without its validation; None
    once they are logged. best_value: of the evaluator's key. best_model: the weights of best_iteration, on the CPU.
    latest, largest, total: the last value, the maximum and the sum of each key for which the run keeps it. inexact_sum:
    sum of hypergrad/inexact_fraction. step_seconds: of the iterations that count in the median. seconds: wall clock of
    all processes so far.
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
        """Adds a row's values of `keys` to the sums and returns the sums."""
        self.total = {key: self.total.get(key, 0) + int(metrics[key]) for key in keys}
        return self.total

    def keep_largest(self, metrics: dict[str, float], keys: tuple[str, ...]) -> None:
        """Updates the maxima of those `keys` that the row has."""
        for key in [key for key in keys if key in metrics]:
            self.largest[key] = max(self.largest.get(key, metrics[key]), metrics[key])
