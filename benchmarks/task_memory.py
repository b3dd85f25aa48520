"""Peak memory against the images of a task, with `memory.mode=images`: `python -m benchmarks.task_memory`.

Each row is one meta-step of `proposed` (gradient and Adam step, batch of one task) in a process of its own, whose data
the operating system limits to `--limit-gib` (RLIMIT_DATA). The network is a model of timm with random weights; the task
is 5-way, with as many query as support images. A row has the seconds of the step, the largest resident memory of the
process, the peak of tensors above what persists, predicted on meta tensors, and the same of MAML (K = 5), predicted.

The last line is JSON: {"rows": [{"images", "seconds", "resident_mib", "predicted_mib", "maml_mib"}, ..]}.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

from benchmarks.arguments import at_least
from memmeta_exp.config import Config
from memmeta_exp.config.compose import jobs
from memmeta_exp.experiment.builder import build
from memmeta_exp.experiment.optimizers import build_optimizer
from memmeta_exp.experiment.train_step import TrainStep
from memmeta_exp.memory.predict import predict

WAYS = 5
MAML = ["algorithm=maml", "algorithm.inner_steps=5"]


def configuration(model: str, size: int, each: int, *more: str) -> Config:
    """A batch of one task with `each` support and `each` query images a class."""
    dataset = ["dataset=synthetic", f"dataset.classes={WAYS}", f"dataset.images_per_class={2 * each}"]
    task = [f"dataset.image_size={size}", f"ways={WAYS}", f"shots={each}", f"queries={each}", "batch_size=1"]
    return jobs([*dataset, *task, "backbone=timm", f"backbone.model={model}", *more], False)[0]


def images_mode(passes: int) -> list[str]:
    return ["memory.mode=images", f"memory.images_per_pass={passes}"]


def one_step(config: Config) -> dict[str, float]:
    """The seconds of a meta-step, and the largest resident memory of this process, in MiB."""
    experiment = build(config)
    optimizer, _ = build_optimizer(config, experiment.model)
    step = TrainStep(experiment, optimizer)
    began = time.perf_counter()
    report = step(1)
    seconds = time.perf_counter() - began
    assert report.loss.isfinite().all()
    return {"seconds": seconds, "resident_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def in_a_process(arguments: list[str], limit: int) -> dict[str, float]:
    """`one_step` in a process whose data may take `limit` bytes."""

    def restrict() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

    command = [sys.executable, "-m", "benchmarks.task_memory", *arguments]
    done = subprocess.run(command, preexec_fn=restrict, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.task_memory", description="Peak memory against the images of a task."
    )
    parser.add_argument("--model", default="vit_base_patch16_224", help="a model of timm")
    parser.add_argument("--image-size", type=at_least(16), default=224)
    parser.add_argument("--each", type=at_least(1), nargs="+", default=[1, 5, 20], help="support images of a class")
    parser.add_argument("--passes", type=at_least(1), default=1, help="images of a backbone pass")
    parser.add_argument("--limit-gib", type=float, default=4.0)
    parser.add_argument("--one", action="store_true", help="one step in this process, without a limit")
    given = parser.parse_args(argv)
    mode = images_mode(given.passes)
    if given.one:
        return one_step(configuration(given.model, given.image_size, given.each[0], *mode))
    rows = []
    print("images of a task   seconds   resident MiB   predicted MiB   MAML, predicted MiB", flush=True)
    for each in given.each:
        shared = ["--model", given.model, "--image-size", str(given.image_size), "--passes", str(given.passes)]
        row: dict[str, float] = {"images": 2 * each * WAYS}
        row |= in_a_process([*shared, "--each", str(each), "--one"], int(given.limit_gib * 2**30))
        for key, more in (("predicted_mib", mode), ("maml_mib", MAML)):
            row[key] = predict(configuration(given.model, given.image_size, each, *more)).above_baseline_mib
        rows.append(row)
        print(
            "{images:16d} {seconds:9.1f} {resident_mib:14.0f} {predicted_mib:15.1f} {maml_mib:21.0f}".format(**row),
            flush=True,
        )
    return {"rows": rows}


if __name__ == "__main__":
    print(json.dumps(main()))
