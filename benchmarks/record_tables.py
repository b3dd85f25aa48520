"""The Markdown tables of docs/results.md, from record.json."""

import re
from collections.abc import Iterator
from typing import Any

from memmeta_exp.reports.paper_results import published

PRINTED = {"proposed_printed": "proposed"}  # Algorithm 1 with warm starts; the paper has one number for both
TARGETS = ("tasks_to_target", "seconds_to_target")


def tables(found: dict[str, Any]) -> dict[str, str]:
    """All tables, by their name in results.md."""
    made = {
        "paper": _paper(found),
        "best": _best(found),
        "runs": _runs(found),
        "speed": _speed(found),
        "otherwise": _rules(found),
    }
    if (s := found["quick"]) is not None:
        quick = _header("seconds, all of the run", "training tasks", "test accuracy, %", "least seed, %", "paper, %")
        row = f"| {s['seconds']:,} | {s['training_tasks']:,} | {_interval(s)} | {s['least_acc']} | {s['paper_acc']} |"
        made["seconds"] = "\n".join([*quick, row])
    return made


def filled(text: str, made: dict[str, str]) -> str:
    """The text of results.md with the tables between its markers `<!-- table NAME -->` and `<!-- end -->`."""
    for name, table in made.items():
        pattern = re.compile(rf"(<!-- table {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text, count = pattern.subn(lambda m, table=table: f"{m[1]}{table}\n{m[2]}", text)
        if count != 1:
            raise SystemExit(f"results.md has {count} places for the table {name}, it takes one")
    return text


def _of_the_paper(found: dict[str, Any], published_key: str) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """For each row: its beginning, our numbers, and the paper's number; None if the paper has none."""
    theirs = published()[published_key]
    for dataset, algorithms in sorted(found["paper"].items()):
        for algorithm, a in sorted(algorithms.items()):
            yield f"| {dataset} | {algorithm} |", a, theirs.get(dataset, {}).get(PRINTED.get(algorithm, algorithm))


def _paper(found: dict[str, Any]) -> str:
    lines = _header("dataset", "algorithm", "ours, %", "paper, %", "difference", "seeds", "training tasks")
    for of, a, known in _of_the_paper(found, "accuracy_percent"):
        beside = f"{known[0]} +- {known[1]} | {a['acc'] - known[0]:+.2f}" if known else "- | -"
        lines.append(f"{of} {_interval(a)} | {beside} | {a['seeds']} | {a['training_tasks']:,} |")
    return "\n".join(lines)


def _best(found: dict[str, Any]) -> str:
    lines = _header("dataset", "tasks", "test accuracy, %", "seeds", "training tasks", "seconds")
    for dataset, shapes in sorted(found["best"].items()):
        several_shots_first = sorted(shapes.items(), reverse=True)
        for shape, a in sorted(several_shots_first, key=lambda item: item[0].partition("_")[2]):  # variants last
            cost = f"{a['training_tasks']:,} | {a['seconds']:,} |"
            lines.append(f"| {dataset} | {shape} | {_interval(a)} | {a['seeds']} | {cost}")
    return "\n".join(lines)


def _runs(found: dict[str, Any]) -> str:
    lines = _header(
        "dataset", "algorithm", "seed", "test accuracy, %", "precision", "processor", "s an iteration", "revision"
    )
    for of, a, _ in _of_the_paper(found, "accuracy_percent"):
        for run in a["runs"]:
            where = f"{run['precision']} | {run['machine']} | {run['step_seconds']:.2f} | {run['revision']} |"
            lines.append(f"{of} {run['seed']} | {_interval(run)} | {where}")
    return "\n".join(lines)


def _speed(found: dict[str, Any]) -> str:
    lines = _header("dataset", "algorithm", "tasks to the target", "seconds of one core", "paper, seconds of its GPU")
    for of, a, theirs in _of_the_paper(found, "seconds_to_90_percent_of_best_validation"):
        reached, seconds = (a[key] for key in TARGETS)
        tasks = "not reached" if reached is None else f"{reached:,}"
        lines.append(f"{of} {tasks} | {'-' if seconds is None else _two_digits(seconds)} | {theirs or '-'} |")
    return "\n".join(lines)


def _rules(found: dict[str, Any]) -> str:
    lines = _header("dataset", "algorithm", "tested by", "accuracy on the same test tasks, %")
    for of, a, _ in _of_the_paper(found, "accuracy_percent"):
        lines.append(f"{of} the paper's rule, best checkpoint | {a['acc']:.2f} |")
        lines += [f"{of} {label} | {acc:.2f} |" for label, acc in a["otherwise"].items()]
    return "\n".join(lines)


def _two_digits(seconds: float) -> str:
    """`seconds` with two significant digits, the accuracy of the seconds per task."""
    return f"{float(f'{seconds:.2g}'):,.0f}"


def _header(*columns: str) -> list[str]:
    return ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]


def _interval(a: dict[str, Any]) -> str:
    return f"{a['acc']:.2f} +- {a['ci95']:.2f}"
