"""Scores over fixed tasks, with confidence intervals, and the result of each test task."""

from dataclasses import dataclass

from memmeta_exp.data import SinusoidTasks, TaskBatch
from memmeta_exp.data.tasks import Tasks
from memmeta_exp.experiment.builder import Experiment
from memmeta_exp.tracking.run_folder import EpisodeResult, SinusoidResult
from memmeta_exp.utils.statistics import mean, mean_ci95


@dataclass(frozen=True)
class Score:
    """Scores of each task, in order.

    accuracy: a fraction; None where there are no classes. loss: query loss in nats, or the squared error of a
    regression. converged: 1 where the head's adaptation converged, else 0.
    """

    accuracy: list[float] | None
    loss: list[float]
    converged: list[float]

    @property
    def metric(self) -> list[float]:
        """The metric that compares models: accuracy, or the squared error where there are no classes."""
        return self.loss if self.accuracy is None else self.accuracy

    @property
    def interval(self) -> tuple[float, float]:
        """Mean of the metric and half the width of its 95 % interval."""
        return mean_ci95(self.metric)

    @property
    def mean_loss(self) -> float:
        return mean(self.loss)

    @property
    def unsolved_fraction(self) -> float:
        """Fraction of tasks whose lower level missed its tolerance."""
        return 1 - mean(self.converged)


def score_tasks(experiment: Experiment, tasks: Tasks) -> Score:
    """The scores of the current model on `tasks`, with the configured test-time adaptation."""
    accuracy, loss, converged = experiment.learner.evaluate(tasks, experiment.adapt)
    return Score(None if accuracy is None else accuracy.tolist(), loss.tolist(), converged.tolist())


def episode_results(tasks: TaskBatch | SinusoidTasks, score: Score) -> list[EpisodeResult] | list[SinusoidResult]:
    """The rows of test_episodes.csv: each task's result, and what identifies its classes and items (or its wave)."""
    if isinstance(tasks, SinusoidTasks):
        drawn = zip(tasks.amplitude.tolist(), tasks.phase.tolist(), tasks.x.tolist(), strict=True)
        return [SinusoidResult(task, score.loss[task], a, b, tuple(x)) for task, (a, b, x) in enumerate(drawn)]
    assert score.accuracy is not None, "images are classified"
    classes, items = tasks.classes.tolist(), tasks.items.flatten(1).tolist()
    return [
        EpisodeResult(task, score.accuracy[task], score.loss[task], tuple(classes[task]), tuple(items[task]))
        for task in range(len(tasks))
    ]
