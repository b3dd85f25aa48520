"""Runs in forked children, and what of a run folder has to have the same bits."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from memmeta_exp.tracking.run_folder import read_metrics
from tests.commands.conftest import memmeta  # noqa: F401 - a fixture

ROOT = Path(__file__).parents[2]
TINY = [
    "dataset=synthetic", "dataset.image_size=16", "dataset.classes=4", "dataset.images_per_class=6",
    "dataset.channels=1", "backbone.filters=3", "ways=2", "shots=2", "queries=2", "batch_size=2", "iterations=10",
    "eval_every=4", "checkpoint_every=1", "val_tasks=2", "test_tasks=2", "convergence_tasks=1", "threads=1",
    "device=cpu", "tracking=disabled", "progress=false", "plots=false",
]  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """status: the exit code, or minus the signal; operations: on files, where it was not killed."""

    status: int
    operations: int
    cpu_seconds: float


class Runs:
    """`memmeta ARGUMENTS` in `cwd`, killed after some seconds, in some operation on files, or not at all."""

    def __init__(self, server: "subprocess.Popen[str]") -> None:
        self.server = server

    def __call__(self, cwd: Path, *arguments: str, seconds: float | None = None, operation: int | None = None) -> Ended:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        request = {"argv": list(arguments), "cwd": str(cwd), "seconds": seconds, "operation": operation}
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        return Ended(**json.loads(self.server.stdout.readline()))


@contextmanager
def serving(module: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that forks children to do what it is asked."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", module]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        yield server
        assert server.stdin is not None
        server.stdin.close()


@pytest.fixture(scope="session")
def runs() -> Iterator[Callable[..., Ended]]:
    with serving("tests.training.server") as server:
        yield Runs(server)


def bits(folder: Path) -> dict[str, Any]:
    """All that a run leaves but its times: {place: exact value}. What is a time: keys that begin with time/ and the
    seconds in the checkpoint."""
    found: dict[str, Any] = {"episodes": (folder / "test_episodes.csv").read_text()}
    for at, row in enumerate(read_metrics(folder)):
        found[f"metrics/{at}"] = _timeless(row)
    found["summary"] = _timeless(json.loads((folder / "summary.json").read_text()))
    for name in ("last", "best"):
        state = torch.load(folder / "checkpoints" / f"{name}.pt", weights_only=True)
        for key in ("metrics", "wandb_id"):  # metrics.jsonl has times in it, and is compared above
            state.pop(key, None)
        found |= _leaves(_timeless(state), name)
    return found


def _timeless(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {
        k: _timeless(v)
        for k, v in value.items()
        if not (isinstance(k, str) and (k.startswith("time/") or k in ("seconds", "step_seconds")))
    }


def _leaves(value: Any, place: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in _leaves(item, f"{place}/{key}").items()}
    if isinstance(value, torch.Tensor):
        return {place: (str(value.dtype), tuple(value.shape), value.contiguous().numpy().tobytes())}
    return {place: value}


def same_bits(alone: Path, other: Path) -> None:
    """Fails, with the places that differ, unless both runs left the same."""
    expected, found = bits(alone), bits(other)
    assert expected.keys() == found.keys()
    assert [key for key in expected if expected[key] != found[key]] == []


SHORT = ["iterations=6", "eval_every=3", "checkpoint_every=null"]


@pytest.fixture
def train(request):
    """`memmeta train` with TINY and SHORT in this process."""
    call = request.getfixturevalue("memmeta")
    return lambda *overrides: call("train", *TINY, *SHORT, *overrides)


@pytest.fixture(scope="session")
def left_alone(runs, tmp_path_factory) -> Callable[..., Path]:
    """The folder of a run with TINY, SHORT and overrides, made once."""
    made: dict[tuple[str, ...], Path] = {}

    def run(*overrides: str) -> Path:
        if overrides not in made:
            base = tmp_path_factory.mktemp("alone")
            assert runs(base, "train", *TINY, *SHORT, *overrides, "hydra.run.dir=run").status == 0
            made[overrides] = base / "run"
        return made[overrides]

    return run


@pytest.fixture
def finished(left_alone, tmp_path) -> Path:
    """A copy, in tmp_path/run, of a run with TINY and SHORT."""
    return Path(shutil.copytree(left_alone(), tmp_path / "run"))


def status(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "status.json").read_text())


def contents(folder: Path) -> dict[Path, tuple[bytes, int]]:
    """Every file with its time of change."""
    return {f: (f.read_bytes(), f.stat().st_mtime_ns) for f in folder.rglob("*") if f.is_file()}
