"""The single runner: trains, validates, tests, measures and records one configuration in one folder."""

import logging
import math
import time
from pathlib import Path
from typing import Any

import torch

from memmeta_exp import checkpoint
from memmeta_exp.algorithms import StepReport
from memmeta_exp.build import Experiment, build, build_optimizer
from memmeta_exp.config import Config, to_dict
from memmeta_exp.display import ProgressBar, print_summary
from memmeta_exp.evaluation import Score, episode_results, evaluate
from memmeta_exp.measure.convergence import RunningMean, squared_norm
from memmeta_exp.measure.peak_memory import Peak, measure_peak
from memmeta_exp.measure.timing import StepTimer
from memmeta_exp.signals import StopRequest
from memmeta_exp.studies.plots import plot_run
from memmeta_exp.tracking import Tracker
from memmeta_exp.tracking.run_folder import RunFolder

METERED = 2  # the iteration whose memory is metered on CPU (metering slows it): the optimiser's state exists by then
WORST = ("lower/residual_max", "linear/residual_max", "memory/peak_mib", "memory/above_baseline_mib")

logger = logging.getLogger("memmeta")


class RunError(RuntimeError):
    """A run that cannot go on; its text is one line for the user."""


class RunInterrupted(Exception):
    """A run that was asked to stop by signal `signum` and has saved its state."""

    def __init__(self, signum: int, iteration: int, folder: Path) -> None:
        super().__init__(f"stopped by signal {signum} after iteration {iteration}; what it has is in {folder}")
        self.signum = signum


def run(config: Config, path: Path, overrides: list[str]) -> Path:
    """Trains `config` in the existing folder `path`; returns the path of its summary.json.

    Raises RunError, RunInterrupted, ConfigError, DataError; status.json says which way it ended in every case.
    """
    folder = RunFolder(path)
    folder.write_config(to_dict(config))
    folder.write_overrides(overrides)
    folder.set_status("running", iteration=0)
    try:
        _run(config, folder)
    except (RunInterrupted, KeyboardInterrupt) as stop:
        folder.set_status("interrupted", reason=str(stop) or "interrupted from the keyboard")
        raise
    except BaseException as error:
        folder.set_status("failed", reason=str(error).partition("\n")[0] or type(error).__name__)
        raise
    folder.set_status("finished", iteration=config.iterations)
    return path / "summary.json"


def _run(config: Config, folder: RunFolder) -> None:
    started = time.perf_counter()
    experiment = build(config)
    folder.write_env({"device": str(experiment.device)})
    with Tracker(config, folder) as tracker, ProgressBar(config.run_name, config.iterations, config.progress) as bar:
        trainer = Trainer(experiment, folder, tracker, bar)
        with StopRequest() as stop:
            trainer.train(stop)
            score = trainer.test()
        summary = trainer.summary(score) | {"time/total_seconds": time.perf_counter() - started}
        tracker.summary(summary)
    plot_run(folder.path, config.run_name)
    print_summary(config.run_name, folder.path, summary)


class Trainer:
    """The state of a training run and its moves; nothing runs before `train`."""

    def __init__(self, experiment: Experiment, folder: RunFolder, tracker: Tracker, bar: ProgressBar) -> None:
        self.experiment, self.folder, self.tracker, self.bar = experiment, folder, tracker, bar
        self.config = experiment.config
        self.optimizer, self.scheduler = build_optimizer(self.config, experiment.model)
        self.timer = StepTimer(experiment.device)
        self.error = RunningMean()
        self.best = {"acc": -1.0, "iteration": 0}
        self.worst: dict[str, float] = {}
        self.latest: dict[str, float] = {}
        self.wrong = 0.0
        self.kind, self.grad_norm_sq = "", math.nan
        c = self.config
        self.val_tasks = experiment.samplers["val"].draw(0, c.val_tasks)
        self.test_tasks = experiment.samplers["test"].draw(0, c.test_tasks)
        self.reference_tasks = experiment.samplers["reference"].draw(0, c.convergence_tasks)

    def train(self, stop: StopRequest) -> None:
        """Upper iterations 1..T, validated at 0, every eval_every and at the end."""
        self.tracker.log(0, self._validate(0))
        for t in range(1, self.config.iterations + 1):
            metrics = self._iterate(t)
            if t % self.config.eval_every == 0 or t == self.config.iterations:
                metrics |= self._validate(t)
            self.tracker.log(t, metrics)
            self.bar.update(t, metrics)
            if stop.signum is not None and t < self.config.iterations:
                self._save("last", t)
                self.folder.set_status("running", iteration=t)
                raise RunInterrupted(stop.signum, t, self.folder.path)

    def _iterate(self, t: int) -> dict[str, float]:
        """One upper iteration: sample, accumulate the meta-gradient, step theta."""
        on_gpu = self.experiment.device.type == "cuda"
        metered = on_gpu or t == min(METERED, self.config.iterations)
        self.optimizer.zero_grad(set_to_none=True)
        with self.timer.step(counted=on_gpu or not metered):
            report, peak = self._metered_step(t) if metered else (self._step(t), None)
        self.scheduler.step()
        metrics = _report_metrics(report, self.config.algorithm.mu)
        self._check(metrics, t)
        metrics |= {
            "time/step_seconds": self.timer.last_seconds,
            "time/tasks_per_second": self.config.batch_size / self.timer.last_seconds,
            "optimizer/lr": float(self.scheduler.get_last_lr()[0]),
        }
        if peak is not None:
            metrics |= {"memory/peak_mib": peak.absolute_mib, "memory/above_baseline_mib": peak.above_baseline_mib}
            self.kind = peak.kind
        self._remember(metrics)
        return metrics

    def _step(self, t: int) -> StepReport:
        size = self.config.batch_size
        batch = self.experiment.samplers["train"].draw((t - 1) * size, size)
        report = self.experiment.learner.step(batch)
        self.optimizer.step()
        return report

    def _metered_step(self, t: int) -> tuple[StepReport, Peak]:
        e = self.experiment
        data = [sampler.image_set.images for sampler in e.samplers.values()]
        return measure_peak(lambda: self._step(t), e.device, [e.model, self.optimizer, data])

    def _check(self, metrics: dict[str, float], t: int) -> None:
        """Stops on a loss that is no number, warns once of hypergradients that are not gradients of F."""
        if not math.isfinite(metrics["train/loss"]):
            raise RunError(
                f"the loss is {metrics['train/loss']} at iteration {t}: theta has diverged; lower optimizer.lr, or "
                "raise algorithm.mu and use algorithm.inner_solver=newton"
            )
        if metrics["lower/wrong_fraction"] and not self.wrong:
            logger.warning(
                "iteration %d: %.0f %% of the hypergradients come from a solve that fell short (|d_phi g| up to %.1e, "
                "linear residual up to %.1e); lower/wrong_fraction has the rest",
                t,
                100 * metrics["lower/wrong_fraction"],
                metrics["lower/residual_max"],
                metrics.get("linear/residual_max", 0.0),
            )
        self.wrong += metrics["lower/wrong_fraction"]

    def _remember(self, metrics: dict[str, float]) -> None:
        self.latest = metrics
        for key in set(WORST) & metrics.keys():
            value = metrics[key]
            self.worst[key] = value if math.isnan(value) else max(self.worst.get(key, value), value)

    def _validate(self, t: int) -> dict[str, float]:
        """Validation accuracy and the convergence measure; keeps the checkpoints."""
        score = evaluate(self.experiment, self.val_tasks)
        norm = self.grad_norm_sq = self._grad_norm_sq()
        metrics = {
            "val/acc": score.mean_accuracy,
            "val/acc_ci95": score.ci95,
            "val/loss": score.mean_loss,
            "convergence/grad_norm_sq": norm,
            "convergence/error": self.error.update(norm),
        }
        if score.mean_accuracy > self.best["acc"]:
            self.best = {"acc": score.mean_accuracy, "iteration": t}
            self._save("best", t)
        self._save("last", t)
        self.folder.set_status("running", iteration=t)
        self.bar.note(f"iteration {t}: val acc {score.mean_accuracy:.2%} +- {score.ci95:.2%}, |grad F|^2 {norm:.2e}")
        return metrics

    def _grad_norm_sq(self) -> float:
        """|grad F|^2 on the fixed reference tasks, lower level and linear system solved in float64."""
        self.optimizer.zero_grad(set_to_none=True)
        self.experiment.reference.step(self.reference_tasks)
        gradients = [p.grad for p in self.experiment.model.parameters() if p.grad is not None]
        norm = float(squared_norm(gradients))
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def _save(self, name: str, t: int) -> None:
        checkpoint.save(
            self.folder.path / "checkpoints" / f"{name}.pt",
            {
                "iteration": t,
                "model": self.experiment.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
                "warm": self.experiment.learner.warm,
                "convergence": self.error.state_dict(),
                "best": self.best,
            },
        )

    def test(self) -> Score:
        """The best model by validation on the fixed test tasks; writes test_episodes."""
        state = checkpoint.load(self.folder.path / "checkpoints" / "best.pt", self.experiment.device)
        self.experiment.model.load_state_dict(state["model"])
        score = evaluate(self.experiment, self.test_tasks)
        self.folder.write_test_episodes(episode_results(self.test_tasks, score))
        return score

    def summary(self, score: Score) -> dict[str, Any]:
        """summary.json, whose keys docs/run_folder.md defines."""
        return {
            "test/acc": score.mean_accuracy,
            "test/acc_ci95": score.ci95,
            "test/loss": score.mean_loss,
            "val/acc_best": self.best["acc"],
            "val/best_iteration": self.best["iteration"],
            "train/loss": self.latest["train/loss"],
            "train/acc": self.latest["train/acc"],
            **self.worst,  # the largest values, of the keys that the algorithm has
            "memory/kind": self.kind,
            "time/step_seconds_median": self.timer.median_seconds,
            "convergence/error": self.error.mean,
            "convergence/grad_norm_sq": self.grad_norm_sq,
            "convergence/mu": self.config.reference_mu,
            "lower/L_g": self.latest["lower/L_g"],
            "lower/kappa": self.latest["lower/kappa"],
            "lower/wrong_fraction": self.wrong / self.config.iterations,
            "tasks_seen": self.config.iterations * self.config.batch_size,
            "iterations": self.config.iterations,
        }


def _report_metrics(report: StepReport, mu: float) -> dict[str, float]:
    """A step's report as plain numbers, read back from the device at once; the keys that the algorithm has."""
    smoothness = report.smoothness.max()
    values = {
        "train/loss": report.loss.mean(),
        "train/acc": report.accuracy.mean(),
        "lower/residual_max": report.inner_residual.max(),
        "lower/L_g": smoothness,
        "lower/kappa": smoothness / mu if mu else torch.full_like(smoothness, torch.inf),
        "lower/wrong_fraction": report.wrong.to(smoothness.dtype).mean(),
    }
    if report.linear_residual is not None:
        values["linear/residual_max"] = report.linear_residual.max()
    return dict(zip(values, torch.stack(list(values.values())).tolist(), strict=True))
