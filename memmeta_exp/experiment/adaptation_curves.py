"""Errors and curves of a sinusoid model before, during and after adaptation: the content of adaptation.json."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from memmeta_exp.algorithms import Adapt, Learner, build_algorithm
from memmeta_exp.algorithms.proposed import gradient_descent_adaptation
from memmeta_exp.data import SinusoidTasks
from memmeta_exp.data.sinusoid import INPUT
from memmeta_exp.experiment.builder import Experiment
from memmeta_exp.utils.statistics import mean_ci95

STEPS = (1, 2, 3, 5, 10)  # numbers of gradient steps; the algorithm's own number is added
EXAMPLES = 3  # test tasks whose curves are kept
GRID = 101  # points of a curve


def adaptation(experiment: Experiment, tasks: SinusoidTasks) -> dict[str, Any]:
    """The mean squared error on `tasks` after each number of adaptation steps, and curves of the first EXAMPLES tasks.

    {"steps": [0, ..], "solved": bool, "mse": [..], "mse_ci95": [..], "x": [GRID], "tasks": [{"amplitude", "phase",
    "support_x", "support_y", "curves": [[GRID] for each number of steps]}]}. 0 steps: theta and phi_0, not adapted.
    solved: the adaptation finds phi* and has no number of steps; "steps" is then [0, 1], where 1 is after adaptation.
    """
    steps, solved = _steps(experiment)
    examples = tasks[:EXAMPLES]
    x = torch.linspace(*INPUT, GRID, dtype=torch.float64)
    asked = examples.asked_at(x.to(tasks.x.device))
    targets, found, curves = tasks.query()[1], [], []
    for count in steps:
        outputs = partial(_outputs, experiment, 0 if count == 0 else None if solved else count)
        found.append(mean_ci95((outputs(tasks) - targets).double().square().mean((1, 2)).tolist()))
        curves.append(outputs(asked).squeeze(2).tolist())
    support_x, support_y = (half.squeeze(2).tolist() for half in examples.support())
    return {
        "steps": list(steps),
        "solved": solved,
        "mse": [mean for mean, _ in found],
        "mse_ci95": [half for _, half in found],
        "x": x.tolist(),
        "tasks": [
            {
                "amplitude": float(examples.amplitude[i]),
                "phase": float(examples.phase[i]),
                "support_x": support_x[i],
                "support_y": support_y[i],
                "curves": [of_step[i] for of_step in curves],
            }
            for i in range(len(examples))
        ],
    }


def _steps(experiment: Experiment) -> tuple[tuple[int, ...], bool]:
    """The numbers of steps to show, and whether the adaptation finds phi* instead of taking steps."""
    config = experiment.config
    newton = config.test_adaptation == "own" and getattr(config.algorithm, "inner_solver", "gd") == "newton"
    if newton or config.test_adaptation == "exact":
        return (0, 1), True
    own = getattr(config.algorithm, "inner_steps", None) if config.test_adaptation == "own" else config.eval_steps
    return (tuple(sorted({0, *STEPS, own})), False) if own is not None else ((0, 1), True)


def _outputs(experiment: Experiment, steps: int | None, tasks: SinusoidTasks) -> Tensor:
    """[T, m, 1] after `steps` steps, None for the adaptation as configured."""
    if steps == 0:
        return _unadapted(experiment, tasks)
    learner, adapt = _with_steps(experiment, steps)
    return learner.outputs(tasks, adapt)


def _unadapted(experiment: Experiment, tasks: SinusoidTasks) -> Tensor:
    model = experiment.model.eval()
    with torch.no_grad():
        outputs = model(tasks.query()[0])
    model.train()
    return outputs


def _with_steps(experiment: Experiment, steps: int | None) -> tuple[Learner, Adapt | None]:
    config = experiment.config
    if steps is None:
        return experiment.learner, experiment.adapt
    if config.test_adaptation == "gd":
        return experiment.learner, gradient_descent_adaptation(steps, config.eval_lr)
    algorithm = replace(config.algorithm, inner_steps=steps)
    execution, losses = experiment.learner.execution, config.head.losses()
    learner = build_algorithm(algorithm, experiment.model, execution, config.memory, losses)
    learner.check_interrupt = experiment.learner.check_interrupt
    return learner, None
