"""What a model says of each query image of many tasks: for accuracy by class, confusion and calibration."""

from typing import NamedTuple

import torch
from torch import Tensor

from memmeta_exp.data import TaskBatch
from memmeta_exp.experiment.builder import Experiment

TASKS = 32  # at a time


class Predictions(NamedTuple):
    """Of N query images. truth, predicted: int64 [N], classes of the split; confidence: float64 [N], the probability of
    the predicted class among those of its task."""

    truth: Tensor
    predicted: Tensor
    confidence: Tensor


def predictions(experiment: Experiment, tasks: TaskBatch) -> Predictions:
    """Those of the query images of `tasks`, after the configured test-time adaptation."""
    parts = [_of(experiment, tasks[at : at + TASKS]) for at in range(0, len(tasks), TASKS)]
    return Predictions(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def _of(experiment: Experiment, tasks: TaskBatch) -> Predictions:
    outputs, learner = experiment.learner.outputs(tasks, experiment.adapt), experiment.learner
    logits = getattr(learner.losses, "logits", lambda output: output)(outputs)
    confidence, best = logits.double().softmax(-1).cpu().max(-1)
    classes, labels = tasks.classes.cpu(), tasks.half("query").labels.cpu()
    return Predictions(classes.gather(1, labels).flatten(), classes.gather(1, best).flatten(), confidence.flatten())
