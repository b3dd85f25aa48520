"""Run folders, of training, of sinusoids and of profiles, with one file that is another."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.fuzz.harness import Case, Fuzzer
from tests.fuzz.values import FILES, ODD, PLACES, mutations, put

TINY = (
    "threads=1", "device=cpu", "iterations=2", "val_tasks=2", "test_tasks=2", "convergence_tasks=1", "batch_size=2",
    "plots=false", "tracking=disabled", "progress=false", "ways=2", "shots=1", "queries=1",
)  # fmt: skip
SMALL = (
    *TINY, "dataset=synthetic", "dataset.image_size=16", "dataset.classes=4", "dataset.images_per_class=4",
    "dataset.channels=1", "backbone.filters=3",
)  # fmt: skip
WARM = (
    *SMALL, "checkpoint_every=1", "algorithm.inner_warm_start=true", "algorithm.linear_warm_start=true",
    "algorithm.linear_solver=cg", "optimizer.average=0.9",
)  # fmt: skip
RESUME = ("train", "resume=run", "iterations=3")
EVALUATE = ("evaluate", "run=run")
REPORT = ("report", "run")


def make(fuzzer: Fuzzer, place: Path) -> dict[str, Path]:
    """The folders that are changed: {name: a folder under `place`}."""
    place.mkdir(parents=True, exist_ok=True)
    sinusoid = (*(a for a in TINY if not a.startswith("ways")), "dataset=sinusoid", "backbone.hidden=[3]")
    return {
        "run": fuzzer.make(place / "run", "train", *WARM, "hydra.run.dir=run"),
        "sinusoid": fuzzer.make(place / "sinusoid", "train", *sinusoid, "hydra.run.dir=sinusoid"),
        "profile": fuzzer.make(place / "profile", "profile", *SMALL, "steps=2", "hydra.run.dir=profile"),
    }


_READ_BY = {
    "config.yaml": (RESUME, EVALUATE, REPORT),
    "status.json": (RESUME, EVALUATE, REPORT),
    "env.json": (RESUME, EVALUATE, REPORT),
    "overrides.yaml": (RESUME, EVALUATE, REPORT),
    "summary.json": (RESUME, EVALUATE, REPORT),
    "metrics.jsonl": (RESUME, EVALUATE, REPORT),
    "test_episodes.csv": (RESUME, EVALUATE, REPORT),
    ".lock": (RESUME, EVALUATE),
    "checkpoints/last.pt": (RESUME,),
    "checkpoints/previous.pt": (RESUME,),
    "checkpoints/.next.pt": (RESUME,),
    "checkpoints/best.pt": (EVALUATE,),
    "checkpoints": (RESUME, EVALUATE),
}


def whole_files(bases: dict[str, Path]) -> Iterator[Case]:
    """Every file of a run's folder as everything that a file can be."""
    for name, commands in _READ_BY.items():
        kinds = PLACES if name in (".lock", "checkpoints") else FILES
        for kind, make_it in kinds.items():
            for command in commands:
                says = "" if name == "checkpoints" else Path(name).name  # without the folder there are none
                yield Case(f"{name}: {kind}", command, _made(name, make_it), bases["run"], says)


def _made(name: str, make_it: Callable[[Path], object]) -> Callable[[Path], object]:
    def prepare(work: Path) -> None:
        place = work / "run" / name
        if place.is_dir() and not place.is_symlink():
            place.rename(work / "aside")
        make_it(place)

    return prepare


def written(name: str, text: str) -> Callable[[Path], object]:
    """Puts `text` into the file `name` of run/."""
    return lambda work: put(work / "run" / name, text)


def json_values(bases: dict[str, Path]) -> Iterator[Case]:
    """Every value of the JSON files as each odd value."""
    for name in ("status.json", "env.json", "summary.json"):
        whole = json.loads((bases["run"] / name).read_text())
        if "versions" in whole:
            whole["versions"] = {"torch": whole["versions"]["torch"]}
        for what, value in mutations(whole, 2, ODD):
            for command in (RESUME, REPORT):
                yield Case(f"{name}: {what}", command, written(name, json.dumps(value)), bases["run"], name)


def yaml_values(bases: dict[str, Path]) -> Iterator[Case]:
    """Every value of the stored configuration as each odd value."""
    whole = yaml.safe_load((bases["run"] / "config.yaml").read_text())
    for what, value in mutations(whole, 2, [value for value in ODD if value != "\ud800"]):
        text = yaml.safe_dump(value)
        for command in (RESUME, EVALUATE, REPORT):
            yield Case(f"config.yaml: {what}", command, written("config.yaml", text), bases["run"])


def rows(bases: dict[str, Path]) -> Iterator[Case]:
    """Every value of three rows of metrics.jsonl, and of the table of test tasks, as each odd value."""
    lines = [json.loads(line) for line in (bases["run"] / "metrics.jsonl").read_text().splitlines()]
    for at in (0, 1, len(lines) - 1):
        for what, row in mutations(lines[at], 1, ODD):
            these = [*lines[:at], row, *lines[at + 1 :]]
            text = "".join(json.dumps(line) + "\n" for line in these)
            yield Case(f"metrics.jsonl, row {at}: {what}", REPORT, written("metrics.jsonl", text), bases["run"])
    table = (bases["run"] / "test_episodes.csv").read_text().splitlines()
    for column in range(table[0].count(",") + 1):
        for value in [*map(str, ODD), "9" * 400, "1e999", '"1,1"', '"']:
            fields = table[1].split(",")
            fields[column] = value
            text = "\n".join([table[0], ",".join(fields), *table[2:], ""])
            for command in (REPORT, EVALUATE):
                name = f"test_episodes.csv, column {column}: {value[:20]!r}"
                yield Case(name, command, written("test_episodes.csv", text), bases["run"])


def other_results(bases: dict[str, Path]) -> Iterator[Case]:
    """The files of a sinusoid's and of a profile's folder, whole and value by value."""
    for base, name in (("sinusoid", "adaptation.json"), ("profile", "profile.json"), ("sinusoid", "summary.json")):
        for kind, make_it in FILES.items():
            yield Case(f"{base}'s {name}: {kind}", REPORT, _made(name, make_it), bases[base], name)
        whole: Any = json.loads((bases[base] / name).read_text())
        for what, value in mutations(whole, 3, ODD):
            yield Case(f"{base}'s {name}: {what}", REPORT, written(name, json.dumps(value)), bases[base], name)
