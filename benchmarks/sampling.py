"""The time to draw and gather tasks, as a share of a train step: `make bench-sampling`.

One process alternates between drawing B tasks with their images, and the train step on them (Conv4, the default lower
level solved to its tolerance, without Adam). The last line is JSON: medians of `--rounds` rounds after two of warm-up.
Goal: a share below 0.02.

By default the images have the size of CIFAR-FS and are in memory. `--tiered FOLDER` writes a file of the size of
tieredImageNet's training split (9.5 GB of noise in 351 classes, one of 732 images, the others of 1280), maps it, and
measures twice: with a cold page cache and new tasks in every round, and with a warm one and the same tasks. The file is
removed.
"""

import argparse
import contextlib
import json
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from memmeta_exp.algorithms import Learner, build_algorithm
from memmeta_exp.algorithms.proposed import ProposedConfig
from memmeta_exp.backbones import build_model
from memmeta_exp.backbones.conv4 import Conv4Config
from memmeta_exp.data import EpisodeSampler, ImageSet, load_split
from memmeta_exp.data.datasets import SyntheticConfig, TieredImagenetConfig
from memmeta_exp.data.store import FORMAT, Store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--filters", type=int, default=64)
    parser.add_argument("--tiered", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.tiered is None:
        images = load_split(SyntheticConfig(classes=64, images_per_class=600), "train")  # the shape of CIFAR-FS
        print(json.dumps(measured(images, options)))
        return
    with tiered_store(options.tiered) as folder:
        for state in ("cold", "warm"):
            if state == "cold":
                forget(folder / "train.npy")
            images = Store(folder).load("train")
            print(json.dumps({"page_cache": state, **measured(images, options)}), flush=True)


def measured(images: ImageSet, options: argparse.Namespace) -> dict[str, float]:
    """Median seconds of sampling and of the step, and their ratio."""
    size = images.images.shape[-1]
    sampler = EpisodeSampler(images, "train", 0, 5, 5, 5)
    model = build_model(Conv4Config(filters=options.filters), 3, size, 5, learned=False, seed=0)
    learner = build_algorithm(ProposedConfig(), model)
    times = [one_round(sampler, learner, k, options.tasks) for k in range(options.rounds + 2)]
    a, b = (statistics.median(column) for column in zip(*times[2:], strict=True))
    return {"sampling_share": a / b, "sampling_ms": 1e3 * a, "step_ms": 1e3 * b, "tasks": options.tasks}


def one_round(sampler: EpisodeSampler, learner: Learner, k: int, tasks: int) -> tuple[float, float]:
    """Seconds of drawing and gathering, and of the step. The step gathers again, so the share is slightly
    overestimated."""
    begin = time.perf_counter()
    batch = sampler.draw(k * tasks, tasks)
    for task in range(tasks):  # one task at a time, as the learner gathers
        batch[task : task + 1].support()
        batch[task : task + 1].query()
    middle = time.perf_counter()
    learner.step(batch)
    return middle - begin, time.perf_counter() - middle


@contextlib.contextmanager
def tiered_store(folder: Path) -> Iterator[Path]:
    """A store with the size of the training split. It is fully written, because reading a sparse file needs no disk."""
    facts = TieredImagenetConfig().facts()
    assert facts.images is not None
    total, smallest = facts.images["train"], facts.images_per_class
    each, rest = divmod(total - smallest, facts.classes["train"] - 1)
    counts = [smallest, *(each + (i < rest) for i in range(facts.classes["train"] - 1))]
    folder.mkdir(parents=True, exist_ok=True)
    split = {"names": list(map(str, range(len(counts)))), "counts": counts, "shape": [total, 3, 84, 84]}
    split |= {"sha256": "", "mean": [], "std": []}
    index = {"format": FORMAT, "source": "noise", "splits": {"train": split}}
    try:
        write_noise(folder / "train.npy", total)
        (folder / "index.json").write_text(json.dumps(index))
        yield folder
    finally:
        for name in ("train.npy", "index.json"):
            (folder / name).unlink(missing_ok=True)


def write_noise(path: Path, images: int) -> None:
    """Writes random uint8 [images, 3, 84, 84] to disk."""
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(images, 3, 84, 84))
    block = np.random.default_rng(0).integers(0, 256, (4096, 3, 84, 84), dtype=np.uint8)
    for at in range(0, images, len(block)):
        out[at : at + len(block)] = block[: images - at]
    out.flush()


def forget(path: Path) -> None:
    """Drops the file from the page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    main()
