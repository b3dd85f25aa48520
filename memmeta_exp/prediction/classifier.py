"""A classifier of new classes, in the manner of scikit-learn."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from memmeta_exp.utils.errors import DataError


class Classifier:
    """What `TrainedModel.adapt` gives. classes_: the labels, [ways], in the order of the columns.

    Each call adapts anew to the support images, which takes one pass of them, and predicts all images of the call
    together. With a backbone whose batch norm takes the statistics of a task (backbone.norm=task, the default), the
    query images of one call share theirs: predictions then depend on the images beside an image, as in the tests of the
    field. backbone.norm=running makes an image's prediction its own.
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
        found, truth = self.predict(images).tolist(), _array(labels).tolist()
        if len(found) != len(truth):
            raise DataError(f"{len(found)} images have {len(truth)} labels: give one label for each image")
        return sum(a == b for a, b in zip(found, truth, strict=True)) / len(found)


def classes_of(labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """The different labels, sorted where they can be, and int64 indices into them. DataError where they are no row."""
    array = _array(labels)
    if array.ndim != 1:
        raise DataError(f"labels of shape {list(array.shape)}: give a list with one label for each image")
    try:
        classes, indices = np.unique(array, return_inverse=True)
    except TypeError:  # of kinds that have no common order
        order = {label: at for at, label in enumerate(dict.fromkeys(array.tolist()))}
        classes, indices = _objects(list(order)), np.array([order[label] for label in array.tolist()])
    return classes, indices.astype(np.int64)


def _array(labels: Any) -> np.ndarray:
    """Labels of one kind as numpy has them; of several kinds as they are, which numpy would make texts."""
    if torch.is_tensor(labels):
        return labels.detach().cpu().numpy()
    if isinstance(labels, np.ndarray):
        return labels
    if isinstance(labels, str | bytes) or not isinstance(labels, Iterable):
        raise DataError(f"labels={labels!r} is no list: give one label for each image")
    items = list(labels)
    plain = len({type(item) for item in items}) == 1 and isinstance(items[0], str | int | float | np.generic)
    return np.asarray(items) if plain else _objects(items)


def _objects(items: list[Any]) -> np.ndarray:
    found = np.empty(len(items), dtype=object)
    found[:] = items
    return found
