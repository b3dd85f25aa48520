"""`memmeta evaluate ... details=DIR`: accuracy by class, confusion matrix and calibration of a test."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from memmeta_exp.config import ConfigError
from memmeta_exp.experiment.builder import Experiment
from memmeta_exp.experiment.class_scores import predictions
from memmeta_exp.reports.calibration import BINS, plot_reliability, reliability
from memmeta_exp.reports.confusion import counts, plot_confusion
from memmeta_exp.utils.atomic_io import replace_csv


def write_details(folder: Path, experiment: Experiment, tasks: Any) -> None:
    """Writes classes.csv, confusion.csv, confusion.png, calibration.csv and calibration.png to `folder`, over all query
    images of `tasks`, and prints a line. Raises ConfigError if the folder cannot be written."""
    found = predictions(experiment, tasks)
    names = list(tasks.image_set.class_names)
    truth, predicted = ([names[k] for k in column.tolist()] for column in (found.truth, found.predicted))
    seen = [name for name in names if name in {*truth}]
    matrix, right = counts(truth, predicted, seen, seen), (found.truth == found.predicted).numpy()
    calibration = reliability(found.confidence.numpy(), right)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        by_class = [
            (name, row.sum(), f"{row[k] / row.sum():.6f}")
            for k, (name, row) in enumerate(zip(seen, matrix, strict=True))
        ]
        replace_csv(folder / "classes.csv", ("class", "images", "accuracy"), by_class)
        replace_csv(
            folder / "confusion.csv",
            ("class", *seen),
            ((n, *row) for n, row in zip(seen, matrix.tolist(), strict=True)),
        )
        edges = np.arange(BINS) / BINS
        rows = zip(edges, edges + 1 / BINS, *calibration, strict=True)
        replace_csv(folder / "calibration.csv", ("from", "to", "images", "confidence", "accuracy"), map(_shown, rows))
        plot_confusion(matrix, seen, seen, folder / "confusion.png")
        plot_reliability(calibration, folder / "calibration.png")
    except OSError as error:
        raise ConfigError(f"details={folder}: {error.strerror}; name a folder that can be written") from None
    print(f"expected calibration error {calibration.ece:.4f}; accuracy by class and confusion: wrote {folder}")


def _shown(row: Iterable[Any]) -> list[str]:
    return ["" if np.isnan(value) else f"{value:.6g}" for value in row]
