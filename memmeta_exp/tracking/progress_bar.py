"""The progress bar of a run on standard error: its phase, progress and remaining training time."""

from collections import deque
from collections.abc import Mapping
from datetime import timedelta
from importlib.util import find_spec
from statistics import median
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

RECENT = 21  # iterations whose median time gives the ETA


def _in_notebook(console: Console) -> bool:
    """Whether this is a notebook with ipywidgets, by which rich draws the bar there."""
    return console.is_jupyter and find_spec("ipywidgets") is not None


class ProgressBar:
    """A bar over the terminal's width that shows one phase at a time. iterations: T.

    enabled=False shows nothing. If standard error is not a terminal, only the lines of `note` are shown.
    """

    def __init__(self, iterations: int, enabled: bool) -> None:
        self.iterations = iterations
        self.console = Console(stderr=True, quiet=not enabled)
        self._steps: deque[float] = deque(maxlen=RECENT)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[status]}", markup=False),
            console=self.console,
            expand=True,
            transient=True,
            disable=not enabled or not (self.console.is_terminal or _in_notebook(self.console)),
        )
        self._task = self._bar.add_task("", total=None, status="")

    def __enter__(self) -> "ProgressBar":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def phase(self, name: str, done: int = 0, total: int | None = None, status: str = "") -> None:
        """Shows the phase `name` and its progress `done`/`total`. Without a total the bar pulses."""
        count = f" {done}/{total}" if total else ""
        self._bar.tasks[0].total = total
        self._bar.update(self._task, description=name + count, completed=done, status=status)

    def update(self, iteration: int, metrics: Mapping[str, Any]) -> None:
        """Shows training after `iteration`. The ETA excludes validation and test."""
        if "time/step_seconds" in metrics:
            self._steps.append(metrics["time/step_seconds"])
        status = ""
        if "train/loss" in metrics:
            acc = f" acc {metrics['train/acc']:.1%}" if "train/acc" in metrics else ""
            status = f"loss {metrics['train/loss']:.3f}{acc}  eta {self._eta(iteration)}"
        self.phase("training", iteration, self.iterations, status)

    def _eta(self, iteration: int) -> str:
        seconds = median(self._steps) * (self.iterations - iteration) if self._steps else 0.0
        return str(timedelta(seconds=round(seconds)))

    def note(self, line: str) -> None:
        """Prints a line above the bar."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=not self.console.is_terminal)
