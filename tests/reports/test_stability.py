"""The stability map: which runs it takes, what it says of them, and what is drawn."""

import json
from pathlib import Path
from typing import Any

import pytest

from memmeta_exp.reports import stability
from memmeta_exp.reports.figures import pictures
from memmeta_exp.reports.runs import collect
from tests.reports.folders import config, write_failure, write_run


def write_cell(root: Path, name: str, lr: float, mu: float, accuracies: tuple[float, ...], **algorithm: Any) -> Path:
    changes: dict[str, Any] = {f"algorithm__{key}": value for key, value in algorithm.items()}
    values = config(algorithm__mu=mu, optimizer__lr=lr, **changes)
    path = write_run(root / f"{name}-{lr}-{mu}", values, accuracies, None, (f"experiment=stability/{name}",))
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    for row in rows[1:]:
        row |= {
            "inner/L_g": 10.0 * row["iteration"],
            "inner/grad_norm_max": 1e-3,
            "linear/residual_max": 1e-6,
            "train/acc": 0.5,
        }
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    released = {"inner_solver": "gd", "inner_lr": 0.1, "linear_solver": "cg"}
    for lr, last in ((1e-4, 0.5), (1e-3, 0.2)):
        write_cell(tmp_path, "released", lr, 0.01, (0.2, 0.4, last), **released)
        write_cell(tmp_path, "newton", lr, 0.01, (0.2, 0.45, 0.55))
    failed = write_cell(tmp_path, "released", 1e-2, 0.01, (0.2, 0.3), **released)
    write_failure(failed, "failed", "train/loss is nan")
    write_cell(tmp_path, "newton", 1e-2, 0.01, (0.2, 0.3))
    write_run(tmp_path / "another", config())
    return tmp_path


def test_cells_are_the_last_accuracies_of_the_study_alone(root: Path) -> None:
    found = stability.cells(collect([root])[0])
    assert [(cell.solver, cell.lr, cell.accuracy) for cell in found] == [
        ("20 steps of 0.1", 1e-4, 0.5), ("20 steps of 0.1", 1e-3, 0.2), ("20 steps of 0.1", 1e-2, None),
        ("solved (Newton)", 1e-4, 0.55), ("solved (Newton)", 1e-3, 0.55), ("solved (Newton)", 1e-2, 0.3),
    ]  # fmt: skip
    assert stability.most_telling(found) == (1e-3, 0.01)
    assert "20 steps of 0.1, rate 0.01, mu 0.01: failed" in stability.alt_text(found)


def test_the_report_has_the_map(root: Path, tmp_path: Path) -> None:
    (picture,) = [p for p in pictures(collect([root])[0], [], tmp_path / "figures") if p.name == "stability"]
    assert [file.suffix for file in picture.files] == [".png", ".svg"]
    assert all(file.stat().st_size > 1000 for file in picture.files)


def test_one_run_makes_no_map(tmp_path: Path) -> None:
    write_cell(tmp_path, "newton", 1e-3, 0.1, (0.2, 0.5))
    assert [p.name for p in pictures(collect([tmp_path])[0], [], tmp_path / "f") if p.name == "stability"] == []


def test_a_measured_step_is_named_so() -> None:
    values = config(algorithm__inner_solver="gd", algorithm__inner_lr=None, algorithm__linear_solver="cg")
    assert stability.solver_of(values) == "20 steps of 1/$L_g$"


def test_differentiated_steps_are_another_row() -> None:
    """Of `sweeps/derivatives.yaml`, where ITD-BiO takes the steps that the released solver takes."""
    released = config(algorithm__inner_solver="gd", algorithm__inner_lr=0.1, algorithm__linear_solver="cg")
    unrolled = config("anil", algorithm__inner_steps=20, algorithm__inner_lr=0.1)
    assert stability.solver_of(released) == "20 steps of 0.1"
    assert stability.solver_of(unrolled) == "20 steps of 0.1, differentiated"
