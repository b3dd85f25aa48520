"""Runs of several ranks, and what has to be the same as in a run of one process."""

import json
import math
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from memmeta_exp.tracking.run_folder import EpisodeResult, SinusoidResult, read_metrics, read_test_episodes
from tests.commands.conftest import memmeta  # noqa: F401 - a fixture
from tests.training.conftest import TINY, serving

SHORT = ["iterations=6", "eval_every=3", "checkpoint_every=null", "batch_size=4", "val_tasks=5", "precision=fp64"]
COMMAND = ["train", *TINY, *SHORT, "hydra.run.dir=run"]
RESIDUAL = 1e-7  # what a solver leaves where it stops is rounding, which conjugate gradients amplify
TOLERANCE = 1e-9  # of float64, relative: a few hundred roundings on from another order of summation
OF_A_RUN = ("metrics", "wandb_id", "seconds", "step_seconds")  # of a checkpoint: where the rows end, and times


@dataclass(frozen=True)
class Ended:
    codes: list[int]
    out: list[str]
    err: list[str]
    cpu_seconds: float


class Group:
    """`memmeta ARGUMENTS` on several ranks; see server.py."""

    def __init__(self, server: "subprocess.Popen[str]") -> None:
        self.server = server

    def __call__(self, cwd: Path, ranks: int, *arguments: str, strikes: Any = ()) -> Ended:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        request = {"argv": list(arguments), "cwd": str(cwd), "ranks": ranks, "strikes": list(strikes)}
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        found = json.loads(self.server.stdout.readline())
        out, err = ([(cwd / f"{name}{r}.txt").read_text() for r in range(ranks)] for name in ("out", "err"))
        return Ended(found["codes"], out, err, found["cpu_seconds"])


@pytest.fixture(scope="session")
def on() -> Iterator[Group]:
    with serving("tests.distributed.server") as server:
        yield Group(server)


def same_numbers(alone: Path, other: Path) -> None:
    """Fails, with the places that differ, unless both runs left the same up to rounding: every number of metrics,
    summary and episodes, and every tensor of the checkpoints."""
    differing = list(_differing(_left(alone), _left(other), ""))
    assert differing == []


def _left(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"rows": read_metrics(folder), "summary": json.loads((folder / "summary.json").read_text())}
    if (folder / "test_episodes.csv").exists():
        sines = "test/mse" in found["summary"]
        episodes = read_test_episodes(folder, SinusoidResult) if sines else read_test_episodes(folder, EpisodeResult)
        found["episodes"] = [vars(episode) for episode in episodes]
    for name in ("last", "best"):
        found[name] = torch.load(folder / "checkpoints" / f"{name}.pt", weights_only=True)
    return found


def _differing(a: Any, b: Any, place: str) -> Iterator[str]:
    key = place.rpartition(".")[2]
    if key in OF_A_RUN or key.startswith(("time/", "memory/")):
        return
    if isinstance(a, dict) and isinstance(b, dict):
        for name in {*a, *b}:
            yield from _differing(a.get(name), b.get(name), f"{place}.{name}")
    elif isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        for at, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from _differing(x, y, f"{place}[{at}]")
    elif isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if a.shape != b.shape or a.dtype != b.dtype or not torch.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE):
            yield f"{place}: tensors"
    elif isinstance(a, float) and isinstance(b, float):
        absolute = RESIDUAL if key.endswith("residual_max") else TOLERANCE
        if not math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=absolute):
            yield f"{place}: {a} {b}"
    elif a != b:
        yield f"{place}: {a} {b}"
