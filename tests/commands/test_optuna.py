"""A search with Optuna: memmeta train -m hydra/sweeper=optuna."""

import json
from pathlib import Path

import pandas
import pytest
import yaml

from memmeta_exp.commands import search as command
from tests.commands.conftest import TINY


def test_a_search_finds_the_best_validation_accuracy(memmeta) -> None:
    result = memmeta(
        "train", "-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "hydra.sweeper.sampler.seed=1",
        "hydra.sweep.dir=found", *TINY, "iterations=1", "algorithm.mu=tag(log, interval(0.01, 1))",
        "optimizer.lr=1e-4,1e-2",
    )  # fmt: skip
    assert result.code == 0, result.err
    values = {f: json.loads((f / "summary.json").read_text())["val/acc_best"] for f in Path("found").glob("[0-9]")}
    assert len(values) == 2
    best = yaml.safe_load(Path("found/optimization_results.yaml").read_text())
    assert best["best_value"] == max(values.values()), "Optuna would minimise"
    assert "the search maximises val/acc_best" in result.err
    assert 0.01 <= best["best_params"]["algorithm.mu"] <= 1
    table = pandas.read_csv("found/results.csv")
    assert table["algorithm.mu"].between(0.01, 1).all()
    assert table["val/acc_best"].max() == best["best_value"]
    assert set(table["optimizer.lr"]) <= {1e-4, 1e-2}


@pytest.mark.slow
def test_a_trial_that_diverges_is_a_failed_one_of_the_search(memmeta) -> None:
    result = memmeta(
        "train", "-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=1",
        "hydra.sweeper.max_failure_rate=1.0", "hydra.sweeper.sampler.seed=1", "hydra.sweep.dir=found", *TINY,
        "iterations=8", "optimizer=sgd", "optimizer.lr=tag(log, interval(1e-3, 1e19))",
    )  # fmt: skip
    states = list(pandas.read_csv("found/results.csv")["state"])
    assert len(states) == 4, result.err
    assert {"failed", "finished"} == set(states)
    assert result.code == 0


def test_both_ends_of_an_interval_are_checked_before_anything_is_made(memmeta) -> None:
    result = memmeta("train", "-m", "hydra/sweeper=optuna", *TINY, "algorithm.mu=interval(-1, 1)")
    assert (result.code, "algorithm.mu=-1" in result.err) == (2, True)
    assert not Path("outputs").exists()
    assert not Path("multirun").exists()


@pytest.mark.parametrize(("override", "extra"), [("hydra/sweeper=optuna", "optuna"), ("hydra/launcher=slurm", "slurm")])
def test_an_extra_that_is_not_installed(memmeta, monkeypatch, override: str, extra: str) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    result = memmeta("train", "-m", override, *TINY)
    assert (result.code, f"pip install 'memmeta[{extra}]'" in result.err) == (2, True)
    assert not Path("outputs").exists()
