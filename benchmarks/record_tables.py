"""The Markdown tables of docs/results.md and docs/results/*.md, from record.json and the memory study.

An accuracy has one of two intervals, and each has its own column: over seeds (Student's t) or, for a single seed, over
test tasks.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from memmeta_exp.reports.grouping import algorithm_label
from memmeta_exp.reports.paper_results import peak_curve, published

PRINTED = {"proposed_printed": "proposed"}  # Algorithm 1 with warm starts; the paper has one number for both
TARGETS = ("tasks_to_target", "seconds_to_target")
MARKED = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
INEXACT_IN_BF16 = ("maml", "fomaml")  # a bfloat16 gradient at the paper's settings is far from the float64 gradient
INTERVALS = ("95 % over seeds", "95 % over test tasks")
STEPS = (5, 20)  # inner steps K of the table of memory
HEADLINE = ("", "certified")  # of VARIANTS, the rows of docs/results.md


class Variant(NamedTuple):
    """A variant of the best recipe. statistics: those of batch norm on a test task. Inductive where they are running
    ones alone: otherwise a query image is normalised with the other query images."""

    label: str
    trained: str
    statistics: str
    views: int = 2  # an image and its mirror image

    @property
    def inductive(self) -> str:
        return "yes" if self.statistics == "running" else "no"


MIXTURE = "0.3 own, 0.7 running"
VARIANTS = {  # by the name in docs/results/record/
    "": Variant("the recipe", "all classes at once", MIXTURE),
    "task_norm": Variant("task_norm", "all classes at once", "own"),
    "float32": Variant("float32", "all classes at once", "own"),
    "cosine": Variant("cosine", "all classes, cosine classifier", "own"),
    "resnet12_short": Variant("resnet12_short", "all classes, ResNet-12", MIXTURE),
    "certified": Variant("solved", "`proposed`, solved", MIXTURE),
    "certified_task_norm": Variant("solved_task_norm", "`proposed`, solved", "own"),
    "certified_half": Variant("solved_half", "`proposed`, solved", "own"),
}


def tables(found: dict[str, Any]) -> dict[str, str]:
    """All tables, by their name in the pages."""
    made = {
        "paper": _paper(found),
        "recipe": _recipe(found),
        "variants": _variants(found),
        "runs": _runs(found),
        "speed": _speed(found),
        "otherwise": _adaptations(found),
    }
    if (s := found["quick"]) is not None:
        columns = ("seconds, all of the run", "training tasks", "test accuracy, %", *INTERVALS)
        quick = _header(*columns, "lowest seed, %", "paper, %")
        row = f"| {s['seconds']:,} | {s['training_tasks']:,} |{_accuracy(s)} {s['least_acc']} | {s['paper_acc']} |"
        made["seconds"] = "\n".join([*quick, row])
    return made


def filled(pages: Mapping[Path, str], made: Mapping[str, str]) -> dict[Path, str]:
    """The pages with the tables between their markers, `<!-- table NAME -->` and `<!-- end -->`. SystemExit for a table
    that no page takes and for a marker of no table."""
    named = {found[2] for text in pages.values() for found in MARKED.finditer(text)}
    for name in sorted(named ^ {*made}):
        raise SystemExit(f"no page has a place for the table {name}" if name in made else f"there is no table {name}")
    return {page: MARKED.sub(lambda m: f"{m[1]}{made[m[2]]}\n{m[3]}", text) for page, text in pages.items()}


def memory(rows: Iterable[Mapping[str, str]]) -> str:
    """Peak MiB against K. rows: those of docs/results/studies/memory_vs_inner_steps_32.csv."""
    peaks: dict[str, dict[tuple[str, int], float]] = {}
    for row in rows:
        _, structure, algorithm = row["experiment"].split("/")
        at = structure, int(row["algorithm.inner_steps"])
        peaks.setdefault(algorithm, {})[at] = int(row["max_memory_allocated"]) / 2**20
    for algorithm, of in peaks.items():
        of.update({("paper", k): mib for k, mib in zip(*(peak_curve(algorithm, 32) or ((), ())), strict=True)})
    structures = {"here": "fair", "released structure": "released", "paper": "paper"}
    lines = _header("algorithm", *(f"{name}, K = {k}" for name in structures for k in STEPS))
    for algorithm, of in peaks.items():
        cells = (of.get((structure, k)) for structure in structures.values() for k in STEPS)
        lines.append(f"| {algorithm} | " + " | ".join("-" if mib is None else f"{mib:.1f}" for mib in cells) + " |")
    return "\n".join(lines)


def _of_the_paper(found: dict[str, Any], published_key: str) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """For each row: its beginning, our numbers, and the paper's number; None if the paper has none."""
    theirs = published()[published_key]
    for dataset, algorithms in sorted(found["paper"].items()):
        for algorithm, a in sorted(algorithms.items()):
            yield f"| {dataset} | {algorithm} |", a, theirs.get(dataset, {}).get(PRINTED.get(algorithm, algorithm))


def _paper(found: dict[str, Any]) -> str:
    lines = _header(
        "dataset", "algorithm", "paper, mean +- std", "ours, %", *INTERVALS, "difference", "seeds", "precision"
    )
    for of, a, known in _of_the_paper(found, "accuracy_percent"):
        paper, apart = (f"{known[0]} +- {known[1]}", f"{a['acc'] - known[0]:+.2f}") if known else ("-", "-")
        lines.append(f"{of} {paper} |{_accuracy(a)} {apart} | {a['seeds']} | {_precisions(of, a['runs'])} |")
    return "\n".join(lines)


def _precisions(of: str, runs: list[dict[str, Any]]) -> str:
    precisions = sorted({run["precision"] for run in runs}, reverse=True)
    algorithm = of.split("|")[2].strip()
    if algorithm in INEXACT_IN_BF16 and "bf16" in precisions:
        precisions[precisions.index("bf16")] = f"bf16: not {algorithm_label(algorithm)}"
    return ", ".join(precisions)


def _recipes(found: dict[str, Any]) -> Iterator[tuple[str, str, Variant, dict[str, Any]]]:
    """(dataset, ways and shots, variant, what was found), a variant's five shots before its one. SystemExit for a
    variant that VARIANTS does not describe."""
    for dataset, shapes in sorted(found["best"].items()):
        for unknown in {name.partition("_")[2] for name in shapes} - {*VARIANTS}:
            raise SystemExit(
                f"{dataset} has a variant {unknown}: VARIANTS in benchmarks/record_tables.py describes each"
            )
        for key, variant in VARIANTS.items():
            for shape in sorted({name.partition("_")[0] for name in shapes}, reverse=True):
                if (a := shapes.get(f"{shape}_{key}" if key else shape)) is not None:
                    yield dataset, shape, variant, a


def _recipe(found: dict[str, Any]) -> str:
    columns = ("dataset", "tasks", "trained on", "test, %", *INTERVALS, "seeds", "batch-norm statistics", "views")
    lines = _header(*columns, "inductive")
    chosen = [VARIANTS[key] for key in HEADLINE]
    for dataset, shape, v, a in _recipes(found):
        if v in chosen:
            tested = f"{a['seeds']} | {v.statistics} | {v.views} | {v.inductive} |"
            lines.append(f"| {dataset} | {shape} | {v.trained} |{_accuracy(a)} {tested}")
    return "\n".join(lines)


def _variants(found: dict[str, Any]) -> str:
    columns = ("dataset", "tasks", "variant", "test, %", *INTERVALS, "seeds", "training tasks", "seconds", "inductive")
    lines = _header(*columns)
    for dataset, shape, v, a in _recipes(found):
        cost = f"{a['seeds']} | {a['training_tasks']:,} | {a['seconds']:,} | {v.inductive} |"
        lines.append(f"| {dataset} | {shape} | {v.label} |{_accuracy(a)} {cost}")
    return "\n".join(lines)


def _runs(found: dict[str, Any]) -> str:
    lines = _header(
        "dataset",
        "algorithm",
        "seed",
        "test, %, 95 % over test tasks",
        "precision",
        "processor",
        "s an iteration",
        "revision",
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


def _adaptations(found: dict[str, Any]) -> str:
    lines = _header("dataset", "algorithm", "checkpoint, test-time adaptation", "accuracy on the same test tasks, %")
    for of, a, _ in _of_the_paper(found, "accuracy_percent"):
        lines.append(f"{of} best checkpoint, the paper's | {a['acc']:.2f} |")
        for label, acc in a["otherwise"].items():
            label = label.replace("the same rule", "the paper's").replace("own rule", "own")
            lines.append(f"{of} {label} | {acc:.2f} |")
    return "\n".join(lines)


def _two_digits(seconds: float) -> str:
    """`seconds` with two significant digits, the accuracy of the seconds per task."""
    return f"{float(f'{seconds:.2g}'):,.0f}"


def _header(*columns: str) -> list[str]:
    return ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]


def _accuracy(a: dict[str, Any]) -> str:
    """Three cells: the accuracy, and its interval in the column of what it is over."""
    half = f"+- {a['ci95']:.2f}"
    return f" {a['acc']:.2f} | " + (f"{half} | - |" if a["over"] == "seeds" else f"- | {half} |")


def _interval(a: dict[str, Any]) -> str:
    return f"{a['acc']:.2f} +- {a['ci95']:.2f}"
