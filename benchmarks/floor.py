"""A train step of every algorithm against a supervised step on the same images, a lower bound: `make bench-floor`.

One process alternates between two steps with the same Conv4-64 in the same precision:
supervised  forward, cross-entropy, backward and Adam on 400 float images of 32x32 with a linear head. The fastest chunk
            size, and parallel chunks or parallel operators, are searched first.
train       the train step on the same images as 8 tasks of 5-way 5-shot with 5 queries, gathered from uint8, and Adam.

Times are medians of `--pairs` pairs; ratios are medians of the pairs' ratios, with quartiles. `proposed_half_task` is
also paired with `proposed`. Rows of `same_chunk` process as many images at a time as the supervised step, with the same
use of threads; other rows process one task at a time (on a GPU all). Two rows show the cost of one task at a time:
`supervised_halves` is the supervised step in passes of half a task's images; `proposed_without_head` is `proposed` with
the cotangents of an earlier task. iMAML has lam = 50: with the published 2, H + lam I is indefinite at initial weights,
and the solve would stop early.

Memory is the peak of live tensors above persistent ones, from a separate step, relative to the supervised step on the
50 images of ONE task. The last line is JSON. Goals for `proposed` and `proposed_k20` (K = N = 20, gd and cg): time
ratio <= 1.10 on 2 CPU cores, <= 1.15 on a GPU; memory ratio <= 1.05, with memory.mode=half_task <= 0.55.
"""

import argparse
import json
import statistics
import time
from dataclasses import replace
from typing import Any

import torch

from benchmarks.arguments import at_least, found_device, names
from benchmarks.floor_steps import ALGORITHMS, IMAGES_PER_TASK, QUERIES, SHOTS, WAYS, Setting, Step, meta, supervised
from memmeta_exp.data import EpisodeSampler, TaskBatch, load_split
from memmeta_exp.data.datasets import SyntheticConfig
from memmeta_exp.profiling.peak_memory import measure_peak
from memmeta_exp.utils.malloc import keep_freed_memory

HALVES = "supervised_halves"
ROWS = (HALVES, *ALGORITHMS)
PAUSE = 0.05  # seconds: OpenMP threads spin for 10 ms and more after their work, which would slow down the other side


def seconds(setting: Setting, step: Step) -> float:
    setting.synchronize()
    if setting.workers > 1:
        time.sleep(PAUSE)
    begin = time.perf_counter()
    step()
    setting.synchronize()
    return time.perf_counter() - begin


def peak_mib(setting: Setting, step: Step, persistent: list[Any]) -> float:
    step()  # creates the optimizer's state
    return measure_peak(step, setting.device, persistent)[1].above_baseline_mib


def fastest(setting: Setting, batch: TaskBatch, rounds: int = 3) -> tuple[Step, int, bool]:
    """The fastest supervised step, its chunk size, and whether chunks run in parallel. Compares the minimum seconds of
    `rounds` rounds."""
    total = setting.tasks * IMAGES_PER_TASK
    chunks = sorted({c for c in (25, 50, 100, 200, 400, total) if c <= total})
    ways = (False, True) if setting.workers > 1 else (False,)
    steps = {(c, w): supervised(setting, batch, c, w)[0] for c in chunks for w in ways if not w or 2 * c <= total}
    times: dict[tuple[int, bool], float] = {}
    for round_ in range(rounds + 1):
        for which, step in steps.items():
            taken = seconds(setting, step)
            times[which] = min(times.get(which, taken), taken) if round_ else float("inf")
    best = min(times, key=lambda which: times[which])
    return steps[best], *best


def alternating(setting: Setting, first: Step, second: Step, pairs: int) -> list[tuple[float, float]]:
    """Seconds of `pairs` alternating pairs of both steps, without the first pair."""
    return [(seconds(setting, first), seconds(setting, second)) for _ in range(pairs + 1)][1:]


def ratios(times: list[tuple[float, float]]) -> list[float]:
    """Lower quartile, median and upper quartile of second / first."""
    return statistics.quantiles((b / a for a, b in times), n=4, method="inclusive")


def row(setting: Setting, batch: TaskBatch, name: str, chunk: int, run_parallel: bool) -> tuple[Step, list[Any]]:
    """The step that a row of the comparison times, and its persistent tensors. chunk, run_parallel: of the supervised
    step."""
    if name == HALVES:
        return supervised(setting, batch, IMAGES_PER_TASK // 2, run_parallel)
    if name.endswith("_same_chunk"):
        return meta(setting, batch, name, max(1, chunk // IMAGES_PER_TASK), run_parallel)
    return meta(setting, batch, name)


def compare(setting: Setting, batch: TaskBatch, names: list[str], pairs: int) -> dict[str, Any]:
    """The ratios of every algorithm to the supervised step."""
    threads = torch.get_num_threads()  # the steps change it
    floor, chunk, run_parallel = fastest(setting, batch)
    alone = replace(setting, workers=1)  # memory is measured in one thread
    floor_peak = peak_mib(setting, *supervised(alone, batch[:1], IMAGES_PER_TASK))
    result: dict[str, Any] = {
        "time_ratio": {}, "time_ratio_quartiles": {}, "memory_ratio": {}, "device": str(setting.device),
        "precision": "bf16" if setting.bf16 else "fp32",
        "threads": threads,
        "supervised_chunk": chunk, "supervised_side_by_side": run_parallel,
        "supervised_peak_mib_of_one_task": floor_peak, "supervised_seconds": {}, "seconds": {}, "peak_mib": {},
    }  # fmt: skip
    for name in names:
        step = row(setting, batch, name, chunk, run_parallel)[0]
        times = alternating(setting, floor, step, pairs)
        result["supervised_seconds"][name] = statistics.median(a for a, _ in times)
        result["seconds"][name] = statistics.median(b for _, b in times)
        low, result["time_ratio"][name], high = ratios(times)
        result["time_ratio_quartiles"][name] = [low, high]
        result["peak_mib"][name] = peak_mib(setting, *row(alone, batch, name, chunk, run_parallel))
        result["memory_ratio"][name] = result["peak_mib"][name] / floor_peak
        print(
            f"{name:<20} {1e3 * result['seconds'][name]:8.1f} ms, {result['time_ratio'][name]:6.3f} "
            f"[{low:.3f}, {high:.3f}] of the supervised step; {result['peak_mib'][name]:7.1f} MiB, "
            f"{result['memory_ratio'][name]:6.3f} of one task's",
            flush=True,
        )
    if "proposed_half_task" in names:
        whole, half = (meta(setting, batch, name)[0] for name in ("proposed", "proposed_half_task"))
        low, median, high = ratios(alternating(setting, whole, half, pairs))
        result["half_task_of_proposed"] = {"time_ratio": median, "quartiles": [low, high]}
        print(f"half_task: {median:.3f} [{low:.3f}, {high:.3f}] of the time of proposed", flush=True)
    return result


def run(arguments: list[str] | None = None) -> dict[str, Any]:
    """Runs the comparison with the command-line `arguments`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--threads", type=at_least(1), default=2)
    parser.add_argument("--pairs", type=at_least(2), default=11)
    parser.add_argument("--tasks", type=at_least(1), default=8)
    parser.add_argument("--filters", type=at_least(1), default=64)
    parser.add_argument("--algorithms", default=",".join(ROWS))
    options = parser.parse_args(arguments)
    on, rows = found_device(parser, options.device), names(parser, "algorithm", options.algorithms, ROWS)
    workers = options.threads if on.type == "cpu" else 1
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    torch.backends.cudnn.allow_tf32 = False
    setting = Setting(
        on,
        options.precision == "bf16",
        options.filters,
        options.tasks,
        workers,
    )
    images = load_split(SyntheticConfig(classes=64, images_per_class=600), "train").to(setting.device)
    batch = EpisodeSampler(images, "train", 0, WAYS, SHOTS, QUERIES).draw(0, options.tasks)
    return compare(setting, batch, rows, options.pairs)


if __name__ == "__main__":
    print(json.dumps(run()))
