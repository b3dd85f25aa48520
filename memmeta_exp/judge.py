"""How theta is judged while it trains and when it is done: by new tasks, or, where the truth is known, by F itself."""

from typing import Any, Protocol

from memmeta_exp.build import Experiment
from memmeta_exp.evaluation import episode_results, score_tasks
from memmeta_exp.known import Truth
from memmeta_exp.measure.convergence import gradient_norm_sq
from memmeta_exp.tracking.run_folder import RunFolder


class Judge(Protocol):
    """best: the validation key by which the best model is chosen, and 1 where more is better, -1 where less is."""

    @property
    def best(self) -> tuple[str, int]: ...

    def validate(self) -> dict[str, float]:
        """The val/ and convergence/ keys of docs/run_folder.md, convergence/error excepted."""
        ...

    def test(self, folder: RunFolder) -> dict[str, Any]:
        """The test/ keys of summary.json, of the model as it stands."""
        ...


def judge_of(experiment: Experiment) -> Judge:
    """The judge that fits the experiment's problem."""
    return FewShot(experiment) if experiment.truth is None else Known(experiment.truth)


class FewShot:
    """Accuracy on the fixed validation and test tasks, and |grad F|^2 on fixed tasks of the training classes."""

    best: tuple[str, int] = ("val/acc", 1)

    def __init__(self, experiment: Experiment) -> None:
        self.experiment, self.config = experiment, experiment.config

    def validate(self) -> dict[str, float]:
        tasks = self.experiment.samplers["val"].draw(0, self.config.val_tasks)
        score = score_tasks(self.experiment, tasks)
        return {
            "val/acc": score.mean_accuracy,
            "val/acc_ci95": score.ci95,
            "val/loss": score.mean_loss,
            "val/unsolved_fraction": score.unsolved_fraction,
            **self._convergence(),
        }

    def _convergence(self) -> dict[str, float]:
        tasks = self.experiment.samplers["reference"].draw(0, self.config.convergence_tasks)
        norm, report = gradient_norm_sq(self.experiment.reference, tasks)
        wrong = float(report.wrong.double().mean())
        return {"convergence/grad_norm_sq": norm, "convergence/wrong_fraction": wrong}

    def test(self, folder: RunFolder) -> dict[str, Any]:
        """Writes test_episodes too. Nothing where there are to be no test tasks."""
        if not self.config.test_tasks:
            return {}
        tasks = self.experiment.samplers["test"].draw(0, self.config.test_tasks)
        score = score_tasks(self.experiment, tasks)
        folder.write_test_episodes(episode_results(tasks, score))
        return {
            "test/acc": score.mean_accuracy,
            "test/acc_ci95": score.ci95,
            "test/loss": score.mean_loss,
            "test/unsolved_fraction": score.unsolved_fraction,
        }


class Known:
    """F over all tasks there are. None is held out, so there is nothing to test."""

    best: tuple[str, int] = ("val/loss", -1)

    def __init__(self, truth: Truth) -> None:
        self.truth = truth

    def validate(self) -> dict[str, float]:
        return self.truth.measure()

    def test(self, folder: RunFolder) -> dict[str, Any]:
        return {}
