"""Training: the outer iterations of one run, their validation, metrics and checkpoints."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from memmeta_exp.algorithms import StepReport
from memmeta_exp.experiment.evaluators import evaluator_of
from memmeta_exp.experiment.train_step import TrainStep
from memmeta_exp.profiling.peak_memory import Peak, measure_peak
from memmeta_exp.profiling.step_timer import StepTimer
from memmeta_exp.tracking import Tracker
from memmeta_exp.tracking.progress_bar import ProgressBar
from memmeta_exp.tracking.run_folder import RunFolder
from memmeta_exp.training import checkpoint
from memmeta_exp.training.state import TrainingState
from memmeta_exp.utils.errors import RankLost, RunError, RunInterrupted
from memmeta_exp.utils.signals import StopAsked, StopRequest

METERED = 2  # the one iteration metered on a CPU, where metering is slow; the optimiser's state exists by then
PEAKS = ("memory/peak_mib", "memory/above_baseline_mib")
LARGEST = ("inner/grad_norm_max", "linear/residual_max", *PEAKS)
NORM = "convergence/grad_norm_sq"
COSTS = ("cost/gradient_evaluations", "cost/hessian_vector_products")
LAST = (
    "train/loss", "train/acc", "inner/L_g", "inner/kappa", "convergence/error",
    "convergence/error_coarseness", "convergence/grad_norm_sq", "convergence/suboptimality", "convergence/distance",
)  # fmt: skip
REMEDY = "theta has diverged; lower optimizer.lr or raise algorithm.mu"
REMEDY_AT_0 = "the lower level has diverged, because theta has not moved yet; lower algorithm.inner_lr or eval_lr"

logger = logging.getLogger("memmeta")


class Trainer:
    """The steps of a training run on its state. started: time.perf_counter() when this process began."""

    def __init__(
        self,
        state: TrainingState,
        folder: RunFolder,
        tracker: Tracker,
        bar: ProgressBar,
        stop: StopRequest,
        started: float,
    ) -> None:
        self.state, self.progress, self.experiment = state, state.progress, state.experiment
        self.folder, self.tracker, self.bar, self.stop = folder, tracker, bar, stop
        self.config, self.ranks = self.experiment.config, self.experiment.ranks
        self.evaluator = evaluator_of(self.experiment)
        self.iteration = TrainStep(self.experiment, state.optimizer, state.average)
        self.timer = StepTimer(self.experiment.device, counted=self.progress.step_seconds)
        self.began = started - self.progress.seconds

    def train(self) -> None:
        """Runs outer iterations up to T. Validates at iteration 0, every eval_every and at the end."""
        try:
            self._train()
        except RankLost as lost:
            raise self._on_rank_lost(lost) from None

    def _train(self) -> None:
        p = self.progress
        self._save_best() if p.best_model else self._save()  # best.pt may be of an iteration that is repeated now
        self.bar.update(p.iteration, p.latest)
        try:
            while p.row is not None or not (p.iteration >= self.config.iterations or self._stops_early()):
                if p.row is None:
                    self._advance()
                self._complete_row()
        except StopAsked:
            self._save()
            self._log_unvalidated_row()
            raise self._interrupted() from None

    def _stops_early(self) -> bool:
        """Whether the last early_stopping validations were none better than the best."""
        patience, p = self.config.early_stopping, self.progress
        return patience is not None and p.iteration - p.best_iteration >= patience * self.config.eval_every

    def _advance(self) -> None:
        """Runs the next outer iteration. An interrupted one changes nothing."""
        self.ranks.check(self.stop)
        self._set_interrupt_check(self.stop.check_in_a_step)
        row = self._iterate(self.progress.iteration + 1)
        self.progress.iteration, self.progress.row = self.progress.iteration + 1, row
        self._keep_largest_peak(row)

    def _keep_largest_peak(self, row: dict[str, float]) -> None:
        """Keeps the largest peaks over ranks and iterations."""
        if PEAKS[0] in row:
            row |= dict(zip(PEAKS, self.ranks.largest(*(row[key] for key in PEAKS)), strict=True))
            self.progress.keep_largest(row, PEAKS)

    def _complete_row(self) -> None:
        """Validates where that is due, logs the row, and saves a checkpoint where that is due."""
        p, c = self.progress, self.config
        t, row = p.iteration, dict(p.row or {})
        validated = t % c.eval_every == 0 or t == c.iterations
        with self.state.averaged():
            if validated:
                row |= self._validate(t)
            elif c.measures_every and t % c.measures_every == 0:
                row |= self._measure(t)
            if t in c.checkpoint_at:
                self._save_weights(t)
        p.latest |= row
        p.row = None
        self.tracker.log(t, row)
        self.bar.update(t, row)
        if validated or (c.checkpoint_every and t % c.checkpoint_every == 0):
            self._save()

    def _set_interrupt_check(
        self, check: Callable[[], None], phases: Mapping[str, tuple[Any, int]] | None = None
    ) -> None:
        """Calls `check` before each chunk of tasks. phases: the learner whose chunks the bar shows under this name, and
        their number of tasks."""
        for learner in self.experiment.learners:
            learner.check_interrupt = lambda at: check()
        for name, (learner, tasks) in (phases or {}).items():
            if learner is not None:
                learner.check_interrupt = partial(self._show, check, name, tasks)

    def _show(self, check: Callable[[], None], name: str, tasks: int, at: int) -> None:
        check()
        self.bar.phase(name, min(at * self.ranks.size, tasks), tasks)

    def _interrupted(self) -> RunInterrupted:
        signum = self.ranks.signum(self.stop)
        assert signum is not None
        return RunInterrupted(signum, self.progress.iteration, self.folder.path)

    def _on_rank_lost(self, lost: RankLost) -> RankLost:
        """Saves the last completed iteration, unless warm starts were lost with the failed rank."""
        try:
            self._save()
            where = f"iteration {self.progress.iteration}"
        except RankLost:
            where = "its last checkpoint"
        self._log_unvalidated_row()
        return self._with_resume_hint(lost, where)

    def _log_unvalidated_row(self) -> None:
        """Logs a row without its validation to metrics.jsonl alone. When the run resumes, the complete row replaces it.

        W&B would keep the first row of an iteration and drop the complete one.
        """
        if self.progress.row:
            self.folder.log({"iteration": self.progress.iteration, **self.progress.row})

    def _with_resume_hint(self, lost: RankLost, where: str) -> RankLost:
        return RankLost(f"{lost}: memmeta train resume={self.folder.path} goes on from {where}, on any number of ranks")

    def _iterate(self, t: int) -> dict[str, float]:
        """One outer iteration: sample, accumulate the meta-gradient, step theta."""
        on_gpu = self.experiment.device.type == "cuda"
        metered = on_gpu or t == min(METERED, self.config.iterations)
        self.iteration.clear()
        with self.timer.step(counted=on_gpu or not metered):
            report, peak = self._metered(t) if metered else (self.iteration(t), None)
        self.state.scheduler.step()
        metrics = report.logged(self.config.algorithm.mu + self.config.lower_modulus)
        cost = self.progress.add_up(metrics, COSTS)
        self._check(metrics, t)
        metrics |= {
            "time/step_seconds": self.timer.last_seconds,
            "time/tasks_per_second": self.config.batch_size / self.timer.last_seconds,
            "optimizer/lr": float(self.state.scheduler.get_last_lr()[0]),
            **cost,
        }
        if peak is not None:
            metrics |= {"memory/peak_mib": peak.absolute_mib, "memory/above_baseline_mib": peak.above_baseline_mib}
            self.progress.memory_kind = peak.kind
        self.progress.keep_largest(metrics, LARGEST)
        return metrics

    def _metered(self, t: int) -> tuple[StepReport, Peak]:
        return measure_peak(lambda: self.iteration(t), self.experiment.device, self.iteration.persistent())

    def _check(self, metrics: dict[str, float], t: int) -> None:
        """Warns once of inexact hypergradients."""
        inexact = metrics["hypergrad/inexact_fraction"]
        if inexact and not self.progress.inexact_sum:
            logger.warning(
                "iteration %d: %.0f %% of the hypergradients are inexact (|d_phi g| up to %.1e, linear residual up to "
                "%.1e); see hypergrad/inexact_fraction for later iterations",
                t,
                100 * inexact,
                metrics.get("inner/grad_norm_max", math.nan),
                metrics.get("linear/residual_max", 0.0),
            )
        self.progress.inexact_sum += inexact
        if t == 1:
            self._check_step_size(metrics.get("inner/L_g", 0.0))

    def _check_step_size(self, smoothness: float) -> None:
        """Warns where the first iteration's features break the theory's condition lambda_phi <= 1/L_g."""
        step: float | None = self.config.algorithm.descent_step
        if step is not None and step * smoothness > 1:
            logger.warning(
                "algorithm.inner_lr=%g is %.1f times the 1/L_g of these features: gradient descent on g need not "
                "converge; algorithm.inner_lr=null takes 1/L_g",
                step,
                step * smoothness,
            )

    def _validate(self, t: int) -> dict[str, float]:
        """The evaluator's metrics and the running mean of |grad F|^2; keeps the best model.

        An interrupted validation changes nothing: the mean is updated after the last check for a stop.
        """
        e, c = self.experiment, self.config
        phases = {"validating": (e.learner, c.val_tasks), "measuring grad F": (e.reference, c.convergence_tasks)}
        self._set_interrupt_check(self.stop.check, phases)
        self.ranks.require_same_weights(self.experiment.model)
        metrics = self.evaluator.validate()
        _require_finite(metrics, "val/loss", t)
        metrics |= self._mean_norm(metrics, t)
        key, sign = self.evaluator.best
        if not sign * metrics[key] <= sign * self.progress.best_value:
            self.state.keep_best(metrics[key])
            self._save_best()
        interval = f" +- {metrics['val/acc_ci95']:.2%}" if "val/acc_ci95" in metrics else ""
        acc = f"val acc {metrics['val/acc']:.2%}{interval}, " if "val/acc" in metrics else ""
        acc += f"val mse {metrics['val/mse']:.4g} +- {metrics['val/mse_ci95']:.2g}, " if "val/mse" in metrics else ""
        self.bar.note(f"iteration {t}: {acc}val loss {metrics['val/loss']:.6g}, |grad F|^2 {metrics[NORM]:.2e}")
        return metrics

    def _measure(self, t: int) -> dict[str, float]:
        """The convergence/ keys between two validations; an interrupted measurement changes nothing."""
        self._set_interrupt_check(self.stop.check)
        metrics = self.evaluator.measure()
        return metrics | self._mean_norm(metrics, t)

    def _mean_norm(self, metrics: dict[str, float], t: int) -> dict[str, float]:
        _require_finite(metrics, NORM, t)
        error = self.state.convergence_error
        return {"convergence/error": error.update(t, metrics[NORM]), "convergence/error_coarseness": error.coarseness}

    def _save(self) -> None:
        """Saves the state to last.pt, with the position in metrics.jsonl and the id of the W&B run."""
        self.progress.seconds = self.seconds
        beside = {"metrics": self.folder.metrics.position(), "wandb_id": self.tracker.wandb_id}
        checkpoint.save_newest(self.folder.checkpoints, self.state.state_dict() | beside)
        self.folder.set_status("running", iteration=self.progress.iteration)

    def _save_best(self) -> None:
        checkpoint.save(self.folder.checkpoints / checkpoint.BEST, self.state.best())

    def _save_weights(self, t: int) -> None:
        checkpoint.save(self.folder.checkpoints / checkpoint.at_iteration(t), self.state.weights())

    @property
    def seconds(self) -> float:
        """Wall clock of this run's processes. Time of earlier ones after their last checkpoint is left out."""
        return time.perf_counter() - self.began

    def test(self) -> dict[str, Any]:
        """The test/ keys of the best model by validation; {} where there are no test tasks.

        It loads the best weights into the model. If it is stopped, checkpoints/last.pt already has the last iteration.
        """
        self.experiment.model.load_state_dict(self.progress.best_model)
        self._set_interrupt_check(self.stop.check, {"testing": (self.experiment.learner, self.config.test_tasks)})
        try:
            self.ranks.check(self.stop)
            return self.evaluator.test(self.folder)
        except StopAsked:
            raise self._interrupted() from None
        except RankLost as lost:
            raise self._with_resume_hint(lost, f"iteration {self.progress.iteration}") from None

    def summary(self, test: dict[str, Any]) -> dict[str, Any]:
        """summary.json, whose keys docs/outputs.md defines."""
        return {
            **test,
            f"{self.evaluator.best[0]}_best": self.progress.best_value,
            "val/best_iteration": self.progress.best_iteration,
            **{key: self.progress.latest[key] for key in LAST if key in self.progress.latest},
            **self.progress.total,
            **self.progress.largest,
            "memory/kind": self.progress.memory_kind,
            "time/step_seconds_median": self.timer.median_seconds,
            "convergence/mu": self.config.reference_mu if self.config.convergence_gradient == "F" else None,
            "hypergrad/inexact_fraction": self.progress.inexact_sum / self.progress.iteration,
            "tasks_seen": self.progress.iteration * self.config.batch_size,
            "iterations": self.progress.iteration,
        }


def _require_finite(metrics: dict[str, float], key: str, t: int) -> None:
    if not math.isfinite(metrics[key]):
        raise RunError(f"{key} is {metrics[key]} at iteration {t}: {REMEDY if t else REMEDY_AT_0}")
