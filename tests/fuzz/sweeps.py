"""Sweep files, and folders of finished sweeps with one file that is another."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.fuzz.harness import Case, Fuzzer
from tests.fuzz.runs import REPORT, SMALL
from tests.fuzz.values import FILES, ODD, mutations, put

_FILE = {
    "method": "grid",
    "name": "x",
    "metric": {"name": "val/acc.max", "goal": "maximize"},
    "parameters": {"seed": {"values": [0, 1]}, "algorithm.mu": {"value": 0.1}},
    "command": ["memmeta", "train", "${args_no_hyphens}", *SMALL],
}
_DRY = ("sweep", "sweep.yaml", "dir=run", "dry_run=true")
_AGAIN = ("sweep", "sweep.yaml", "dir=run")


def make(fuzzer: Fuzzer, place: Path) -> dict[str, Path]:
    """A finished sweep of two jobs."""
    put(place / "sweep.yaml", yaml.safe_dump(_FILE))
    return {"sweep": fuzzer.make(place / "sweep", "sweep", "sweep.yaml", "dir=sweep")}


def files(bases: dict[str, Path]) -> Iterator[Case]:
    """Sweep files that are something else, and with every value of one as each odd value."""
    for kind, make_it in FILES.items():
        yield Case(f"sweep.yaml: {kind}", _DRY, _at("sweep.yaml", make_it), says="sweep.yaml")
    odd = [*(value for value in ODD if value != "\ud800"), *_EXPRESSIONS]
    for what, value in mutations(_FILE, 4, odd):
        yield Case(f"sweep.yaml: {what}", _DRY, _written("sweep.yaml", yaml.safe_dump(value)))


_EXPRESSIONS: list[Any] = [
    {"values": []}, {"value": [1]}, {"min": 0, "max": 1}, {"values": ["glob(*)"]}, {"values": ["choice(1,2)", "${x}"]},
    {"distribution": "normal", "mu": 0}, ["--x"], ["memmeta"], ["memmeta", "evaluate"], ["rm", "-rf", "/"], "bayes",
    {"values": [0, 0]}, {"values": list(range(200))}, {"value": {"a": 1}}, "range(0, 10 ** 9)", "=", "a=b", "--help",
]  # fmt: skip


def folders(bases: dict[str, Path]) -> Iterator[Case]:
    """Every file of a finished sweep as everything that a file can be."""
    job = sorted((bases["sweep"] / "jobs").iterdir())[0].name
    own = ["sweep.yaml", "jobs.json", "results.csv", "results.parquet", ".stop", ".lock", "report/study.json"]
    of_job = [f"log/{job}.json", f"log/{job}.txt", *(f"jobs/{job}/{name}" for name in ("status.json", "config.yaml"))]
    for name in (*own, *of_job, "jobs", "log", f"jobs/{job}", "report"):
        for kind, make_it in FILES.items():
            for command in (REPORT, _AGAIN if name in own else _DRY):
                yield Case(f"{name}: {kind}", command, _in_sweep(name, make_it), bases["sweep"])
    end = {"exit_code": 1, "reason": "x", "seconds": 1.0, "host": "h"}
    planned = json.loads((bases["sweep"] / "jobs.json").read_text())
    for name, whole, gone in ((f"log/{job}.json", end, f"jobs/{job}/status.json"), ("jobs.json", planned, ".lock")):
        for what, value in mutations(whole, 3, ODD):
            for command in (REPORT, _DRY):
                yield Case(f"{name}: {what}", command, _in_sweep(name, _text(json.dumps(value)), gone), bases["sweep"])
    table = (bases["sweep"] / "results.csv").read_text().splitlines()
    for column in range(table[0].count(",") + 1):
        for value in map(str, [*ODD, "1e999", "../..", "/etc", '"', "nan"]):
            fields = table[1].split(",")
            fields[column] = value
            text = "\n".join([table[0], ",".join(fields), *table[2:], ""])
            name = f"results.csv, column {column}: {value[:20]!a}"
            yield Case(name, REPORT, _in_sweep("results.csv", _text(text)), bases["sweep"])


def configurations(bases: dict[str, Path]) -> Iterator[Case]:
    """Every value of one job's stored configuration as each odd value, in a report that compares the jobs."""
    job = sorted((bases["sweep"] / "jobs").iterdir())[0].name
    whole = yaml.safe_load((bases["sweep"] / "jobs" / job / "config.yaml").read_text())
    for what, value in mutations(whole, 2, [[], {"a": {"b": 1}}, [1, "x", None], None, "x", 1e308, -1, True, "\x07"]):
        prepare = _in_sweep(f"jobs/{job}/config.yaml", _text(yaml.safe_dump(value)))
        yield Case(f"config.yaml of a job: {what}", REPORT, prepare, bases["sweep"])


def _text(text: str) -> Callable[[Path], None]:
    return lambda path: put(path, text)


def _at(name: str, make_it: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda work: make_it(work / name)


def _written(name: str, text: str) -> Callable[[Path], object]:
    return lambda work: put(work / name, text)


def _in_sweep(name: str, make_it: Callable[[Path], object], gone: str | None = None) -> Callable[[Path], object]:
    """Makes a file of run/, without the file `gone`, beside the sweep's own file."""

    def prepare(work: Path) -> None:
        place = work / "run" / name
        if place.is_dir():
            place.rename(work / "aside")
        make_it(place)
        if gone is not None:
            (work / "run" / gone).unlink(missing_ok=True)
        put(work / "sweep.yaml", yaml.safe_dump(_FILE))

    return prepare
