"""Confusion matrices: how many images of each class were taken for which."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from memmeta_exp.reports.plot_style import DPI, drawing

MAX_NUMBERED = 20  # classes whose cells hold numbers
LETTERS = 16  # of a class name


def counts(truth: Sequence[str], predicted: Sequence[str], rows: Sequence[str], columns: Sequence[str]) -> np.ndarray:
    """int64 [rows, columns]: how many images of class `rows[i]` were predicted as `columns[j]`."""
    row, column = ({name: at for at, name in enumerate(names)} for names in (rows, columns))
    found = np.zeros((len(rows), len(columns)), dtype=np.int64)
    np.add.at(found, ([row[a] for a in truth], [column[b] for b in predicted]), 1)
    return found


def plot_confusion(matrix: np.ndarray, rows: Sequence[str], columns: Sequence[str], file: Path) -> Path:
    """Draws `matrix` [rows, columns] with each row's fractions as shades, to `file`, which it returns."""
    fractions = matrix / matrix.sum(1, keepdims=True).clip(min=1)
    with drawing():
        side = 2.5 + 0.35 * min(max(matrix.shape), 40)
        figure = Figure(figsize=(side, side), layout="constrained")
        axis = figure.subplots()
        axis.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
        axis.set_xticks(range(len(columns)), [name[:LETTERS] for name in columns], rotation=90)
        axis.set_yticks(range(len(rows)), [name[:LETTERS] for name in rows])
        axis.set_xlabel("predicted")
        axis.set_ylabel("class")
        if max(matrix.shape) <= MAX_NUMBERED:
            for (i, j), value in np.ndenumerate(matrix):
                axis.text(
                    j, i, str(value), ha="center", va="center", color="white" if fractions[i, j] > 0.5 else "black"
                )
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=DPI)
    return file
