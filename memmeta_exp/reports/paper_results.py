"""The paper's published numbers (paper_results.yaml: Yang, Ma, Yu, AAAI-25) for a configuration.

Each function returns None if the paper has no such number.
"""

from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from memmeta_exp.config import ImagesConfig, TrainingConfig, channels_and_size, flat, options
from memmeta_exp.reports.grouping import name_of, section_of

PROTOCOL = {
    "iterations": 2000,
    "batch_size": 32,
    "queries": 5,
    "test_adaptation": "gd",
    "eval_steps": 20,
    "eval_lr": 0.05,
}
MEMORY_FILTERS = 64  # the values of the paper's memory figure match 64 filters at both image sizes
EPISODE = {"ways": 5, "shots": 5}


@cache
def published() -> dict[str, Any]:
    """The content of paper_results.yaml."""
    return yaml.safe_load((Path(__file__).parent / "paper_results.yaml").read_text(encoding="utf-8"))


def accuracy_percent(config: dict[str, Any]) -> tuple[float, float] | None:
    """Test accuracy of the same algorithm and dataset at the same settings: mean and standard deviation, in percent."""
    found = _of(config, "accuracy_percent")
    return None if found is None else (float(found[0]), float(found[1]))


def seconds_to_target(config: dict[str, Any]) -> float | None:
    """Seconds to 0.9 of the best validation accuracy on the paper's GPU. Also None if this was not reached."""
    found = _of(config, "seconds_to_90_percent_of_best_validation")
    return None if found is None else float(found)


def _of(config: dict[str, Any], quantity: str) -> Any:
    if not same_protocol(config):
        return None
    return published()[quantity].get(name_of(config, "dataset"), {}).get(name_of(config, "algorithm"))


def same_protocol(config: dict[str, Any]) -> bool:
    """Whether iterations, tasks, images, head and test-time adaptation are the paper's. Settings of the algorithm are
    not compared."""
    return _has(config, {**EPISODE, **PROTOCOL}) and _plain(config)


def peak_mib(config: dict[str, Any]) -> float | None:
    """Peak CUDA memory (MiB) of a training iteration for this algorithm, image size and K; 64 filters, 5-way 5-shot."""
    size, filters = image_size(config), section_of(config, "backbone").get("filters")
    if size is None or filters != MEMORY_FILTERS or not same_tasks(config):
        return None
    curve = peak_curve(name_of(config, "algorithm"), size)
    steps = section_of(config, "algorithm").get("inner_steps")
    return next((mib for k, mib in zip(*curve, strict=True) if k == steps), None) if curve else None


def peak_curve(algorithm: str, size: int) -> tuple[list[int], list[float]] | None:
    """The points (K, MiB) of the paper's memory figure for an image size in pixels."""
    table = published()["peak_cuda_mib"]
    found = table.get(f"image{size}", {}).get(algorithm)
    return None if found is None else (list(table["inner_steps"]), [float(value) for value in found])


def image_size(config: dict[str, Any]) -> int | None:
    """Side of the dataset's images in pixels; None if it has no images."""
    section = section_of(config, "dataset")
    schema = options("dataset").get(str(section.get("name")))
    try:
        return channels_and_size(schema(**section))[1] if schema else None
    except (TypeError, ValueError, AttributeError):  # a section of another version, or a dataset without images
        return None


def same_tasks(config: dict[str, Any]) -> bool:
    """Whether training tasks have the paper's numbers of classes and images, and the head is the paper's."""
    return _has(config, {**EPISODE, "queries": PROTOCOL["queries"]}) and _plain(config)


def _plain(config: dict[str, Any]) -> bool:
    """Whether options that the paper does not have are unused: training.*, images.*, other heads, weight averaging.
    Runs of older versions lack some of these keys."""
    expected = {
        **{f"training.{key}": value for key, value in asdict(TrainingConfig()).items()},
        **{f"images.{key}": value for key, value in asdict(ImagesConfig()).items()},
        "head.name": "linear",
        "optimizer.average": 0.0,
    }
    values = flat(config)
    return all(values.get(key, value) == value for key, value in expected.items())


def _has(config: dict[str, Any], values: dict[str, Any]) -> bool:
    return all(config.get(key) == value for key, value in values.items())
