"""Tables of results on standard output."""

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

MIB = 2**20
ROWS = {  # summary key: (label, format, what it is)
    "test/acc": ("test accuracy", "{:.2%}", "on tasks of new classes"),
    "test/acc_ci95": ("  95 % interval, +-", "{:.2%}", "over test tasks"),
    "test/mse": ("test mean squared error", "{:.5g}", "on new tasks"),
    "test/mse_ci95": ("  95 % interval, +-", "{:.2g}", "over test tasks"),
    "val/acc_best": ("best validation accuracy", "{:.2%}", "of the tested model"),
    "val/mse_best": ("least validation mean squared error", "{:.5g}", "of the tested model"),
    "val/best_iteration": ("  at iteration", "{}", ""),
    "tasks_seen": ("training tasks seen", "{:,}", "iterations x batch_size"),
    "memory/peak_mib": ("peak memory, MiB", "{:.1f}", "of a training iteration"),
    "memory/above_baseline_mib": ("  above parameters and data", "{:.1f}", "what the algorithm adds"),
    "time/step_seconds_median": ("step, median seconds", "{:.4f}", "of a training iteration"),
    "time/total_seconds": ("whole run, seconds", "{:.1f}", "with validation and test"),
    "val/loss_best": ("least F(theta)", "{:.6g}", "the objective"),
    "convergence/error": ("convergence error", "{:.3e}", "mean of |grad F|^2"),
    "convergence/error_coarseness": ("  +-, from iterations not measured", "{:.1e}", "0: all are measured"),
    "convergence/grad_norm_sq": ("|grad F|^2 at the end", "{:.3e}", "0 at a stationary point"),
    "convergence/suboptimality": ("  F - min F at the end", "{:.3e}", ""),
    "convergence/distance": ("  distance to the minimiser", "{:.3e}", ""),
    "cost/gradient_evaluations": ("gradient evaluations, all tasks", "{:,}", "by the inner solver"),
    "cost/hessian_vector_products": ("  Hessian-vector products", "{:,}", "by the linear solver"),
    "inner/grad_norm_max": ("lower level, largest |d_phi g|", "{:.2e}", "0: phi is exact"),
    "inner/kappa": ("  kappa = L_g / mu at the end", "{:.0f}", "its condition number"),
    "linear/residual_max": ("linear solve, largest residual", "{:.2e}", "0: v is exact"),
    "hypergrad/inexact_fraction": ("hypergradients with a missed solve", "{:.2%}", "0: all are of F"),
}


def print_summary(name: str, folder: Path, summary: Mapping[str, Any], verbose: bool) -> None:
    """Prints the table of results, the next steps, and `summary: PATH` as the last line of standard output. verbose:
    also the written files."""
    table = Table(title=escape(name), show_header=False)
    for key, (label, _, meaning) in ROWS.items():
        if text := number_text(summary, key):  # else the algorithm or the problem has none
            table.add_row(label, text, meaning)
    Console().print(table)
    if verbose:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            print(f"wrote {path}")
    for purpose, command in _next_steps(folder):
        print(f"{purpose + ':':<14}{command}")
    print(f"summary: {folder / 'summary.json'}", flush=True)


def _next_steps(folder: Path) -> Iterator[tuple[str, str]]:
    """The purpose of each step, and its command or path."""
    if (folder / "plots").is_dir():
        yield "plots", str(folder / "plots")
    if (folder / "test_episodes.csv").is_file():
        yield "test again", shlex.join(["memmeta", "evaluate", f"run={folder}"])
    yield "report", shlex.join(["memmeta", "report", str(folder)])
    for offline in sorted(folder.glob("wandb/offline-run-*")):
        yield "view here", shlex.join(["wandb", "leet", str(offline)])
        yield "send to W&B", shlex.join(["wandb", "sync", str(offline)])


def number_text(summary: Mapping[str, Any], key: str) -> str:
    """The value of a key of ROWS by its format; empty where there is none."""
    if key not in summary:
        return ""
    return ROWS[key][1].format(summary[key]) if _finite(summary[key]) else "not defined"


JOB_NUMBERS = {  # summary key: (column heading, format), in the order of the columns
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
    """Prints the table of the jobs of a sweep: the values of `keys`, the state, and numbers that any job has."""
    numbers = [key for key in JOB_NUMBERS if any(row.get(key) is not None for row in rows)]
    headings = [*keys, "state", *(JOB_NUMBERS[key][0] for key in numbers)]
    lines = [
        [*(_word(row.get(key)) for key in keys), str(row["state"]), *(_number(row, key) for key in numbers)]
        for row in rows[:MOST_ROWS]
    ]
    print_columns(title, headings, lines)
    if len(rows) > MOST_ROWS:
        print(f"and {len(rows) - MOST_ROWS} more")


def print_columns(title: str, headings: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """A table of texts. Its lines are as long as they need to be where this is no terminal."""
    table = Table(title=escape(title) or None)
    for heading in headings:
        table.add_column(escape(heading), overflow="fold")
    for line in lines:
        table.add_row(*map(escape, line))
    console = Console()
    Console(width=None if console.is_terminal else MAX_WIDTH).print(table)


def _word(value: Any) -> str:
    return {True: "true", False: "false", None: "null"}[value] if isinstance(value, bool | None) else str(value)


def _number(row: Mapping[str, Any], key: str) -> str:
    """The number `key` of `row` as text, with the half-width of its interval, if any; empty if it is missing."""
    form, half = JOB_NUMBERS[key][1], row.get(f"{key}_ci95")
    if not _finite(row.get(key)):
        return ""
    return form.format(row[key]) + (f" +- {form.format(half)}" if _finite(half) else "")


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def print_profile(name: str, found: Mapping[str, Any]) -> None:
    """Prints the table of a measured profile.json."""
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


PREDICTION_LABELS = {  # key of the prediction's bytes: label
    "tensors": "temporary tensors at the peak",
    "parameters": "parameters",
    "buffers": "buffers",
    "optimizer_state": "optimiser state",
    "images": "training images, assumed to be on the GPU",
    "warm_starts": "warm starts",
    "rounding": "rounding of these to blocks of 512 bytes",
}


def print_prediction(name: str, found: Mapping[str, Any]) -> None:
    """Prints the table of a predicted profile.json."""
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
    table.add_row("  cuDNN's workspace: unknown, minus this", f"{lines['convolution_headroom'] / MIB:.3f}")
    Console().print(table)


def _pair(general: float, hopper: float) -> str:
    return f"{general:.3f} ({hopper:.3f})"
