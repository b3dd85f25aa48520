"""The tables of the report; docs/outputs.md defines every column."""

import shlex
from collections.abc import Sequence
from typing import Any

from memmeta_exp.reports import comparison, curves, fit_figures, memory, paper_results
from memmeta_exp.reports.grouping import Configuration, configurations
from memmeta_exp.reports.runs import Run, numbers
from memmeta_exp.reports.statistics import reached
from memmeta_exp.reports.table import Column, Row, Table, number, table, words
from memmeta_exp.utils.statistics import Mean, mean_interval

MIB = 2**20
CONFIGURATION = words("configuration", "configuration")
SEEDS = number("seeds", "seeds", "{:d}")


def _of(configuration: Configuration) -> Row:
    """The first columns of every table of configurations."""
    return {"configuration": configuration.label, **configuration.differing, "seeds": len(configuration.runs)}


def _mean(configuration: Configuration, key: str, scale: float = 1.0) -> Mean | None:
    values = [numbers(run).get(key) for run in configuration.runs]
    present = [scale * value for value in values if isinstance(value, (int, float))]
    return mean_interval(present) if present else None


def _means(configuration: Configuration, names: dict[str, tuple[str, float]]) -> Row:
    """{name: mean, name_ci95: half-width of its interval over seeds} of final numbers. names: {name: (key, scale)}."""
    row: Row = {}
    for name, (key, scale) in names.items():
        if (mean := _mean(configuration, key, scale)) is not None:
            row |= {name: mean.mean, f"{name}_ci95": mean.half_width}
    return row


def compared(groups: Sequence[Configuration]) -> Table | None:
    """Accuracy, memory and time of each, the most accurate first."""
    ranked = comparison.tested(groups)
    costs = {"peak_mib": ("memory/peak_mib", 1.0)}
    rows = [
        {**_accuracy_row(c), **_speed_row(c), **_means(c, costs), "tie": "yes" if tie else "no", "folder": _folder(c)}
        for c, tie in zip(ranked, comparison.ties(ranked), strict=True)
    ]
    columns = (
        CONFIGURATION,
        number("test_percent", "test accuracy (%)", "{:.2f}", "test_percent_ci95"),
        words("tie", "tied with the best"),
        number("peak_mib", "peak memory (MiB)", "{:,.1f}"),
        number("step_seconds", "seconds a step", "{:.4f}"),
        number("seconds_to_target", "seconds to target", "{:,.1f}"),
        number("tasks_to_target", "tasks to target", "{:,.0f}"),
        SEEDS,
        words("folder", "folder"),
    )
    return table("comparison", "Comparison, the most accurate first", columns, rows, comparison.setting(ranked))


def _folder(configuration: Configuration) -> str:
    more = len(configuration.runs) - 1
    return str(configuration.runs[0].path) + (f" and {more} more" if more else "")


def accuracy(groups: Sequence[Configuration]) -> Table | None:
    """Test accuracy next to the paper's."""
    rows = [_accuracy_row(c) for c in groups if _mean(c, "test/acc") is not None]
    columns = (
        CONFIGURATION,
        SEEDS,
        number("test_percent", "test accuracy (%)", "{:.2f}", "test_percent_ci95"),
        words("interval_over", "95 % interval over"),
        number("validation_percent", "best validation (%)", "{:.2f}", "validation_percent_ci95"),
        number("paper_percent", "paper (%)", "{:.2f}", "paper_percent_std"),
        number("difference_points", "ours minus the paper's (points)", "{:+.2f}"),
        words("inside_paper_interval", "inside the paper's interval"),
    )
    return table("accuracy", "Test accuracy of the best model by validation", columns, rows)


def _accuracy_row(configuration: Configuration) -> Row:
    mean, half, over = curves.accuracy(configuration)
    row = {
        **_of(configuration),
        "test_percent": mean,
        "test_percent_ci95": half,
        "interval_over": over,
        **_means(configuration, {"validation_percent": ("val/acc_best", 100.0)}),
    }
    published = paper_results.accuracy_percent(configuration.config)
    if published is not None:
        row |= {
            "paper_percent": published[0],
            "paper_percent_std": published[1],
            "difference_points": mean - published[0],
            "inside_paper_interval": "yes" if abs(mean - published[0]) <= published[1] else "no",
        }
    return row


def errors(groups: Sequence[Configuration]) -> Table | None:
    """Test mean squared error of regression."""
    rows = [_error_row(c) for c in groups if _mean(c, "test/mse") is not None]
    columns = (
        CONFIGURATION,
        SEEDS,
        number("test_mse", "test mean squared error", "{:.4g}", "test_mse_ci95"),
        words("interval_over", "95 % interval over"),
        number("validation_mse", "least validation", "{:.4g}", "validation_mse_ci95"),
    )
    return table("errors", "Test mean squared error of the best model by validation", columns, rows)


def _error_row(configuration: Configuration) -> Row:
    mean, half, over = curves.mean_of(configuration, "test/mse")
    row = {**_of(configuration), "test_mse": mean, "test_mse_ci95": half, "interval_over": over}
    return row | _means(configuration, {"validation_mse": ("val/mse_best", 1.0)})


def speed(groups: Sequence[Configuration]) -> Table | None:
    """The cost of training: seconds, tasks, evaluations."""
    rows = [_speed_row(c) for c in groups if _mean(c, "time/step_seconds_median") or _mean(c, "time/total_seconds")]
    columns = (
        CONFIGURATION,
        SEEDS,
        number("seconds_to_target", "seconds to 0.9 of best validation", "{:,.1f}", "seconds_to_target_ci95"),
        number("tasks_to_target", "tasks to 0.9 of best validation", "{:,.0f}", "tasks_to_target_ci95"),
        words("seeds_at_target", "seeds that reached it"),
        number("paper_seconds", "seconds, paper (its GPU)", "{:,.0f}"),
        number("step_seconds", "median step (s)", "{:.4f}", "step_seconds_ci95"),
        number("total_seconds", "whole run (s)", "{:,.1f}", "total_seconds_ci95"),
        number("tasks_seen", "training tasks", "{:,.0f}"),
        number("gradient_evaluations", "gradient evaluations", "{:,.0f}"),
        number("hessian_vector_products", "Hessian-vector products", "{:,.0f}"),
    )
    return table("speed", "Time, tasks and evaluations", columns, rows)


def _speed_row(configuration: Configuration) -> Row:
    row = _of(configuration)
    found = [at for run in configuration.runs if (at := _reached(run)) is not None]
    if found:
        there = [at for at in found if at["seconds"] is not None]
        row["seeds_at_target"] = f"{len(there)} of {len(found)}"
        for name in ("seconds", "tasks"):
            if there:
                mean = mean_interval([at[name] for at in there])
                row |= {f"{name}_to_target": mean.mean, f"{name}_to_target_ci95": mean.half_width}
    row["paper_seconds"] = paper_results.seconds_to_target(configuration.config)
    names = {
        "step_seconds": ("time/step_seconds_median", 1.0),
        "total_seconds": ("time/total_seconds", 1.0),
        "tasks_seen": ("tasks_seen", 1.0),
        "gradient_evaluations": ("cost/gradient_evaluations", 1.0),
        "hessian_vector_products": ("cost/hessian_vector_products", 1.0),
    }
    return row | _means(configuration, names)


def _reached(run: Run) -> dict[str, Any] | None:
    """`statistics.reached` of a run; None if its curve cannot be read or has no validation points."""
    try:
        return reached(run) if any("val/acc" in row for row in run.rows) else None
    except ValueError:
        return None


def health(groups: Sequence[Configuration]) -> Table | None:
    """Convergence, residuals, and the fraction of solves that missed their tolerance."""
    names = {
        "convergence_error": ("convergence/error", 1.0),
        "grad_norm_sq": ("convergence/grad_norm_sq", 1.0),
        "wrong_percent": ("hypergrad/inexact_fraction", 100.0),
        "lower_residual_max": ("inner/grad_norm_max", 1.0),
        "linear_residual_max": ("linear/residual_max", 1.0),
        "kappa": ("inner/kappa", 1.0),
    }
    rows = [_of(c) | found for c in groups if (found := _means(c, names))]
    columns = (
        CONFIGURATION,
        SEEDS,
        number("convergence_error", "convergence error", "{:.3e}", "convergence_error_ci95"),
        number("grad_norm_sq", "squared gradient norm at the end", "{:.3e}", "grad_norm_sq_ci95"),
        number("wrong_percent", "hypergradients with a missed solve (%)", "{:.2f}"),
        number("lower_residual_max", "largest lower residual", "{:.1e}"),
        number("linear_residual_max", "largest linear residual", "{:.1e}"),
        number("kappa", "kappa at the end", "{:,.0f}"),
    )
    return table("convergence", "Convergence and solver health", columns, rows)


def memories(runs: Sequence[Run]) -> Table | None:
    """Peak memory of an iteration, measured or predicted."""
    known = [run for run in runs if run.finished and numbers(run).get(memory.ABOVE) is not None]
    rows = [_memory_row(c) for c in configurations(known, apart=memory.kind)]
    columns = (
        CONFIGURATION,
        words("kind", "how"),
        number("above_baseline_mib", "above the baseline (MiB)", "{:,.2f}"),
        number("peak_mib", "total (MiB)", "{:,.2f}"),
        number("peak_without_images_mib", "total without the images (MiB)", "{:,.2f}"),
        number("paper_mib", "paper (MiB)", "{:,.2f}"),
        number("difference_mib", "all but the images, minus the paper's (MiB)", "{:+,.2f}"),
    )
    caption = "Peak memory of a training iteration; the baseline is parameters, optimiser state and data"
    return table("memory", caption, columns, rows)


def _memory_row(configuration: Configuration) -> Row:
    names = {"above_baseline_mib": (memory.ABOVE, 1.0), "peak_mib": ("memory/peak_mib", 1.0)}
    row = _of(configuration) | _means(configuration, names)
    if (allocated := _mean(configuration, "max_memory_allocated")) and (images := _mean(configuration, "bytes.images")):
        row |= {"peak_mib": allocated.mean / MIB, "peak_without_images_mib": (allocated.mean - images.mean) / MIB}
    kind = memory.kind(configuration.runs[0])
    row |= {"kind": memory.KINDS.get(kind, kind), "paper_mib": paper_results.peak_mib(configuration.config)}
    if row["paper_mib"] is not None and "peak_without_images_mib" in row:
        row["difference_mib"] = row["peak_without_images_mib"] - row["paper_mib"]
    return row


def fits(found: Sequence[Row], name: str, caption: str, expected: str = "expected") -> Table | None:
    """The table of slopes. found: fits, with their `study`. expected: heading of the slope to compare with."""
    rows = [_fit_row(fit) for fit in found]
    columns = (
        words("study", "study"),
        words("name", "what"),
        Column("slope", "slope [95 % interval]", lambda row: fit_figures.interval_text(row)),
        number("expected", expected, "{:.4g}"),
        number("points", "points", "{}"),
        number("reached", "reached", "{:.1e}"),
        number("reached_at_most", "expected at most", "{:.1e}"),
        words("rule", "rule"),
    )
    return table(name, caption, columns, rows)


FIT_KEYS = ("study", "name", "slope", "slope_ci95", "expected", "points", "reached", "reached_at_most", "rule")


def _fit_row(fit: Row) -> Row:
    return {key: fit.get(key) for key in FIT_KEYS}


def unfinished(runs: Sequence[Run]) -> Table | None:
    """Every run without final numbers, with the reason."""
    rows = [
        {"run": str(run.path), "state": run.state, "iteration": run.status.get("iteration"), "reason": run.reason}
        for run in runs
        if not run.finished
    ]
    columns = (
        words("run", "run"),
        words("state", "state"),
        number("iteration", "last iteration", "{}"),
        words("reason", "reason"),
    )
    return table(
        "unfinished",
        "Runs without final numbers; they are only in this table and that of commands",
        columns,
        rows,
    )


def ran(runs: Sequence[Run]) -> Table | None:
    """The overrides of each run, the command that repeats it, its source revision and machine."""
    rows = [_ran_row(run) for run in runs if run.env]
    columns = (
        words("run", "run"),
        words("overrides", "overrides"),
        words("rerun", "rerun"),
        words("machine", "machine"),
        words("revision", "git revision"),
    )
    return table("commands", "What ran", columns, rows)


def _ran_row(run: Run) -> Row:
    env = run.env
    revision = str(env.get("git_revision") or "") and str(env["git_revision"])[:12]
    dirty = " with changes" if env.get("git_dirty") else ""
    return {
        "run": str(run.path),
        "overrides": " ".join(f"{key}={value}" for key, value in run.overrides.items()),
        "rerun": command(run) if run.kind == "profile" else shlex.join(["memmeta", "train", f"run={run.path}"]),
        "machine": f"{env.get('device_name')}, {env.get('threads')} threads, {env.get('platform')}",
        "revision": f"{revision}{dirty}" if revision else "an installed package",
    }


def command(run: Run) -> str:
    """The command line of a run as text: `memmeta train ...`."""
    arguments = [str(a) for a in run.env.get("command") or []]
    for i, argument in enumerate(arguments):
        if argument == "memmeta_exp" or argument.rpartition("/")[2] == "memmeta":
            return " ".join(["memmeta", *arguments[i + 1 :]])
    return " ".join(arguments)
