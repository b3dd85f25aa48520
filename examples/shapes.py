"""From training to prediction: meta-train on glyphs, then tell circles from squares by three images of each.

    python -m examples.shapes [FOLDER]

The ten images are drawn here: white shapes on black, as the glyphs are. FOLDER is the run folder.
"""

import sys

import numpy as np
from PIL import Image, ImageDraw

import memmeta_exp as memmeta

SHOTS = 3


def shape(name: str, at: int) -> np.ndarray:
    """A filled circle or an empty square, uint8 [28, 28], its size and place depending on `at`."""
    image = Image.new("L", (28, 28))
    left, side = 3 + at, 14 + at
    box = (left, 4, left + side, 4 + side)
    if name == "circle":
        ImageDraw.Draw(image).ellipse(box, fill=255)
    else:
        ImageDraw.Draw(image).rectangle(box, outline=255, width=2)
    return np.asarray(image)


def main(folder: str | None = None, *overrides: str) -> float:
    """Trains, adapts and predicts; returns the accuracy on the images that were not adapted to."""
    run = memmeta.train(
        "dataset=glyphs", "iterations=60", "eval_every=30", "val_tasks=20", "test_tasks=20", "tracking=disabled",
        *overrides, folder=folder,
    )  # fmt: skip
    names = ["circle", "square"]
    images = np.stack([shape(name, at) for name in names for at in range(5)])
    labels = np.repeat(names, 5)
    given = np.tile(np.arange(5) < SHOTS, 2)

    classifier = memmeta.load(run.folder).adapt(images[given], labels[given])
    for truth, row in zip(labels[~given], classifier.predict_proba(images[~given]), strict=True):
        shown = ", ".join(f"{name} {p:.2f}" for name, p in zip(classifier.classes_, row, strict=True))
        print(f"a {truth}: {shown}")
    accuracy = classifier.score(images[~given], labels[~given])
    print(f"accuracy {accuracy:.0%} on {int((~given).sum())} images; the run is in {run.folder}")
    return accuracy


if __name__ == "__main__":
    main(*sys.argv[1:])
