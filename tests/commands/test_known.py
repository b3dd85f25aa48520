"""Analytic problems through the command line: what a run says, and what is refused."""

import json

import pytest
import torch

from memmeta_exp.config import Config, from_omegaconf
from memmeta_exp.config.compose import composed, jobs
from memmeta_exp.experiment.analytic_problems import INNER_TOLERANCE, NumericalObjective
from memmeta_exp.experiment.builder import build
from memmeta_exp.tracking.run_folder import read_metrics

RUN = ["tracking=disabled", "plots=false", "iterations=6", "eval_every=3", "batch_size=4"]
QUADRATIC = [
    "dataset=quadratic", "dataset.tasks=4", "dataset.dim_theta=3", "dataset.dim_phi=5", "precision=fp64",
    "optimizer=sgd", "optimizer.lr=null",
]  # fmt: skip
LOGISTIC = [
    "dataset=logistic",
    "dataset.tasks=4",
    "dataset.inputs=6",
    "backbone.features=3",
    "ways=3",
    "precision=fp64",
]


@pytest.fixture
def run(memmeta):
    def call(*overrides: str) -> tuple[dict, list[dict]]:
        result = memmeta("train", *RUN, *overrides)
        assert result.code == 0, result.err
        return json.loads(result.summary.read_text()), read_metrics(result.summary.parent)

    return call


def config(*overrides: str) -> Config:
    (found,) = jobs([*RUN, *overrides], multirun=False)
    return found


def test_a_quadratic_run_says_F_and_how_far_it_is(run, tmp_path) -> None:
    summary, rows = run(*QUADRATIC, "hydra.run.dir=run")
    experiment = build(config(*QUADRATIC))
    assert experiment.objective is not None
    assert rows[0]["val/loss"] == pytest.approx(experiment.objective.measure()["val/loss"], rel=1e-12)
    assert rows[1]["optimizer/lr"] == pytest.approx(1 / (experiment.smoothness or 0), rel=1e-12)
    values = [row["val/loss"] for row in rows if "val/loss" in row]
    assert values == sorted(values, reverse=True), "gradient descent with 1/L_F descends"
    assert summary["val/loss_best"] == values[-1]
    assert summary["convergence/suboptimality"] == rows[-1]["convergence/suboptimality"] > 0
    assert summary["convergence/distance"] > 0
    assert (
        summary["cost/gradient_evaluations"]
        == rows[-1]["cost/gradient_evaluations"]
        > rows[1]["cost/gradient_evaluations"]
    )
    assert isinstance(summary["cost/hessian_vector_products"], int)
    assert not any("acc" in key or key.startswith("test/") for key in (*summary, *rows[-1]))
    assert not (tmp_path / "run" / "test_episodes.csv").exists()
    assert (tmp_path / "run" / "checkpoints" / "best.pt").exists()


def test_the_error_does_not_depend_on_the_validations(run) -> None:
    """|grad F|^2 is measured at every iteration here. Measured less often, the error says how coarse it is."""
    (often, rows), (once, _) = run(*QUADRATIC, "eval_every=1"), run(*QUADRATIC, "eval_every=6")
    norms = [row["convergence/grad_norm_sq"] for row in rows]
    assert len(norms) == 7
    assert often["convergence/error"] == once["convergence/error"] == pytest.approx(sum(norms) / 7, rel=1e-14)
    assert often["convergence/error_coarseness"] == once["convergence/error_coarseness"] == 0
    coarse, _ = run(*QUADRATIC, "eval_every=6", "convergence_every=4")
    assert 0 < abs(coarse["convergence/error"] - sum(norms) / 7) <= coarse["convergence/error_coarseness"]


def test_all_tasks_lead_to_an_exact_solution(run) -> None:
    """Theorem 2: K = 2 kappa and N = 3 sqrt kappa steps, warm-started, and |grad F|^2 <= 1e-20 in float64. Cold
    starts of as many steps stay where their bias leaves them."""
    size = ["dataset.tasks=4", "dataset.dim_theta=3", "dataset.dim_phi=6", "batch_size=4"]
    short = ["experiment=study/iterations", "sampling=all", *size, "iterations=120", "eval_every=30"]
    exact, _ = run(*short)
    assert exact["convergence/grad_norm_sq"] <= 1e-20
    biased, _ = run(*short, "algorithm.inner_warm_start=false", "algorithm.linear_warm_start=false")
    assert 1e-8 < biased["convergence/grad_norm_sq"] < 1e-1


def test_random_batches_leave_a_floor(run) -> None:
    random, _ = run(
        *QUADRATIC, "algorithm.mu=0", "algorithm.inner_solver=gd", "algorithm.linear_solver=cg", "iterations=60"
    )
    assert random["convergence/grad_norm_sq"] > 1e-6


@pytest.mark.parametrize("algorithm", ["maml", "imaml", "anil"])
def test_every_algorithm_runs_on_quadratics(run, algorithm: str) -> None:
    summary, _ = run(*QUADRATIC, f"algorithm={algorithm}", "algorithm.inner_lr=0.02", "iterations=3")
    assert summary["convergence/grad_norm_sq"] > 0
    assert summary["cost/gradient_evaluations"] > 0


def test_own_gradient_of_a_biased_algorithm_is_another(run) -> None:
    itd = [*QUADRATIC, "algorithm=itd_bio", "algorithm.inner_steps=2", "iterations=1"]
    (_, of_F), (_, own) = run(*itd), run(*itd, "convergence_gradient=own")
    assert of_F[0]["val/loss"] == own[0]["val/loss"]
    assert abs(of_F[0]["convergence/grad_norm_sq"] / own[0]["convergence/grad_norm_sq"] - 1) > 0.01


def test_a_logistic_run(run) -> None:
    summary, rows = run(*LOGISTIC, "optimizer.lr=0.1", "sampling=all")
    assert summary["val/loss_best"] < rows[0]["val/loss"]
    assert 0 < rows[-1]["val/acc"] <= 1
    assert "convergence/suboptimality" not in summary, "min F is not known"


@pytest.mark.parametrize("head_start", ["fixed", "learned"])
def test_the_logistic_oracle(head_start: str) -> None:
    """grad F by the oracle against central differences of the F that it reports, and its lower level."""
    experiment = build(config(*LOGISTIC, f"algorithm.head_start={head_start}"))
    objective = experiment.objective
    assert isinstance(objective, NumericalObjective)
    report = objective.learner.step(objective.tasks)
    assert report.inner_residual is not None
    assert report.inner_residual.max() <= INNER_TOLERANCE
    checked, parameters = 0, list(experiment.model.parameters())
    grads = [p.grad.clone() for p in parameters if p.grad is not None]
    assert len(grads) == len(parameters) == (2 if head_start == "learned" else 1)
    assert objective.measure()["convergence/grad_norm_sq"] == pytest.approx(sum(float(g.square().sum()) for g in grads))
    for parameter, grad in zip(parameters, grads, strict=True):
        for i in range(0, parameter.numel(), 5):
            values = []
            for shift in (1e-5, -1e-5):
                with torch.no_grad():
                    parameter.view(-1)[i] += shift
                values.append(objective.measure()["val/loss"])
                with torch.no_grad():
                    parameter.view(-1)[i] -= shift
            difference = (values[0] - values[1]) / 2e-5
            assert difference == pytest.approx(float(grad.view(-1)[i]), abs=1e-9)
            checked += abs(difference) > 1e-5
    assert checked > 3


@pytest.mark.parametrize("key", ["tasks=5", "classes=8", "items=11", "inputs=7", "heterogeneity=2", "seed=1"])
def test_every_option_of_logistic_changes_F(key: str) -> None:
    found = [build(config(*LOGISTIC, *more)).objective for more in ([], [f"dataset.{key}"])]
    values = [objective.measure()["val/loss"] for objective in found if objective]
    assert values[0] != values[1]


def test_the_problem_is_the_same_whatever_the_seed() -> None:
    one, other = (build(config(*QUADRATIC, f"seed={seed}")) for seed in (0, 1))
    assert one.smoothness == other.smoothness
    drawn = [e.samplers["train"].draw(0, 20).index.tolist() for e in (one, other)]
    assert drawn[0] != drawn[1]


def test_double_precision_of_a_network(train, a_run) -> None:
    result = train("precision=fp64", "iterations=1")
    assert result.code == 0, result.err
    state = torch.load(result.summary.parent / "checkpoints" / "last.pt", weights_only=True)
    assert {t.dtype for t in state["model"].values()} == {torch.float64}
    losses = [read_metrics(folder)[1]["train/loss"] for folder in (result.summary.parent, a_run)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0] != losses[1]


def test_other_commands_say_what_they_cannot_do(memmeta, tmp_path) -> None:
    assert memmeta("train", *RUN, *QUADRATIC, "hydra.run.dir=run").code == 0
    evaluated = memmeta("evaluate", "run=run")
    assert (evaluated.code, len(evaluated.err.splitlines())) == (2, 1)
    assert "has no test tasks" in evaluated.err
    predicted = memmeta("profile", "predict=cuda", "dataset=quadratic")
    assert (predicted.code, "cannot be predicted" in predicted.err) == (2, True)
    assert memmeta("profile", "steps=1", *QUADRATIC, "hydra.run.dir=profiled").code == 0


STUDIES = ("batch_size", "iterations", "inner_accuracy", "inner_accuracy_evaluations")


@pytest.mark.parametrize("study", STUDIES)
def test_the_settings_of_a_theorems_study_compose(study: str) -> None:
    found = from_omegaconf(composed([f"experiment=study/{study}"]))
    assert (found.dataset.name, found.optimizer.name, found.optimizer.lr) == ("quadratic", "sgd", None)
    assert (found.algorithm.name, found.algorithm.mu, found.precision) == ("proposed", 0.0, "fp64")
