"""Evaluators of theta for validation and test: by scores on new tasks, or by F itself on analytic problems."""

from typing import Any, Protocol

from memmeta_exp.experiment.adaptation_curves import adaptation
from memmeta_exp.experiment.analytic_problems import ExactObjective
from memmeta_exp.experiment.builder import Experiment
from memmeta_exp.experiment.convergence import gradient_norm_sq
from memmeta_exp.experiment.evaluation import Score, episode_results, score_tasks
from memmeta_exp.tracking.run_folder import RunFolder


class Evaluator(Protocol):
    """best: the validation key that chooses the best model, with 1 where more is better and -1 where less is."""

    @property
    def best(self) -> tuple[str, int]: ...

    def validate(self) -> dict[str, float]:
        """The val/ and convergence/ keys of docs/outputs.md, except convergence/error."""
        ...

    def measure(self) -> dict[str, float]:
        """The convergence/ keys alone."""
        ...

    def test(self, folder: RunFolder) -> dict[str, Any]:
        """The test/ keys of summary.json for the current model."""
        ...


def evaluator_of(experiment: Experiment) -> Evaluator:
    """The evaluator for the experiment's kind of tasks."""
    if experiment.objective is not None:
        return ExactEvaluator(experiment.objective)
    return Regression(experiment) if experiment.config.dataset.is_regression else FewShot(experiment)


class FewShot:
    """Accuracy on the fixed validation and test tasks, and |grad F|^2 on fixed tasks of the training classes."""

    metric, sign = "acc", 1

    @property
    def best(self) -> tuple[str, int]:
        return f"val/{self.metric}", self.sign

    def __init__(self, experiment: Experiment) -> None:
        self.experiment, self.config = experiment, experiment.config

    def validate(self) -> dict[str, float]:
        tasks = self.experiment.samplers["val"].draw(0, self.config.val_tasks)
        return self._keys("val", score_tasks(self.experiment, tasks)) | self.measure()

    def _keys(self, stream: str, score: Score) -> dict[str, float]:
        mean, half_width = score.interval
        return {
            f"{stream}/{self.metric}": mean,
            f"{stream}/{self.metric}_ci95": half_width,
            f"{stream}/loss": score.mean_loss,
            f"{stream}/unsolved_fraction": score.unsolved_fraction,
        }

    def measure(self) -> dict[str, float]:
        tasks = self.experiment.samplers["reference"].draw(0, self.config.convergence_tasks)
        norm, report = gradient_norm_sq(self.experiment.reference, tasks)
        inexact = float(report.inexact.double().mean())
        return {"convergence/grad_norm_sq": norm, "convergence/inexact_fraction": inexact}

    def test(self, folder: RunFolder) -> dict[str, Any]:
        """Also writes test_episodes.csv. Returns {} where test_tasks=0."""
        if not self.config.test_tasks:
            return {}
        tasks = self._test_tasks()
        score = score_tasks(self.experiment, tasks)
        folder.write_test_episodes(episode_results(tasks, score))
        return self._keys("test", score)

    def _test_tasks(self) -> Any:
        return self.experiment.samplers["test"].draw(0, self.config.test_tasks)


class Regression(FewShot):
    """Mean squared error on the fixed validation and test tasks, and its fall with the number of adaptation steps."""

    metric, sign = "mse", -1

    def test(self, folder: RunFolder) -> dict[str, Any]:
        """Also writes test_episodes.csv and adaptation.json."""
        found = super().test(folder)
        if not found:
            return {}
        folder.write_adaptation(adaptation(self.experiment, self._test_tasks()))
        return found


class ExactEvaluator:
    """F over all tasks. No task is held out, so there is no test."""

    best: tuple[str, int] = ("val/loss", -1)

    def __init__(self, objective: ExactObjective) -> None:
        self.objective = objective

    def validate(self) -> dict[str, float]:
        return self.objective.measure()

    def measure(self) -> dict[str, float]:
        return {key: value for key, value in self.objective.measure().items() if key.startswith("convergence/")}

    def test(self, folder: RunFolder) -> dict[str, Any]:
        return {}
