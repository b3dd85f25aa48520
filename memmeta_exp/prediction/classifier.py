"""A classifier of new classes, in the manner of scikit-learn."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from memmeta_exp.utils.errors import DataError


class Classifier:
    """The result of `TrainedModel.adapt`. classes_: the labels [ways], in the order of the columns of `predict_proba`.

    Each call adapts to the support images again, and passes all its images through the backbone at once. With
    backbone.norm=task, the default, the images of one call share their batch-norm statistics, as in common tests: a
    prediction then depends on the other images of the call. With backbone.norm=running it does not.
    """

    def __init__(self, classes: np.ndarray, probabilities: Callable[[Any], np.ndarray]) -> None:
        self.classes_, self._probabilities = classes, probabilities

    def predict_proba(self, images: Any) -> np.ndarray:
        """Probabilities [m, ways] of m images, in any form that `adapt` takes; rows add up to 1. Raises DataError."""
        return self._probabilities(images)

    def predict(self, images: Any) -> np.ndarray:
        """The most probable label of each of m images, [m]."""
        return self.classes_[self.predict_proba(images).argmax(1)]

    def score(self, images: Any, labels: Any) -> float:
        """Accuracy: the fraction of m images whose prediction is the label, m labels."""
        found, expected = self.predict(images).tolist(), _array(labels).tolist()
        if len(found) != len(expected):
            raise DataError(f"{len(found)} images have {len(expected)} labels: give one label for each image")
        return sum(a == b for a, b in zip(found, expected, strict=True)) / len(found)


def classes_of(labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """The distinct labels, sorted if they can be compared, and int64 indices into them. Raises DataError for labels of
    more than one dimension."""
    array = _array(labels)
    if array.ndim != 1:
        raise DataError(f"labels of shape {list(array.shape)}: give a list with one label for each image")
    try:
        classes, indices = np.unique(array, return_inverse=True)
    except TypeError:  # labels that cannot be compared
        order = {label: at for at, label in enumerate(dict.fromkeys(array.tolist()))}
        classes, indices = _objects(list(order)), np.array([order[label] for label in array.tolist()])
    return classes, indices.astype(np.int64)


def _array(labels: Any) -> np.ndarray:
    """Labels as an array. Those of several types stay objects, because numpy would convert them to strings."""
    if torch.is_tensor(labels):
        return labels.detach().cpu().numpy()
    if isinstance(labels, np.ndarray):
        return labels
    if isinstance(labels, str | bytes) or not isinstance(labels, Iterable):
        raise DataError(f"labels={labels!r} is not a list: give one label for each image")
    items = list(labels)
    plain = len({type(item) for item in items}) == 1 and isinstance(items[0], str | int | float | np.generic)
    return np.asarray(items) if plain else _objects(items)


def _objects(items: list[Any]) -> np.ndarray:
    found = np.empty(len(items), dtype=object)
    found[:] = items
    return found
