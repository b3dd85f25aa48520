"""Seconds to import, verify and take a first step on each dataset: `python -m benchmarks.datasets FOLDER`.

The files are noise in the published formats. miniImageNet and Omniglot have their published size. For tieredImageNet,
which has 779,165 images, the conversion rate of `--images` images is measured for each of its two formats. FOLDER needs
5 GB and is removed. The output is one JSON line per dataset.
"""

import argparse
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from memmeta_exp.config import from_omegaconf
from memmeta_exp.config.compose import composed
from memmeta_exp.data.prepare.fetch import import_files
from memmeta_exp.data.prepare.readers import omniglot, tieredimagenet
from memmeta_exp.data.prepare.verify import verify
from memmeta_exp.data.store import write_store
from memmeta_exp.experiment.builder import build
from memmeta_exp.experiment.optimizers import build_optimizer
from memmeta_exp.experiment.train_step import TrainStep
from tests.data import official


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=5000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with emptied(options.folder):
        whole("miniimagenet", mini_files, options.folder)
        whole("omniglot", omniglot_files, options.folder)
        for form in ("png", "npz"):
            rate(form, options.images, options.folder)


@contextmanager
def emptied(folder: Path) -> Iterator[None]:
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def whole(name: str, make: Callable[[Path], object], folder: Path) -> None:
    """Times a dataset of its published size: import, verify, and the first iteration including loading."""
    make(folder / "source")
    bytes_ = sum(p.stat().st_size for p in (folder / "source").rglob("*") if p.is_file())
    result: dict[str, Any] = {"dataset": name, "source_mb": bytes_ / 1e6}
    begin = time.perf_counter()
    store = import_files(name, folder / "source", folder / "data")
    result["import_seconds"] = time.perf_counter() - begin
    result["store_mb"] = sum(p.stat().st_size for p in store.iterdir()) / 1e6
    config = from_omegaconf(composed([f"dataset={name}", f"data_root={folder / 'data'}", "threads=1"]))
    begin = time.perf_counter()
    checks = list(verify(config.dataset, config.data_root))
    result["verify_seconds"] = time.perf_counter() - begin
    result["failed"] = [check.what for check in checks if check.passed is False]
    begin = time.perf_counter()
    experiment = build(config)
    result["load_seconds"] = time.perf_counter() - begin
    begin = time.perf_counter()
    TrainStep(experiment, build_optimizer(config, experiment.model)[0])(1)
    result["first_step_seconds"] = time.perf_counter() - begin
    print(json.dumps(result), flush=True)
    shutil.rmtree(folder)


def mini_files(folder: Path) -> None:
    """Writes mini-imagenet-cache-*.pkl with the published numbers of classes."""
    for split, classes in zip(official.SPLITS, (64, 16, 20), strict=True):
        official.CLASSES[split] = [f"n{1000 * official.SPLITS.index(split) + i}" for i in range(classes)]
    official.mini_cache(folder, each=600)


def omniglot_files(folder: Path) -> None:
    """Writes both archives: 1623 characters by 20 drawers."""
    every = [name.split("/", 1) for split in official.SPLITS for name in omniglot.class_names(split)]
    official.omniglot_zips(folder, {p: [n for of, n in every if of == p] for p in omniglot._PARTS}, each=20)


def rate(form: str, images: int, folder: Path) -> None:
    """Conversion rate of tieredImageNet in images per second, with all images in one class."""
    official.CLASSES.update({split: ["n1"] for split in official.SPLITS})
    noise = np.concatenate([official.pictures(1000, seed) for seed in range(-(-images // 1000))])[:images]
    official.unequal = lambda split: {"n1": noise if split == "train" else noise[:1]}
    make = official.tiered_png if form == "png" else official.tiered_npz
    readers = tieredimagenet.readers(make(folder / "source"))
    assert readers is not None
    begin = time.perf_counter()
    write_store(folder / "store", readers, (3, 84, 84), form)
    seconds = time.perf_counter() - begin
    found = {"dataset": "tieredimagenet", "form": form, "images_per_second": images / seconds}
    print(json.dumps({**found, "whole_minutes_extrapolated": 779165 * seconds / images / 60}), flush=True)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
