"""Few-shot accuracy over fixed tasks, with its interval, and the record of each test task."""

import math
from dataclasses import dataclass

from memmeta_exp.build import Experiment
from memmeta_exp.data import TaskBatch
from memmeta_exp.tracking.run_folder import EpisodeResult


@dataclass(frozen=True)
class Score:
    """Accuracy (fraction), query loss (nats) and whether the head's adaptation converged, of each task, in order."""

    accuracy: list[float]
    loss: list[float]
    converged: list[float]

    @property
    def mean_accuracy(self) -> float:
        return mean(self.accuracy)

    @property
    def mean_loss(self) -> float:
        return mean(self.loss)

    @property
    def unsolved_fraction(self) -> float:
        """Fraction of tasks whose lower level missed its tolerance."""
        return 1 - mean(self.converged)

    @property
    def ci95(self) -> float:
        """Half the width of the 95 % interval of the mean accuracy, 1.96 s / sqrt(n) over n tasks."""
        n, centre = len(self.accuracy), self.mean_accuracy
        variance = math.fsum((a - centre) ** 2 for a in self.accuracy) / (n - 1)
        return 1.96 * math.sqrt(variance / n)


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def score_tasks(experiment: Experiment, tasks: TaskBatch) -> Score:
    """The model as it stands on `tasks`, every head adapted by the configured rule."""
    columns = experiment.learner.evaluate(tasks, experiment.adapt)
    return Score(*(column.tolist() for column in columns))


def episode_results(tasks: TaskBatch, score: Score) -> list[EpisodeResult]:
    """What test_episodes.csv holds: each task's result and the indices that rebuild it."""
    classes, items = tasks.classes.tolist(), tasks.items.flatten(1).tolist()
    return [
        EpisodeResult(task, score.accuracy[task], score.loss[task], tuple(classes[task]), tuple(items[task]))
        for task in range(len(tasks))
    ]
