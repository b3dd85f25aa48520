"""`memmeta predict run=DIR support=FOLDER query=FOLDER out=FILE.csv`: a trained model on one's own images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from memmeta_exp.commands.arguments import parse
from memmeta_exp.config import ConfigError
from memmeta_exp.config.compose import without_plugins
from memmeta_exp.data.folder_entries import ignored, listed
from memmeta_exp.prediction import load
from memmeta_exp.reports.confusion import counts, plot_confusion
from memmeta_exp.utils.atomic_io import replace_csv

HELP = """memmeta predict run=DIR|FILE support=FOLDER query=FOLDER|FILE[,FILE...] out=FILE.csv
                [device=auto|cpu|cuda|cuda:N] [plugins=[MODULE,...]]

Adapts a trained model to the images in support, which holds one folder per class, and predicts the class of every image
in query. run= names a run folder (its best checkpoint), a checkpoint or an exported file. Images may have any size and
mode; they are resized to the size of the model's images.

out=FILE.csv gets a row per image: its file, the predicted class, and the probability of each class. If query has one
folder per class too, rows also have the true class, the accuracy is printed, and FILE.png shows the confusion matrix.

With backbone.norm=task (the default of training) all images of query share their batch-norm statistics.
"""
Labelled = list[tuple[Path, str | None]]


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(HELP)
        return 0
    needed = dict.fromkeys(("run", "support", "query", "out"))
    options = parse(without_plugins(arguments), {**needed, "device": "auto"})
    missing = [key for key in needed if options[key] is None]
    if missing:
        raise ConfigError(
            f"predict needs {missing[0]}=: memmeta predict run=DIR support=FOLDER query=FOLDER out=FILE.csv"
        )
    run, support_folder, query_names, out = (str(options[key]) for key in needed)
    support, query = _of_classes(Path(support_folder), "support"), _queries(query_names)
    if not support:
        raise ConfigError(f"support={support_folder} holds no folders of images: put the images of each class into one")
    classifier = load(run, str(options["device"])).adapt(*zip(*support, strict=True))
    probabilities = classifier.predict_proba([path for path, _ in query])
    predicted = classifier.classes_[probabilities.argmax(1)].tolist()
    names = classifier.classes_.tolist()
    file = _written(Path(out), query, predicted, names, probabilities)
    print(f"{len(query)} images, {len(names)} classes: wrote {file}")
    truth = [label for _, label in query if label is not None]
    if truth:
        _score(file, truth, predicted, names)
    return 0


def _of_classes(folder: Path, key: str) -> Labelled:
    """The images of each folder in `folder`, with the name of their folder. Raises ConfigError if `folder` is none."""
    if not folder.is_dir():
        raise ConfigError(f"{key}={folder} is not a folder: name one that holds a folder of images for each class")
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not ignored(entry.name))
    return [(one / name, one.name) for one in classes for name in listed(one).images]


def _queries(names: str) -> Labelled:
    """The images that query= names: those of a folder, those of its folders with the folders' names, or files."""
    folder = Path(names)
    if folder.is_dir():
        found: Labelled = _of_classes(folder, "query") or [(folder / name, None) for name in listed(folder).images]
        if not found:
            raise ConfigError(f"query={names} holds no images: name a folder of images, or image files")
        return found
    files = [Path(names)] if folder.is_file() else [Path(name) for name in names.strip("[]").split(",")]
    for file in files:
        if not file.is_file():
            raise ConfigError(f"query={names}: {file} is not a file: name a folder of images, or image files")
    return [(file, None) for file in files]


def _written(
    file: Path, query: Labelled, predicted: Sequence[str], names: Sequence[str], probabilities: np.ndarray
) -> Path:
    labelled = any(label is not None for _, label in query)
    header = ["file", *(["class"] if labelled else []), "predicted", *(f"p({name})" for name in names)]
    rows = (
        [path, *([label] if labelled else []), best, *(f"{p:.6f}" for p in row)]
        for (path, label), best, row in zip(query, predicted, probabilities.tolist(), strict=True)
    )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_csv(file, header, rows)
    except OSError as error:
        raise ConfigError(f"out={file}: {error.strerror}; name a file that can be written") from None
    return file


def _score(file: Path, truth: Sequence[str], predicted: Sequence[str], names: Sequence[str]) -> None:
    """Prints the accuracy, and draws the confusion matrix beside `file`. Classes without support images are always
    predicted wrongly."""
    accuracy = sum(a == b for a, b in zip(truth, predicted, strict=True)) / len(truth)
    rows = [*names, *sorted(set(truth) - set(names))]
    picture = plot_confusion(counts(truth, predicted, rows, names), rows, names, file.with_suffix(".png"))
    print(f"accuracy {accuracy:.2%}; confusion matrix: wrote {picture}")
