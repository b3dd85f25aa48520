"""Few-shot regression through the command line: what a run leaves, what the other commands make of it, what is
refused."""

import csv
import json
import math
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch

from memmeta_exp.cli import main
from memmeta_exp.commands.search import objective
from memmeta_exp.config import options
from memmeta_exp.config.compose import jobs
from memmeta_exp.experiment.builder import Experiment, build
from memmeta_exp.reports.grouping import configurations
from memmeta_exp.reports.runs import collect
from memmeta_exp.reports.sinusoid import alt_text, draw, lines, plot, read
from memmeta_exp.tracking.run_folder import read_metrics
from tests.commands.conftest import TINY as IMAGES

TINY = [
    "dataset=sinusoid", "backbone.hidden=[8,6]", "shots=4", "queries=3", "batch_size=3", "iterations=4", "eval_every=2",
    "val_tasks=4", "test_tasks=5", "convergence_tasks=2", "tracking=disabled", "progress=false", "plots=false",
]  # fmt: skip


@pytest.fixture
def wave(memmeta):
    return lambda *overrides: memmeta("train", *TINY, *overrides)


def built(*overrides: str) -> Experiment:
    return build(jobs([*TINY, *overrides], multirun=False)[0])


def summary_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


@pytest.fixture(scope="module")
def a_run(tmp_path_factory) -> Path:
    """A finished run, made once: to be copied, not touched."""
    folder = tmp_path_factory.mktemp("made") / "run"
    assert main(["train", *TINY, f"hydra.run.dir={folder}"]) == 0
    return folder


def test_the_numbers_are_those_of_their_definitions(a_run) -> None:
    summary, rows = summary_of(a_run), read_metrics(a_run)
    with (a_run / "test_episodes.csv").open() as stream:
        tested = list(csv.DictReader(stream))
    mse = [float(row["mse"]) for row in tested]
    assert list(tested[0]) == ["task", "mse", "amplitude", "phase", "x"]
    assert len(tested[0]["x"].split()) == 4 + 3
    assert summary["test/mse"] == pytest.approx(statistics.mean(mse)) == summary["test/loss"]
    assert summary["test/mse_ci95"] == pytest.approx(1.96 * statistics.stdev(mse) / len(mse) ** 0.5)
    assert summary["val/mse_best"] == min(row["val/mse"] for row in rows if "val/mse" in row)
    at_best = next(row for row in rows if row.get("val/mse") == summary["val/mse_best"])
    assert summary["val/best_iteration"] == at_best["iteration"]
    assert not any("acc" in key for key in (*summary, *rows[-1]))
    assert summary["hypergrad/inexact_fraction"] == 0
    assert objective(summary) == -summary["val/mse_best"]


ALGORITHMS = [
    pytest.param(name, marks=[] if name in ("proposed", "maml") else [pytest.mark.slow])
    for name in options("algorithm")
    if name != "baseline"  # refused: there are no classes to tell apart
]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_runs_and_is_tested_again(wave, memmeta, algorithm: str) -> None:
    result = wave(f"algorithm={algorithm}", "algorithm.inner_steps=2", "iterations=2", "hydra.run.dir=run")
    assert result.code == 0, result.err
    summary = summary_of(result.summary.parent)
    again = memmeta("evaluate", "run=run")
    assert f"mean squared error {summary['test/mse']:.5g}" in again.out, again.err
    assert "5 tasks score as stored" in again.out
    adapted = json.loads(Path("run/adaptation.json").read_text())
    assert adapted["solved"] == (algorithm == "proposed")
    own = adapted["steps"].index(1 if adapted["solved"] else 2)
    assert adapted["mse"][own] == pytest.approx(summary["test/mse"], rel=1e-5), "the rule's own steps are among them"
    assert adapted["mse_ci95"][own] == pytest.approx(summary["test/mse_ci95"], rel=1e-4)


def test_a_test_of_other_tasks(a_run, memmeta) -> None:
    result = memmeta("evaluate", f"run={a_run}", "tasks=6", "shots=2", "out=found.json")
    assert result.code == 0, result.err
    assert "6 tasks (2-shot, 3 queries)" in result.out
    found = json.loads(Path("found.json").read_text())
    assert (found["tasks"], found["test/mse"] == found["test/loss"] > 0) == (6, True)


def test_no_test_at_all_and_training_tasks_of_their_own(wave) -> None:
    result = wave("test_tasks=0", "training.shots=6", "iterations=1", "hydra.run.dir=run")
    assert result.code == 0, result.err
    assert not Path("run/adaptation.json").exists()
    assert not any(key.startswith("test/") for key in summary_of(Path("run")))
    samplers = built("training.shots=6").samplers
    assert [samplers[s].draw(0, 1).support()[0].shape[1] for s in ("train", "test")] == [6, 4]


def test_adaptation_by_the_rule_of_evaluation(wave) -> None:
    """test_adaptation=gd: steps of eval_lr on the head alone."""
    assert wave("test_adaptation=gd", "eval_steps=4", "eval_lr=0.01", "hydra.run.dir=run").code == 0
    found = json.loads(Path("run/adaptation.json").read_text())
    assert (found["solved"], found["steps"]) == (False, [0, 1, 2, 3, 4, 5, 10])
    assert found["mse"][4] == pytest.approx(summary_of(Path("run"))["test/mse"], rel=1e-5)


def test_adaptation_by_the_exact_head(wave) -> None:
    """test_adaptation=exact takes no steps, whatever the algorithm does."""
    assert wave("algorithm=anil", "test_adaptation=exact", "eval_mu=0.01", "hydra.run.dir=run").code == 0
    found = json.loads(Path("run/adaptation.json").read_text())
    assert (found["solved"], found["steps"]) == (True, [0, 1])
    assert found["mse"][1] == pytest.approx(summary_of(Path("run"))["test/mse"], rel=1e-5)


def test_curves_begin_at_theta_and_support_points_are_on_the_wave(a_run) -> None:
    found = json.loads((a_run / "adaptation.json").read_text())
    task, model = found["tasks"][0], torch.load(a_run / "checkpoints" / "best.pt", weights_only=True)["model"]
    for x, y in zip(task["support_x"], task["support_y"], strict=True):
        assert y == pytest.approx(task["amplitude"] * math.sin(x - task["phase"]), abs=1e-5)
    z = torch.tensor(found["x"]).float()[:, None]
    for layer in (0, 1):
        weight, bias = (model[f"backbone.layers.{layer}.{name}"] for name in ("weight", "bias"))
        z = torch.relu(z @ weight.T + bias)
    start = model["head_start"]
    expected = (z @ start[:, :-1].T + start[:, -1])[:, 0].tolist()
    assert task["curves"][0] == pytest.approx(expected, abs=1e-5)
    assert (len(found["x"]), len(task["curves"])) == (101, 2)


def test_pretraining(wave) -> None:
    """No step in training: test/mse is the error of theta as it stands. Steps that diverge are no reason to fail."""
    result = wave("algorithm=fomaml", "algorithm.inner_steps=0", "algorithm.inner_lr=1e19", "hydra.run.dir=run")
    assert result.code == 0, result.err
    found, summary = json.loads(Path("run/adaptation.json").read_text()), summary_of(Path("run"))
    assert found["mse"][0] == pytest.approx(summary["test/mse"], rel=1e-5)
    assert (len(found["mse"]), found["mse"][-1]) == (6, None)
    (line,) = lines(configurations(collect([Path("run")])[0]))
    assert alt_text([line]).endswith("before and not finite after 10 steps.")
    assert line.label.startswith("pretrained")
    assert len(draw([line], "diverged", Path("figure"))) == 2


@pytest.mark.parametrize("knob", ["backbone.hidden=[8,7]", "shots=5", "queries=4", "algorithm.mu=0.2"])
def test_every_key_changes_something(knob: str) -> None:
    one, other = built(), built(knob)
    a, b = (e.learner.evaluate(e.samplers["test"].draw(0, 3))[1] for e in (one, other))
    assert not torch.equal(a, b)


def test_profile_measured_and_foretold(memmeta) -> None:
    assert memmeta("profile", "steps=1", *TINY, "hydra.run.dir=measured").code == 0
    foretold = memmeta("profile", "predict=cuda", *TINY, "algorithm=maml", "hydra.run.dir=foretold")
    assert foretold.code == 0, foretold.err
    found = json.loads(Path("foretold/profile.json").read_text())
    assert found["bytes"]["images"] == 0
    assert found["bytes"]["tensors"] > 0


def test_pictures_and_report(a_run, memmeta) -> None:
    shutil.copytree(a_run, "runs/a")
    assert plot(Path("runs/a"), "sine waves") == Path("runs/a/plots/sinusoid.png")
    assert Path("runs/a/plots/sinusoid.png").stat().st_size > 10_000
    result = memmeta("report", "runs", "out=report")
    assert result.code == 0, result.err
    page = Path("report/report.html").read_text()
    assert "Least test mean squared error" in page
    assert Path("report/figures/sinusoid.png").is_file()
    with Path("report/tables/errors.csv").open() as stream:
        (row,) = csv.DictReader(stream)
    assert float(row["test_mse"]) == pytest.approx(summary_of(a_run)["test/mse"])


@pytest.mark.slow
def test_a_sweep(memmeta) -> None:
    fixed = [f'  - "{argument}"' for argument in TINY if not argument.startswith("shots")]
    Path("waves.yaml").write_text(
        "program: memmeta\nmethod: grid\nmetric: {name: val/mse_best, goal: minimize}\n"
        "command:\n  - memmeta\n  - train\n" + "\n".join(fixed) + "\n  - ${args_no_hyphens}\n"
        "parameters:\n  shots: {values: [3, 4]}\n"
    )
    result = memmeta("sweep", "waves.yaml", "dir=sweep")
    assert result.code == 0, result.err
    with Path("sweep/results.csv").open() as stream:
        assert [float(row["test/mse"]) > 0 for row in csv.DictReader(stream)] == [True, True]


def test_a_perceptron_takes_images(memmeta) -> None:
    images = [o for o in IMAGES if not o.startswith("backbone.")]
    result = memmeta("train", *images, "backbone=mlp", "backbone.hidden=[9]", "iterations=2", "hydra.run.dir=run")
    assert result.code == 0, result.err
    weights = torch.load("run/checkpoints/last.pt", weights_only=True)["model"]
    assert weights["backbone.layers.0.weight"].shape == (9, 3 * 16 * 16)
    assert 0 <= summary_of(Path("run"))["test/acc"] <= 1


@pytest.mark.parametrize(
    "content",
    [
        "task,mse\n0,x\n",
        "task,mse,amplitude,phase,x\n0,1.0,1.0,1.0,1 2 3\n1,1.0,1.0,1.0,1 2 3\n",
        "task,mse,amplitude,phase,x\n0,1.0,nan,1.0,1 2 3 4 5 6 7\n1,1.0,1.0,1.0,1 2 3 4 5 6 7\n",
        "task,mse,amplitude,phase,x\n0,1.0,1.0,1.0,1 2 3 4 5 6 7\n",
    ],
)
def test_damaged_episodes(a_run, memmeta, content: str) -> None:
    folder = Path(shutil.copytree(a_run, "run"))
    (folder / "test_episodes.csv").write_text(content)
    result = memmeta("evaluate", f"run={folder}")
    assert (result.code, len(result.err.splitlines())) == (2, 1)
    assert "run/test_episodes.csv" in result.err


@pytest.mark.parametrize("content", ["{", "[]", "{}", None])
def test_a_damaged_adaptation_leaves_the_figure_out(a_run, tmp_path, content: str | None) -> None:
    assert read(a_run) is not None
    if content is not None:
        (tmp_path / "adaptation.json").write_text(content)
    assert read(tmp_path) is None
    assert plot(tmp_path, "no figure") is None
