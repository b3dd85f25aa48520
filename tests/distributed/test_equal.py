"""A run of several ranks is the run of one process, up to the order in which it sums."""

import json
from pathlib import Path

import pytest

from tests.distributed.conftest import COMMAND, same_numbers

STATEFUL = [
    "backbone.norm=running", "algorithm.inner_warm_start=true", "algorithm.linear_warm_start=true",
    "algorithm.linear_solver=cg", "backbone.drop_rate=0.2", "backbone=resnet12", "backbone.filters=[3,3,4,4]",
]  # fmt: skip
LOGISTIC = [
    "train", "dataset=logistic", "batch_size=5", "iterations=4", "eval_every=2", "convergence_gradient=own",
    "threads=1", "tracking=disabled", "progress=false", "plots=false", "device=cpu", "hydra.run.dir=run",
    "precision=fp64",
]  # fmt: skip


def pair(on, tmp_path: Path, ranks: int, *command: str) -> None:
    """One process and `ranks` of them, each in a folder of its own; the run of the second writes nothing else."""
    for folder, count in (("alone", 1), ("many", ranks)):
        (tmp_path / folder).mkdir()
        ended = on(tmp_path / folder, count, *command)
        assert ended.codes == [0] * count, ended.err
    assert ended.out[1:] == [""] * (ranks - 1), "rank 0 alone prints"
    assert ended.err == [""] * ranks
    same_numbers(tmp_path / "alone" / "run", tmp_path / "many" / "run")
    assert json.loads((tmp_path / "many" / "run" / "env.json").read_text())["ranks"] == ranks


def test_uneven_shares_with_all_that_a_run_keeps(on, tmp_path) -> None:
    """4 tasks on 3 ranks; 5 validation tasks; 1 reference task, so that two ranks have none. Warm starts, running
    statistics, dropout."""
    pair(on, tmp_path, 3, *COMMAND, *STATEFUL)


@pytest.mark.slow
def test_weights_that_adapt_on_two_ranks(on, tmp_path) -> None:
    pair(on, tmp_path, 2, *COMMAND, "algorithm=maml", "algorithm.inner_steps=1", "test_tasks=3")


def test_a_problem_whose_truth_is_known(on, tmp_path) -> None:
    pair(on, tmp_path, 2, *LOGISTIC)


def test_regression_has_no_accuracy_on_two_ranks_either(on, tmp_path) -> None:
    """5 validation tasks of sine waves: val/mse, and the curves of adaptation.json."""
    sine = [o for o in LOGISTIC if o != "dataset=logistic"]
    pair(on, tmp_path, 2, *sine, "dataset=sinusoid", "algorithm=fomaml", "val_tasks=5", "test_tasks=7")
    for name in ("alone", "many"):
        found = json.loads((tmp_path / name / "run" / "summary.json").read_text())
        assert "test/mse" in found
        assert "test/acc" not in found
    curves = [json.loads((tmp_path / name / "run" / "adaptation.json").read_text()) for name in ("alone", "many")]
    assert curves[0]["mse"] == pytest.approx(curves[1]["mse"], rel=1e-9)
