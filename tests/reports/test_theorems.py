"""The fits of the theorems' studies on sweep folders whose law is known, and on one that is run here."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from memmeta_exp.config.compose import jobs
from memmeta_exp.reports.theorem_fits import STUDIES, study_fits
from memmeta_exp.tracking.run_folder import RunFolder
from memmeta_exp.training import runner

NORM, ERROR = "convergence/grad_norm_sq", "convergence/error"
KEYS = {"name", "x", "y", "used", "x_label", "y_label", "slope", "slope_ci95", "expected", "rule", "points"}


def job(sweep: Path, name: str, config: dict[str, Any], rows: list[dict[str, Any]], state: str = "finished") -> None:
    path = sweep / "jobs" / name
    path.mkdir(parents=True)
    folder = RunFolder(path)
    folder.write_config(config)
    for t, row in enumerate(rows):
        folder.log({"iteration": t, **row})
    folder.close()
    folder.set_status(state)


def curve(norms: np.ndarray) -> list[dict[str, Any]]:
    means = np.cumsum(norms) / np.arange(1, len(norms) + 1)
    return [{NORM: float(a), ERROR: float(b)} for a, b in zip(norms, means, strict=True)]


def one(fits: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (found,) = [fit for fit in fits if fit["name"] == name]
    assert set(found) >= KEYS
    assert len(found["x"]) == len(found["y"]) == len(found["used"])
    curves = len(set(found.get("groups", [0])))
    assert found["points"] * curves == sum(found["used"])
    json.dumps(found, allow_nan=False)
    return found


def test_the_floor_is_that_of_the_second_half(tmp_path: Path) -> None:
    """A burn-in a million times the floor changes nothing; a job that failed neither."""
    t = np.arange(201)
    for size in (1, 4, 16):
        for seed in (0, 1):
            norms = np.where(t <= 100, 1e6 / size, (1 + seed) / size)
            job(tmp_path, f"{size}-{seed}", {"batch_size": size, "seed": seed}, curve(norms))
    job(tmp_path, "failed", {"batch_size": 64, "seed": 0}, curve(np.full(201, 1e9)), state="failed")
    fit = one(study_fits("batch_size", tmp_path), "error floor against B")
    assert fit["slope"] == pytest.approx(-1, abs=1e-9)
    assert (fit["x"], fit["y"]) == ([1, 4, 16], pytest.approx([1.5, 1.5 / 4, 1.5 / 16]))
    assert fit["expected"] == -1


def test_error_against_T_excludes_burn_in_and_floor(tmp_path: Path) -> None:
    t, generator = np.arange(3000), np.random.default_rng(0)
    decay = np.where(t < 20, 5.0, 5.0 * 0.5 ** (t - 20.0))
    job(tmp_path, "all", {"sampling": "all", "seed": 0}, curve(np.maximum(decay, 1e-25)))
    noise = 5e-3 * generator.chisquare(10, (2, 3000)) / 10
    for seed in (0, 1):
        job(tmp_path, f"random{seed}", {"sampling": "random", "seed": seed}, curve(decay + noise[seed]))
    fits = study_fits("iterations", tmp_path)
    exact, floored = one(fits, "error against T, all tasks"), one(fits, "error against T, random batches")
    assert exact["slope"] == pytest.approx(-1, abs=0.01)
    assert (exact["reached"], exact["reached_at_most"]) == (pytest.approx(1e-25), 1e-20)
    assert floored["slope"] == pytest.approx(-1, abs=0.02)
    windows = ((exact, 300, 3000), (floored, 30, 300))
    for fit, low, high in windows:
        assert [used for x, used in zip(fit["x"], fit["used"], strict=True)] == [low <= x <= high for x in fit["x"]]
    assert floored["y"][-1] < exact["y"][-1] + 5e-3, "its floor is taken off"


@pytest.mark.parametrize("power", [-0.3, -0.5, -0.7])
def test_a_slower_rate_is_found_slower(tmp_path: Path, power: float) -> None:
    """|grad F|^2 ~ t^power, whose mean never falls as 1/T."""
    t = np.arange(3000)
    for sampling in ("all", "random"):
        job(tmp_path, sampling, {"sampling": sampling, "seed": 0}, curve((t + 1.0) ** power))
    for fit in study_fits("iterations", tmp_path):
        assert fit["slope"] > -0.9, fit["name"]


def test_a_biased_method_has_another_slope(tmp_path: Path) -> None:
    """All tasks, yet a floor: the fit keeps it and says so."""
    t = np.arange(3000)
    job(tmp_path, "all", {"sampling": "all", "seed": 0}, curve(5 * 0.5**t + 1e-2))
    fit = one(study_fits("iterations", tmp_path), "error against T, all tasks")
    assert fit["slope"] > -0.8
    assert fit["reached"] > fit["reached_at_most"]


def accuracy_job(sweep: Path, kappa: float, K: float, N: float, residual: float = 1e-7) -> None:
    tolerances = {"inner_tolerance": 1e-6, "linear_tolerance": 1e-6}
    row = {"inner/steps": K, "linear/steps": N, "inner/grad_norm_max": residual, "linear/residual_max": 1e-7}
    job(sweep, f"{kappa}", {"dataset": {"kappa": kappa}, "algorithm": tolerances}, [{}, row])


def test_steps_against_kappa(tmp_path: Path) -> None:
    for kappa in (10, 40, 160):
        accuracy_job(tmp_path, kappa, 12 * kappa, 7 * kappa**0.5)
    fits = study_fits("inner_accuracy", tmp_path)
    for name, expected in (("K against kappa", 1.0), ("N against kappa", 0.5)):
        fit = one(fits, name)
        assert (fit["slope"], fit["expected"]) == (pytest.approx(expected, abs=1e-9), expected)
    accuracy_job(tmp_path, 640, 100, 100, residual=1e-3)
    with pytest.raises(ValueError, match="inner_tolerance is missed"):
        study_fits("inner_accuracy", tmp_path)


def test_evaluations_against_eps_and_kappa(tmp_path: Path) -> None:
    """|grad F|^2 falls by a half a step and a step costs 30 kappa: kappa / eps."""
    t = np.arange(400)
    for kappa in (10, 20, 40):
        rows = curve(8 * 0.5**t)
        for i, row in enumerate(rows[1:], 1):
            row["cost/gradient_evaluations"] = 30 * kappa * i
        job(tmp_path, f"{kappa}", {"dataset": {"kappa": kappa}}, rows)
    fits = study_fits("inner_accuracy_evaluations", tmp_path)
    assert one(fits, "evaluations against 1/eps")["slope"] == pytest.approx(1, abs=0.02)
    assert one(fits, "evaluations against kappa")["slope"] == pytest.approx(1, abs=1e-6)


def test_what_cannot_be_fitted_is_said_in_one_line(tmp_path: Path) -> None:
    assert study_fits("accuracy", tmp_path) == []
    with pytest.raises(ValueError, match="no finished job"):
        study_fits("batch_size", tmp_path)
    job(tmp_path, "a", {"batch_size": 1}, curve(np.ones(9)))
    with pytest.raises(ValueError, match="error floor against B: 1 points"):
        study_fits("batch_size", tmp_path)


def test_K_and_N_against_kappa_as_run(tmp_path: Path, capsys) -> None:
    """The study itself at sizes that take seconds: the slopes are the theory's, from steps that the solvers counted."""
    for kappa in (5, 15, 45):
        overrides = [
            "experiment=study/inner_accuracy", f"dataset.kappa={kappa}", "dataset.dim_phi=120", "iterations=1",
            "progress=false",
        ]  # fmt: skip
        folder = tmp_path / "jobs" / str(kappa)
        folder.mkdir(parents=True)
        runner.run(jobs(overrides, multirun=False)[0], folder, overrides)
    fits = study_fits("inner_accuracy", tmp_path)
    assert one(fits, "K against kappa")["slope"] == pytest.approx(1, abs=0.1)
    assert one(fits, "N against kappa")["slope"] == pytest.approx(0.5, abs=0.1)


SMALL = Path(__file__).parents[2] / "sweeps" / "small"


def small_jobs(name: str) -> list[list[str]]:
    """The overrides of every job of the small study."""
    spec = yaml.safe_load((SMALL / f"{name}.yaml").read_text())
    assert (spec["name"], spec["method"], spec["command"][-1]) == (name, "grid", "${args_no_hyphens}")
    values = [p["values"] if "values" in p else [p["value"]] for p in spec["parameters"].values()]
    fixed = [word for word in spec["command"] if "=" in word]
    named = [[f"{key}={v}" for v in each] for key, each in zip(spec["parameters"], values, strict=True)]
    return [[*fixed, *job, "progress=false"] for job in itertools.product(*named)]


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_the_small_studies_slopes_are_the_theorems(name: str, tmp_path: Path) -> None:
    for i, overrides in enumerate(small_jobs(name)):
        folder = tmp_path / "jobs" / str(i)
        folder.mkdir(parents=True)
        runner.run(jobs(overrides, multirun=False)[0], folder, overrides)
    fits = study_fits(name, tmp_path)
    assert fits
    for fit in fits:
        assert fit["slope"] == pytest.approx(fit["expected"], abs=0.1), fit["name"]
        assert fit.get("reached", 0.0) <= fit.get("reached_at_most", 0.0), fit["name"]
