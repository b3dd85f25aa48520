"""Training: the upper iterations of one run, their validation, their measures and their checkpoints."""

import logging
import math
from pathlib import Path
from typing import Any

import torch

from memmeta_exp import checkpoint
from memmeta_exp.algorithms import StepReport
from memmeta_exp.build import Experiment, build_optimizer
from memmeta_exp.display import ProgressBar
from memmeta_exp.errors import RunError, RunInterrupted
from memmeta_exp.iteration import Iteration
from memmeta_exp.judge import judge_of
from memmeta_exp.measure.convergence import RunningMean
from memmeta_exp.measure.peak_memory import Peak, measure_peak
from memmeta_exp.measure.timing import StepTimer
from memmeta_exp.signals import StopRequest
from memmeta_exp.tracking import Tracker
from memmeta_exp.tracking.run_folder import RunFolder

METERED = 2  # the iteration whose memory is metered on CPU (metering slows it): the optimiser's state exists by then
LARGEST = ("lower/residual_max", "linear/residual_max", "memory/peak_mib", "memory/above_baseline_mib")
COSTS = ("cost/gradient_evaluations", "cost/hessian_vector_products")
LAST = (
    "train/loss", "train/acc", "lower/L_g", "lower/kappa", "convergence/error", "convergence/grad_norm_sq",
    "convergence/suboptimality", "convergence/distance",
)  # fmt: skip
REMEDY = "theta has diverged; lower optimizer.lr or raise algorithm.mu"
REMEDY_AT_0 = "the lower level has diverged, for theta has not moved yet; lower algorithm.inner_lr or eval_lr"

logger = logging.getLogger("memmeta")


class Trainer:
    """The state of a training run and its moves."""

    def __init__(
        self, experiment: Experiment, folder: RunFolder, tracker: Tracker, bar: ProgressBar, stop: StopRequest
    ) -> None:
        self.experiment, self.folder, self.tracker, self.bar, self.stop = experiment, folder, tracker, bar, stop
        self.config = experiment.config
        self.optimizer, self.scheduler = build_optimizer(self.config, experiment.model, experiment.smoothness)
        self.judge = judge_of(experiment)
        self.iteration = Iteration(experiment, self.optimizer)
        self.timer = StepTimer(experiment.device)
        self.convergence_error = RunningMean()
        self.best = {"value": math.nan, "iteration": 0}
        self.cost: dict[str, int] = dict.fromkeys(COSTS, 0)
        self.largest: dict[str, float] = {}
        self.latest: dict[str, float] = {}
        self.wrong_sum = 0.0
        self.memory_kind = ""

    def train(self) -> None:
        """Upper iterations 1..T, validated at 0, every eval_every and at the end."""
        self.tracker.log(0, self._validate(0))
        for t in range(1, self.config.iterations + 1):
            metrics = self._iterate(t)
            if t % self.config.eval_every == 0 or t == self.config.iterations:
                try:
                    metrics |= self._validate(t)
                except RunInterrupted:  # during validation: the step is in the checkpoint, so its row must not be lost
                    self.tracker.log(t, metrics)
                    raise
            self.latest |= metrics
            self.tracker.log(t, metrics)
            self.bar.update(t, metrics)
            self._stop_if_asked(t)

    def _stop_if_asked(self, t: int) -> None:
        if self.stop.signum is not None:
            self._save("last", t)
            self.folder.set_status("running", iteration=t)
            raise RunInterrupted(self.stop.signum, t, self.folder.path)

    def _iterate(self, t: int) -> dict[str, float]:
        """One upper iteration: sample, accumulate the meta-gradient, step theta."""
        on_gpu = self.experiment.device.type == "cuda"
        metered = on_gpu or t == min(METERED, self.config.iterations)
        self.iteration.clear()
        with self.timer.step(counted=on_gpu or not metered):
            report, peak = self._metered(t) if metered else (self.iteration(t), None)
        self.scheduler.step()
        metrics = _report_metrics(report, self.config.algorithm.mu + self.config.lower_modulus)
        self.cost = {key: self.cost[key] + int(metrics[key]) for key in COSTS}
        self._check(metrics, t)
        metrics |= {
            "time/step_seconds": self.timer.last_seconds,
            "time/tasks_per_second": self.config.batch_size / self.timer.last_seconds,
            "optimizer/lr": float(self.scheduler.get_last_lr()[0]),
            **self.cost,
        }
        if peak is not None:
            metrics |= {"memory/peak_mib": peak.absolute_mib, "memory/above_baseline_mib": peak.above_baseline_mib}
            self.memory_kind = peak.kind
        for key in [key for key in LARGEST if key in metrics]:
            self.largest[key] = max(self.largest.get(key, metrics[key]), metrics[key])
        return metrics

    def _metered(self, t: int) -> tuple[StepReport, Peak]:
        return measure_peak(lambda: self.iteration(t), self.experiment.device, self.iteration.persistent())

    def _check(self, metrics: dict[str, float], t: int) -> None:
        """Stops on a loss that is no number, warns once of hypergradients that are not gradients of F."""
        _require_finite(metrics, "train/loss", t)
        wrong = metrics["lower/wrong_fraction"]
        if wrong and not self.wrong_sum:
            logger.warning(
                "iteration %d: %.0f %% of the hypergradients come from a solve that fell short (|d_phi g| up to %.1e, "
                "linear residual up to %.1e); lower/wrong_fraction has the rest",
                t,
                100 * wrong,
                metrics.get("lower/residual_max", math.nan),
                metrics.get("linear/residual_max", 0.0),
            )
        self.wrong_sum += wrong
        if t == 1:
            self._check_step_size(metrics.get("lower/L_g", 0.0))

    def _check_step_size(self, smoothness: float) -> None:
        """The theory's condition on gradient descent, lambda_phi <= 1/L_g, at the features of the first iteration."""
        c = self.config.algorithm
        step: float | None = c.inner_lr if c.name == "proposed" and c.inner_solver == "gd" else None
        if step is not None and step * smoothness > 1:
            logger.warning(
                "algorithm.inner_lr=%g is %.1f times the 1/L_g of these features: gradient descent on g need not "
                "converge; algorithm.inner_lr=null takes 1/L_g",
                step,
                step * smoothness,
            )

    def _validate(self, t: int) -> dict[str, float]:
        """What the judge says of theta, and the running mean of |grad F|^2; keeps the checkpoints."""
        self._save("last", t)
        metrics = self.judge.validate(lambda: self._stop_if_asked(t))
        norm = metrics["convergence/grad_norm_sq"]
        metrics["convergence/error"] = self.convergence_error.update(norm)
        for key in ("val/loss", "convergence/grad_norm_sq"):
            _require_finite(metrics, key, t)
        key, sign = self.judge.best
        if not sign * metrics[key] <= sign * self.best["value"]:
            self.best = {"value": metrics[key], "iteration": t}
            self._save("best", t)
        self.folder.set_status("running", iteration=t)
        interval = f" +- {metrics['val/acc_ci95']:.2%}" if "val/acc_ci95" in metrics else ""
        acc = f"val acc {metrics['val/acc']:.2%}{interval}, " if "val/acc" in metrics else ""
        self.bar.note(f"iteration {t}: {acc}val loss {metrics['val/loss']:.6g}, |grad F|^2 {norm:.2e}")
        return metrics

    def _save(self, name: str, t: int) -> None:
        checkpoint.save(
            self._checkpoint(name),
            {
                "iteration": t,
                "model": self.experiment.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
                "warm": self.experiment.learner.warm,
                "convergence": self.convergence_error.state_dict(),
                "best": self.best,
                "cost": self.cost,
            },
        )

    def _checkpoint(self, name: str) -> Path:
        return self.folder.path / "checkpoints" / f"{name}.pt"

    def test(self) -> dict[str, Any]:
        """The test/ keys of the best model by validation, where there are tasks to test it on."""
        return self.judge.test(self._checkpoint("best"), self.folder, self._stop_test_if_asked)

    def _stop_test_if_asked(self) -> None:
        """checkpoints/last holds the last iteration already, and the model in memory is the best one."""
        if self.stop.signum is not None:
            raise RunInterrupted(self.stop.signum, self.config.iterations, self.folder.path)

    def summary(self, test: dict[str, Any]) -> dict[str, Any]:
        """summary.json, whose keys docs/run_folder.md defines."""
        return {
            **test,
            f"{self.judge.best[0]}_best": self.best["value"],
            "val/best_iteration": self.best["iteration"],
            **{key: self.latest[key] for key in LAST if key in self.latest},
            **self.cost,
            **self.largest,
            "memory/kind": self.memory_kind,
            "time/step_seconds_median": self.timer.median_seconds,
            "convergence/mu": self.config.reference_mu if self.config.convergence_of == "F" else None,
            "lower/wrong_fraction": self.wrong_sum / self.config.iterations,
            "tasks_seen": self.config.iterations * self.config.batch_size,
            "iterations": self.config.iterations,
        }


def _require_finite(metrics: dict[str, float], key: str, t: int) -> None:
    if not math.isfinite(metrics[key]):
        raise RunError(f"{key} is {metrics[key]} at iteration {t}: {REMEDY if t else REMEDY_AT_0}")


def _report_metrics(report: StepReport, mu: float) -> dict[str, float]:
    """A step's report as plain numbers, read back from the device at once; the keys that the algorithm has. mu: g's
    modulus."""
    values = {"train/loss": report.loss.mean()}
    if report.accuracy is not None:
        values["train/acc"] = report.accuracy.mean()
    values |= {
        "lower/wrong_fraction": report.wrong.double().mean(),
        "cost/gradient_evaluations": report.gradients.sum(),
        "cost/hessian_vector_products": report.products.sum(),
    }
    if report.inner_residual is not None:
        values["lower/residual_max"] = report.inner_residual.max()
    if report.smoothness is not None:
        smoothness = report.smoothness.max()
        values["lower/L_g"] = smoothness
        values["lower/kappa"] = smoothness / mu if mu else torch.full_like(smoothness, torch.inf)
    if report.linear_residual is not None:
        values["linear/residual_max"] = report.linear_residual.max()
    for key, steps in (("lower/steps", report.inner_steps), ("linear/steps", report.linear_steps)):
        if steps is not None:
            values[key] = steps.double().mean()
    numbers = torch.stack([value.double() for value in values.values()]).tolist()
    return dict(zip(values, numbers, strict=True))
