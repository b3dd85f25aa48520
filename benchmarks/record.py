"""docs/results/record.json, the tables of docs/results.md and docs/results/*.md, and pictures: `make record`.

    python -m benchmarks.record add NAME RUN_DIR [EVALUATION.json ...]   stores a run in docs/results/record/
    python -m benchmarks.record                                          makes record.json, tables and pictures from all

NAME is PART-DATASET-WHAT-sSEED: paper-cifar_fs-anil-s0, best-cifar_fs-5w5s-s0, quick-cifar_fs-5w5s-s0 (from `make
reproduce`). For `best`, 5w5s_half is a variant of the recipe, and its evaluations are called 5w1s_half.

An evaluation is the output of `memmeta evaluate ... out=FILE`. For `best` it is on tasks=N new tasks, one evaluation
per task shape and seed, with the same shapes for all seeds; an evaluation in the run's own shape, with another mu,
replaces the run's own test. For `paper` it is on the run's own test tasks with another test-time adaptation or
checkpoint. Accuracies of several seeds are a mean with the 95 % interval over seeds (Student's t); that of a single
seed has its interval over test tasks.

The target of a run is 0.9 of its best validation accuracy, reached as docs/outputs.md defines. Runs may be from
different machines and precisions. To compare them, the seconds to the target are the tasks times the seconds per task
in docs/results/paper_steps.json, which benchmarks/paper_steps.py measured for all algorithms on one machine.
"""

import argparse
import csv
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict, get_args

from benchmarks.record_figure import draw, draw_curves
from benchmarks.record_tables import PRINTED, filled, memory, tables
from memmeta_exp.reports.runs import read_run
from memmeta_exp.reports.statistics import target_index, validation_curve
from memmeta_exp.tracking.expected import Env, Overrides, Status, Summary
from memmeta_exp.utils.errors import DataError
from memmeta_exp.utils.reading import read_json, read_yaml
from memmeta_exp.utils.statistics import mean_interval

DOCS = Path(__file__).parents[1] / "docs"
NAME = re.compile(r"(?P<part>paper|best|quick)-(?P<dataset>[a-z0-9_]+)-(?P<what>[a-z0-9_]+)-s(?P<seed>\d+)")
QUICK = ("quick", "cifar_fs", "5w5s")  # runs that are compared with the paper's accuracy on CIFAR-FS
KEPT = ("python", "versions", "device_name", "cpu_cores", "threads", "workers", "git_revision")
PLACES = ("data_root=", "hydra.run.dir=")  # overrides that name local folders
PAPERS = 64.24  # %, the paper's method on CIFAR-FS


class _Of(TypedDict):
    of: str


Evaluation = Annotated[_Of, *get_args(Summary)[1:]]  # the output of `memmeta evaluate ... out=FILE`


class _Points(TypedDict):
    tasks: list[float]
    acc: list[float]
    ci95: list[float]


class Record(TypedDict):
    """A file of docs/results/record."""

    summary: Summary
    overrides: NotRequired[list[str]]
    env: NotRequired[Env]
    evaluations: list[Evaluation]
    validation: NotRequired[_Points | None]


class Steps(TypedDict):
    """docs/results/paper_steps.json."""

    seconds_a_task: dict[str, float]


def add(name: str, run: Path, evaluations: Sequence[Path], into: Path) -> Path:
    """Writes `into`/NAME.json. Raises SystemExit for an invalid name, or if `run` is not a finished run."""
    if not NAME.fullmatch(name):
        raise SystemExit(f"{name}: a name is PART-DATASET-WHAT-sSEED with PART paper, best or quick")
    for file in (run / "status.json", *evaluations):
        if not file.is_file():
            raise SystemExit(f"{file} does not exist: `add` takes a run's folder and what `memmeta evaluate` wrote")
    if read_json(run / "status.json", Status).get("state") != "finished":
        raise SystemExit(f"{run} has not finished")
    env = read_json(run / "env.json", Env)
    values = {
        "overrides": [o for o in read_yaml(run / "overrides.yaml", Overrides) if not o.startswith(PLACES)],
        "summary": read_json(run / "summary.json", Summary),
        "env": {key: env[key] for key in KEPT if key in env},
        "evaluations": [read_json(file, Evaluation) for file in evaluations],
        "validation": _validation(run),
    }
    file = into / f"{name}.json"
    file.write_text(json.dumps(values, indent=1, sort_keys=True) + "\n")
    return file


def _validation(run: Path) -> dict[str, list[float]] | None:
    """The validation points of a run, with accuracies as fractions; None if it has none."""
    curve = validation_curve(read_run(run))
    if curve is None:
        return None
    return {"tasks": curve.tasks.tolist(), "acc": curve.accuracy.tolist(), "ci95": curve.half_width.tolist()}


def kept(folder: Path) -> dict[tuple[str, str, str], dict[int, dict[str, Any]]]:
    """The content of the files in `folder` by (part, dataset, what) and seed."""
    groups: dict[tuple[str, str, str], dict[int, dict[str, Any]]] = {}
    for file in sorted(folder.glob("*.json")):
        name = NAME.fullmatch(file.stem)
        assert name is not None, file
        key = (name["part"], name["dataset"], name["what"])
        groups.setdefault(key, {})[int(name["seed"])] = read_json(file, Record)
    return groups


def step_times(docs: Path) -> dict[str, float]:
    """Seconds per task with the paper's settings, by algorithm."""
    return read_json(docs / "results" / "paper_steps.json", Steps)["seconds_a_task"]


def record(folder: Path, times: Mapping[str, float]) -> dict[str, Any]:
    """record.json: the headline numbers of the files in `folder`. times: as `step_times`."""
    groups = kept(folder)
    found: dict[str, Any] = {"paper": {}, "best": {}}
    found |= {"seconds_to_paper_accuracy": None, "quick": None}
    for (part, dataset, what), runs in groups.items():
        if part in ("paper", "best"):
            found[part].setdefault(dataset, {})[what] = _accuracy(runs, [r["summary"] for r in runs.values()])
        if part == "paper":
            found[part][dataset][what] |= {
                **_to_target(runs, times.get(PRINTED.get(what, what))),
                "otherwise": _otherwise(runs),
                "runs": _each(runs),
            }
        elif part == "best":
            variant = "".join(what.partition("_")[1:])
            for shape, scores in _evaluated(runs).items():
                shape += variant
                if shape != what and (shape in found[part][dataset] or (part, dataset, shape) in groups):
                    raise SystemExit(f"{part}-{dataset}-{what}: its evaluation of {shape} would stand for another's")
                found[part][dataset][shape] = _accuracy(runs, scores)
        elif (part, dataset, what) == QUICK:
            quick = found["quick"] = _seconds(runs)
            found["seconds_to_paper_accuracy"] = quick["seconds"] if quick["passed"] else None
        else:
            raise SystemExit(f"{part}-{dataset}-{what}: the short runs are {'-'.join(QUICK)}")
    return found


def _each(runs: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    """The numbers of each seed."""
    found = []
    for seed, run in runs.items():
        summary, env = run["summary"], run.get("env", {})
        precision = [o.partition("=")[2] for o in run.get("overrides", []) if o.startswith("precision=")]
        found.append(
            {
                "seed": seed,
                "acc": round(100 * summary["test/acc"], 2),
                "ci95": round(100 * summary["test/acc_ci95"], 2),
                "precision": precision[-1] if precision else "fp32",
                "machine": env.get("device_name"),
                "step_seconds": round(summary["time/step_seconds_median"], 2),
                "revision": (env.get("git_revision") or "")[:7],
            }
        )
    return found


def _to_target(runs: dict[int, dict[str, Any]], seconds_a_task: float | None) -> dict[str, float | None]:
    """Tasks and seconds to the target, averaged over seeds; None if a seed did not reach it, or the time per task is
    unknown."""
    tasks = []
    for run in runs.values():
        points = run.get("validation")
        index = target_index(points["acc"]) if points else None
        if not points or index is None:
            return {"tasks_to_target": None, "seconds_to_target": None}
        tasks.append(points["tasks"][index])
    mean = mean_interval(tasks).mean
    return {
        "tasks_to_target": round(mean),
        "seconds_to_target": None if seconds_a_task is None else round(mean * seconds_a_task),
    }


def _otherwise(runs: dict[int, dict[str, Any]]) -> dict[str, float]:
    """Mean accuracy over seeds, in percent, on the run's own test tasks with another test-time adaptation or
    checkpoint."""
    scores: dict[str, list[float]] = {}
    for run in runs.values():
        for score in run["evaluations"]:
            match = re.match(
                r"\d+ stored tasks, (\w+) checkpoint of iteration \d+(?:, adapted by ([^;]*))?(?:; .*)?$", score["of"]
            )
            if match is None or "test/acc" not in score:
                raise SystemExit(f"an evaluation is no test of the stored tasks by another rule: {score['of']}")
            label = f"{match[1]} checkpoint, {match[2] or 'the same rule'}"
            scores.setdefault(label, []).append(100 * score["test/acc"])
    short = [label for label, values in scores.items() if len(values) != len(runs)]
    if short:
        raise SystemExit(f"'{short[0]}' was not tested once for each of the {len(runs)} seeds")
    return {label: round(mean_interval(values).mean, 2) for label, values in scores.items()}


def _evaluated(runs: dict[int, dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The evaluations on new tasks by shape, such as 5w1s. Raises SystemExit unless each shape has one per seed."""
    shapes: dict[str, list[dict[str, Any]]] = {}
    for run in runs.values():
        for score in run["evaluations"]:
            match = re.search(r"\((\d+)-way (\d+)-shot", score["of"])
            if match is None or "test/acc" not in score or "adapted by" in score["of"]:
                raise SystemExit(f"an evaluation is no test of new tasks by the run's own rule: {score['of']}")
            shapes.setdefault(f"{match[1]}w{match[2]}s", []).append(score)
    for shape, scores in shapes.items():
        if len(scores) != len(runs) or len({score["of"].partition(")")[0] for score in scores}) > 1:
            raise SystemExit(
                f"{shape} has {len(scores)} evaluations for {len(runs)} seeds: one each, of the same tasks"
            )
    return shapes


def _accuracy(runs: dict[int, dict[str, Any]], scores: list[dict[str, Any]]) -> dict[str, Any]:
    tested = mean_interval([100 * score["test/acc"] for score in scores])
    half = tested.half_width if tested.n > 1 else 100 * scores[0]["test/acc_ci95"]
    summary = next(iter(runs.values()))["summary"]
    return {
        "acc": round(tested.mean, 2),
        "ci95": round(float(half or 0.0), 2),
        "over": "seeds" if tested.n > 1 else "test tasks",
        "seeds": tested.n,
        "training_tasks": summary["tasks_seen"],
        "seconds": round(mean_interval([run["summary"]["time/total_seconds"] for run in runs.values()]).mean),
    }


def _seconds(runs: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """For the short runs: the wall-clock time of a run including its test, and whether each seed passed."""
    accuracy = _accuracy(runs, [run["summary"] for run in runs.values()])
    least = min(100 * run["summary"]["test/acc"] for run in runs.values())
    return {**accuracy, "least_acc": round(least, 2), "paper_acc": PAPERS, "passed": least >= PAPERS}


def build(docs: Path) -> dict[Path, str]:
    """The new content of record.json and the pages of results."""
    results = docs / "results"
    found = record(results / "record", step_times(docs))
    pages = {page: page.read_text() for page in (docs / "results.md", *sorted(results.glob("*.md")))}
    with (results / "studies" / "memory_vs_inner_steps_32.csv").open(newline="") as rows:
        made = tables(found) | {"memory": memory(csv.DictReader(rows))}
    return {results / "record.json": json.dumps(found, indent=2) + "\n", **filled(pages, made)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command")
    adding = commands.add_parser("add")
    adding.add_argument("name")
    adding.add_argument("run", type=Path)
    adding.add_argument("evaluations", type=Path, nargs="*")
    arguments = parser.parse_args()
    try:
        return carry_out(arguments)
    except SystemExit as refusal:
        print(refusal.code, file=sys.stderr)
        return 2
    except (DataError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2


def carry_out(arguments: argparse.Namespace) -> int:
    """Adds a run, or makes record.json, tables and figures from the stored runs."""
    if arguments.command == "add":
        print(add(arguments.name, arguments.run, arguments.evaluations, DOCS / "results" / "record"))
        return 0
    for file, text in build(DOCS).items():
        file.write_text(text)
        print(file)
    folder, times = DOCS / "results" / "record", step_times(DOCS)
    print(draw(record(folder, times), DOCS / "images" / "record"))
    for picture in draw_curves(kept(folder), times, DOCS / "images"):
        print(picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
