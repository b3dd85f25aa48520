"""Checks that a dataset has enough classes and images for one task."""

from typing import Any

from memmeta_exp.config.facts import DatasetFacts
from memmeta_exp.config.sections import TrainingConfig
from memmeta_exp.config.validation import shown
from memmeta_exp.utils.errors import ConfigError

STREAMS = (("train", "train"), ("reference", "train"), ("val", "val"), ("test", "test"))  # and their splits


def check_tasks_fit(config: Any) -> None:
    """Raises ConfigError if a split of the dataset of `config`, a `Config`, has too few classes for one task, or one of
    its classes too few images."""
    if not config.dataset.has_classes:
        return
    facts = config.dataset.facts()
    for stream, split in STREAMS:
        _check(config.dataset.name, facts, split, config.task(stream), _prefix(config, stream))


def _prefix(config: Any, stream: str) -> str:
    """The prefix of the keys that set the shape of a task of `stream`: `training.` or none."""
    training = stream == "train" or (stream == "reference" and not config.algorithm.classifies)
    return "training." if training and config.training != TrainingConfig() else ""


def _check(name: str, facts: DatasetFacts, split: str, task: Any, prefix: str) -> None:
    classes, images = facts.classes[split], facts.smallest(split)
    if task.ways > classes:
        raise ConfigError(
            f"{prefix}ways={task.ways} is more than the {classes} classes of {name}'s {split} split; set "
            f"{prefix}ways to {classes} or fewer"
        )
    if task.shots + task.queries > images:
        named = f"class '{shown(found)}'" if (found := facts.smallest_class.get(split)) else "a class"
        raise ConfigError(
            f"{prefix}shots={task.shots} + {prefix}queries={task.queries} is more than the {images} images of "
            f"{named} of {name}'s {split} split; lower one until their sum fits"
        )
