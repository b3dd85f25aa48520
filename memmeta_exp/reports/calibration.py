"""Calibration: whether a model that says 80 % is right in 80 % of the cases (Guo et al. 2017)."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from memmeta_exp.reports.plot_style import BLUE, DPI, drawing

BINS = 15


class Reliability(NamedTuple):
    """Of `BINS` bins of confidence, equally wide on [0, 1]: images [bins], and their mean confidence and accuracy,
    [bins], NaN where a bin is empty."""

    images: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def ece(self) -> float:
        """The expected calibration error, sum_b n_b / N |accuracy_b - confidence_b|."""
        gaps = np.nan_to_num(np.abs(self.accuracy - self.confidence))
        return float((self.images * gaps).sum() / self.images.sum())


def reliability(confidence: np.ndarray, right: np.ndarray) -> Reliability:
    """Of N predictions. confidence: [N] in [0, 1]; right: bool [N]."""
    bins = np.ceil(confidence * BINS).clip(1, BINS).astype(int) - 1
    images = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):
        means = (np.bincount(bins, weights=values, minlength=BINS) / images for values in (confidence, right))
        return Reliability(images, *means)


def plot_reliability(found: Reliability, file: Path) -> Path:
    """Draws accuracy against confidence, to `file`, which it returns."""
    with drawing():
        figure = Figure(figsize=(4.2, 4.2), layout="constrained")
        axis = figure.subplots()
        axis.bar((np.arange(BINS) + 0.5) / BINS, np.nan_to_num(found.accuracy), 0.9 / BINS, color=BLUE)
        axis.plot([0, 1], [0, 1], color="black", linewidth=1, linestyle="--")
        axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy", title=f"ECE {found.ece:.3f}")
        figure.savefig(file, dpi=DPI)
    return file
