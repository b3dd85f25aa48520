"""Seconds per task with the paper's settings, for all algorithms in turn in one process. They make runs from different
machines comparable.

    python -m benchmarks.paper_steps [--rounds 9] [--tasks 8] [--precision bf16] [--threads 1] [--algorithms maml,anil]
                                     [--out docs/results/paper_steps.json]

A round is one iteration of `experiment=paper/released dataset=synthetic` (Conv4-64, 32x32, 5-way 5-shot, 5 queries: the
settings of CIFAR-FS and FC100) of each algorithm, including sampling and Adam. The first round is left out. The results
are medians and quartiles over rounds, divided by the tasks per iteration. The weights are initial ones, which matters
for iMAML only: its conjugate gradients stop at negative curvature.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.arguments import at_least, names
from memmeta_exp.config.compose import jobs
from memmeta_exp.experiment.builder import build
from memmeta_exp.experiment.optimizers import build_optimizer
from memmeta_exp.experiment.train_step import TrainStep
from memmeta_exp.tracking.environment import cpu_model

ALGORITHMS = ("proposed", "itd_bio", "anil", "fomaml", "maml", "imaml")


def stepper(algorithm: str, options: argparse.Namespace) -> Callable[[], object]:
    """A function that runs the next iteration of `algorithm` at every call."""
    (config,) = jobs(
        [
            "experiment=paper/released", f"algorithm={algorithm}", "dataset=synthetic", f"batch_size={options.tasks}",
            f"precision={options.precision}", f"threads={options.threads}", "device=cpu", "tracking=disabled",
        ],
        multirun=False,
    )  # fmt: skip
    experiment = build(config)
    iteration = TrainStep(experiment, build_optimizer(config, experiment.model)[0])
    count = iter(range(1, sys.maxsize))

    def step() -> None:
        iteration.clear()
        iteration(next(count))

    return step


def measured(options: argparse.Namespace) -> dict[str, Any]:
    steps = {name: stepper(name, options) for name in options.algorithms}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(options.rounds + 1):
        for name, step in steps.items():
            begin = time.perf_counter()
            step()
            seconds[name].append((time.perf_counter() - begin) / options.tasks)
    found = {name: statistics.quantiles(taken[1:], n=4, method="inclusive") for name, taken in seconds.items()}
    return {
        "seconds_a_task": {name: median for name, (_, median, _) in found.items()},
        "quartiles": {name: [low, high] for name, (low, _, high) in found.items()},
        "tasks": options.tasks,
        "rounds": options.rounds,
        "precision": options.precision,
        "threads": options.threads,
        "torch": torch.__version__,
        "cpu": cpu_model(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=at_least(2), default=9)
    parser.add_argument("--tasks", type=at_least(1), default=8)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--threads", type=at_least(1), default=1)
    parser.add_argument("--algorithms", default=",".join(ALGORITHMS))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    options.algorithms = names(parser, "algorithm", options.algorithms, ALGORITHMS)
    text = json.dumps(measured(options), indent=1)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
