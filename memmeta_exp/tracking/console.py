"""What a run shows on a terminal: the progress bar on standard error, the table of results on standard output."""

import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

MIB = 2**20
ROWS = {  # summary key: (label, format)
    "test/acc": ("test accuracy", "{:.2%}"),
    "test/acc_ci95": ("  95 % interval, +-", "{:.2%}"),
    "test/mse": ("test mean squared error", "{:.5g}"),
    "test/mse_ci95": ("  95 % interval, +-", "{:.2g}"),
    "val/acc_best": ("best validation accuracy", "{:.2%}"),
    "val/mse_best": ("least validation mean squared error", "{:.5g}"),
    "val/best_iteration": ("  at iteration", "{}"),
    "tasks_seen": ("training tasks seen", "{:,}"),
    "memory/peak_mib": ("peak memory, MiB", "{:.1f}"),
    "memory/above_baseline_mib": ("  above parameters and data", "{:.1f}"),
    "time/step_seconds_median": ("step, median seconds", "{:.4f}"),
    "time/total_seconds": ("whole run, seconds", "{:.1f}"),
    "val/loss_best": ("least F(theta)", "{:.6g}"),
    "convergence/error": ("convergence error", "{:.3e}"),
    "convergence/grad_norm_sq": ("|grad F|^2 at the end", "{:.3e}"),
    "convergence/suboptimality": ("  F - min F at the end", "{:.3e}"),
    "convergence/distance": ("  distance to the minimiser", "{:.3e}"),
    "cost/gradient_evaluations": ("gradients evaluated, over tasks", "{:,}"),
    "cost/hessian_vector_products": ("  products of second derivatives", "{:,}"),
    "inner/grad_norm_max": ("lower level, largest |d_phi g|", "{:.2e}"),
    "inner/kappa": ("  kappa = L_g / mu at the end", "{:.0f}"),
    "linear/residual_max": ("linear solve, largest residual", "{:.2e}"),
    "hypergrad/inexact_fraction": ("hypergradients with a missed solve", "{:.2%}"),
}


def _in_notebook(console: Console) -> bool:
    """Whether a notebook can show a bar: rich draws it by ipywidgets there."""
    return console.is_jupyter and find_spec("ipywidgets") is not None


class ProgressBar:
    """The bar of a training run with ETA, loss, accuracy and peak memory; off where `enabled` is false. Where standard
    error is no terminal, the lines passed to `note` are all that appears."""

    def __init__(self, total: int, enabled: bool) -> None:
        self.console = Console(stderr=True, quiet=not enabled)
        self._peak = ""
        self._bar = Progress(
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[status]}"),
            console=self.console,
            disable=not enabled or not (self.console.is_terminal or _in_notebook(self.console)),
        )
        self._task = self._bar.add_task("", total=total, status="")

    def __enter__(self) -> "ProgressBar":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, iteration: int, metrics: Mapping[str, Any]) -> None:
        """Shows the state after `iteration` (of 0 there is only that); the last peak measured stays on show."""
        if "memory/peak_mib" in metrics:
            self._peak = f" peak {metrics['memory/peak_mib']:.1f} MiB"
        status = ""
        if "train/loss" in metrics:
            acc = f" acc {metrics['train/acc']:.1%}" if "train/acc" in metrics else ""
            status = f"loss {metrics['train/loss']:.3f}{acc}{self._peak}"
        self._bar.update(self._task, completed=iteration, status=status)

    def note(self, line: str) -> None:
        """Prints a line above the bar."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def print_summary(name: str, folder: Path, summary: Mapping[str, Any]) -> None:
    """The table of results, the paths written, and `summary: PATH` as the last line of standard output."""
    table = Table(title=escape(name), show_header=False)
    for key, (label, form) in ROWS.items():
        if key not in summary:  # the algorithm or the problem has none
            continue
        value = math.nan if summary[key] is None else summary[key]
        table.add_row(label, form.format(value) if math.isfinite(value) else "not defined")
    console = Console()
    console.print(table)
    written = [path for path in sorted(folder.rglob("*")) if path.is_file() and "wandb" not in path.parts]
    for path in written:
        print(f"wrote {path}")
    if (folder / "wandb").is_dir():
        print(f"wrote {folder / 'wandb'}")
    print(f"summary: {folder / 'summary.json'}", flush=True)


JOB_NUMBERS = {  # as ROWS, in the order of the columns
    "test/acc": ("test accuracy", "{:.2%}"),
    "test/mse": ("test mean squared error", "{:.5g}"),
    "val/acc_best": ("best validation", "{:.2%}"),
    "val/mse_best": ("least validation error", "{:.5g}"),
    "val/loss_best": ("least F", "{:.6g}"),
    "convergence/grad_norm_sq": ("|grad F|^2", "{:.3e}"),
    "memory/above_baseline_mib": ("MiB above baseline", "{:.1f}"),
    "time/step_seconds_median": ("step, seconds", "{:.4f}"),
}
MOST_ROWS = 50
MAX_WIDTH = 10_000


def print_jobs(title: str, rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> None:
    """The table over the jobs of a sweep: for each its values of `keys`, its state and the numbers that any has. Its
    lines are as long as they need to be where this is no terminal."""
    numbers = [key for key in JOB_NUMBERS if any(row.get(key) is not None for row in rows)]
    table = Table(title=escape(title))
    for heading in (*keys, "state", *(JOB_NUMBERS[key][0] for key in numbers)):
        table.add_column(escape(heading), overflow="fold")
    for row in rows[:MOST_ROWS]:
        said = [_word(row.get(key)) for key in keys]
        table.add_row(*map(escape, said), str(row["state"]), *(_number(row, key) for key in numbers))
    console = Console()
    Console(width=None if console.is_terminal else MAX_WIDTH).print(table)
    if len(rows) > MOST_ROWS:
        print(f"and {len(rows) - MOST_ROWS} more")


def _word(value: Any) -> str:
    return {True: "true", False: "false", None: "null"}[value] if isinstance(value, bool | None) else str(value)


def _number(row: Mapping[str, Any], key: str) -> str:
    """By its form, with half of its interval where it has one."""
    form, half = JOB_NUMBERS[key][1], row.get(f"{key}_ci95")
    if not _finite(row.get(key)):
        return ""
    return form.format(row[key]) + (f" +- {form.format(half)}" if _finite(half) else "")


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def print_profile(name: str, found: Mapping[str, Any]) -> None:
    """The table of a measured profile.json."""
    table = Table(title=escape(name))
    for column in ("phase", "ms", "share", "peak MiB above baseline"):
        table.add_column(column, justify="left" if column == "phase" else "right")
    for part, row in found["phases"].items():
        table.add_row(part, f"{1000 * row['seconds']:.2f}", f"{row['share']:.1%}", f"{row['above_baseline_mib']:.2f}")
    step, peak = 1000 * found["time/step_seconds_median"], found["memory/above_baseline_mib"]
    workers = found["workers"]
    table.add_section()
    table.add_row(
        "whole iteration" if workers == 1 else f"by {workers} workers at once",
        f"{step:.2f}",
        "",
        "" if workers > 1 else f"{peak:.2f}",
    )
    console = Console()
    console.print(table)
    for line in (
        f"{found['time/tasks_per_second']:.1f} tasks/s, on {found['device']}",
        f"peak {peak:.2f} MiB above parameters, optimiser state and data, {found['memory/peak_mib']:.2f} MiB with them "
        f"({found['memory/kind']}{', one worker' if workers > 1 else ''})",
    ):
        console.print(line, highlight=False, soft_wrap=True)


PREDICTION_LABELS = {  # of the prediction's bytes: label
    "tensors": "tensors above what persists, at the peak",
    "parameters": "parameters",
    "buffers": "buffers",
    "optimizer_state": "optimiser state",
    "images": "training images, taken to be on the GPU",
    "warm_starts": "warm starts",
    "rounding": "rounding of all these to blocks of 512 bytes",
}


def print_prediction(name: str, found: Mapping[str, Any]) -> None:
    """The table of a predicted profile.json."""
    lines = found["bytes"]
    table = Table("predicted, not measured", title=f"{escape(name)} on a GPU")
    table.add_column("MiB", justify="right")
    for key, label in PREDICTION_LABELS.items():
        table.add_row(label, f"{lines[key] / MIB:.3f}")
    named = sum(lines[key] for key in PREDICTION_LABELS)
    workspaces = [(found[f"max_memory_allocated{which}"] - named) / MIB for which in ("", "_hopper")]
    table.add_row(f"cuBLAS workspaces, threads: {lines['matmul_threads']} (on Hopper)", _pair(*workspaces))
    table.add_section()
    totals = [found[f"max_memory_allocated{which}"] / MIB for which in ("", "_hopper")]
    table.add_row("max_memory_allocated (on Hopper), and above that:", _pair(*totals))
    table.add_row("  allocator blocks left unsplit, at most", f"{lines['unsplit_at_most'] / MIB:.3f}")
    table.add_row("  cuDNN's workspace, unknown, less this much", f"{lines['convolution_headroom'] / MIB:.3f}")
    Console().print(table)


def _pair(general: float, hopper: float) -> str:
    return f"{general:.3f} ({hopper:.3f})"
