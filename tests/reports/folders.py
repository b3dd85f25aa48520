"""Folders as runs, multiruns and sweeps leave them, made without training."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import yaml

from memmeta_exp.algorithms.proposed import ProposedConfig
from memmeta_exp.algorithms.unrolled import AnilConfig
from memmeta_exp.backbones.conv4 import Conv4Config
from memmeta_exp.config import Config, to_dict
from memmeta_exp.data.datasets import CifarFsConfig, GlyphsConfig, SyntheticConfig
from memmeta_exp.experiment.optimizers import AdamConfig
from memmeta_exp.tracking.settings import TrackingConfig

ALGORITHMS: dict[str, Any] = {
    "proposed": ProposedConfig(),
    "anil": AnilConfig(name="anil"),
    "maml": AnilConfig(name="maml", adapted_params="all", features="recompute", inner_steps=3, inner_lr=0.5),
}
DATASETS: dict[str, Any] = {"glyphs": GlyphsConfig(), "cifar_fs": CifarFsConfig(), "synthetic": SyntheticConfig()}
ENV = {
    "python": "3.11.7",
    "platform": "Linux",
    "versions": {"memmeta": "0.1.0", "torch": "2.13.0"},
    "device_name": "a processor",
    "threads": 1,
    "git_revision": "0123456789abcdef",
    "git_dirty": False,
}


def config(algorithm: str = "proposed", dataset: str = "glyphs", **changes: Any) -> dict[str, Any]:
    """A resolved configuration; `algorithm__inner_steps=5` changes algorithm.inner_steps."""
    base = Config(ALGORITHMS[algorithm], DATASETS[dataset], Conv4Config(), AdamConfig(), TrackingConfig())
    values = to_dict(base)
    for key, value in changes.items():
        section, _, name = key.rpartition("__")
        (values[section] if section else values)[name] = value
    return values


def write_json(file: Path, values: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(values))


def write_run(
    path: Path,
    values: dict[str, Any],
    accuracies: tuple[float, ...] = (0.2, 0.4, 0.5),
    test: float | None = 0.5,
    overrides: tuple[str, ...] = (),
    **summary: Any,
) -> Path:
    """A finished training run that validated every 2 iterations at 0.5 s each."""
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(values))
    (path / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
    last = 2 * (len(accuracies) - 1)
    with (path / "metrics.jsonl").open("w") as stream:
        for t in range(last + 1):
            row: dict[str, Any] = {"iteration": t}
            if t:
                row |= {"train/loss": 1 / t, "time/step_seconds": 0.5}
            if t == 2:  # the metered iteration
                row |= {"time/step_seconds": 9.0, "memory/peak_mib": 20.0}
            if t % 2 == 0:
                row |= {"val/acc": accuracies[t // 2], "val/acc_ci95": 0.03}
            stream.write(json.dumps(row) + "\n")
    numbers = {"tasks_seen": last * values["batch_size"], "iterations": last, "memory/kind": "cpu-tensors"}
    numbers |= {"val/acc_best": max(accuracies), "memory/above_baseline_mib": 12.5, "memory/peak_mib": 20.0}
    if test is not None:
        numbers |= {"test/acc": test, "test/acc_ci95": 0.02}
    write_json(path / "summary.json", numbers | {key.replace("__", "/"): value for key, value in summary.items()})
    write_json(path / "env.json", {**ENV, "command": ["python", "-m", "memmeta_exp", "train", *overrides]})
    write_json(path / "status.json", {"state": "finished", "iteration": last, "reason": None})
    return path


def write_profile(path: Path, values: dict[str, Any], mib: float) -> Path:
    """A prediction of `memmeta profile predict=cuda`, with 1 MiB of images and 2 of parameters."""
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(values))
    found = {"memory/kind": "cuda-predicted", "memory/above_baseline_mib": mib, "bytes": {"images": 2**20}}
    write_json(path / "profile.json", found | {"max_memory_allocated": (mib + 3) * 2**20})
    return path


def write_failure(path: Path, state: str, reason: str | None, iteration: int = 3) -> Path:
    status = {"state": state, "reason": reason, "iteration": iteration, "pid": 1, "host": "h", "updated": "then"}
    write_json(path / "status.json", status)
    return path


def write_sweep(path: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    """sweep.yaml and results.csv; jobs/ is the test's."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "sweep.yaml").write_text(yaml.safe_dump({"name": name, "jobs": len(rows)}))
    with (path / "results.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["job", "state", "reason"])
        writer.writeheader()
        writer.writerows(rows)
    return path


def power_law(name: str, slope: float, expected: float, points: int = 5) -> dict[str, Any]:
    """A fit as reports/theorem_fits.py gives it."""
    x = [10.0**k for k in range(points)]
    return {
        "name": name, "x": x, "y": [3 * value**slope for value in x], "x_label": "x", "y_label": "y", "slope": slope,
        "slope_ci95": [slope - 0.03, slope + 0.03], "expected": expected, "rule": "all points", "points": points,
    }  # fmt: skip


SATURATING = tuple(0.8 * (1 - math.exp(-k / 2)) for k in range(12))
