"""A meta-step of every algorithm against the physical floor, a supervised step on the same images: `make bench-floor`.

In one process, alternating: forward, cross-entropy, backward and Adam of Conv4-64 with a linear head on 400 images of
32x32 that are floats in memory already, in chunks of the size that is fastest and with the threads side by side or
within operators, whichever is (both searched first), and the meta-step on the same 400 images as 8 tasks of 5-way
5-shot with 5 queries, gathered from uint8, and Adam. Both use the same Conv4 in the same precision, and so does the
chunk search. Times are medians of `--pairs` pairs, ratios the medians of the pairs' ratios with their quartiles;
`proposed_half_task` also in pairs with `proposed` itself. Those of `same_chunk` take as many images at a time as the
supervised step, its threads at work as there; the others one task (on a GPU all). Two rows say what a task at a time
costs: `supervised_halves`, the supervised step in passes of half a task's images, and `proposed_without_head`,
`proposed` with the cotangents of an earlier task in place of its own. iMAML has lam = 50: with the
published 2, H + lam I is indefinite at initial weights, and what is timed would be a solve that stops early. Memory is
the peak of live tensors above what persists, from a step of its own, relative to the supervised step on ONE task's 50
images. The last line is JSON. Goals for `proposed` and `proposed_k20` (K = N = 20, gd and cg): time ratio <= 1.10 on 2
CPU cores, <= 1.15 on a GPU; memory ratio <= 1.05, with memory.mode=half_task <= 0.55.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from memmeta_exp.algorithms import (
    CapturedLearner,
    CudaGraphs,
    Execution,
    FeatureGradient,
    FeatureSpaceLearner,
    build_algorithm,
)
from memmeta_exp.allocator import keep_freed_memory
from memmeta_exp.backbones import MetaModel, build_model
from memmeta_exp.config import Conv4Config, ImamlConfig, MemoryConfig, ProposedConfig, SyntheticConfig, UnrolledConfig
from memmeta_exp.data import EpisodeSampler, TaskBatch, load_split
from memmeta_exp.measure.peak_memory import measure_peak

HALF_TASK = MemoryConfig(mode="half_task")
BY_STEPS = ProposedConfig(
    inner_solver="gd", inner_steps=20, inner_tolerance=None, linear_solver="cg", linear_steps=20, linear_tolerance=None
)
ALL_WEIGHTS: dict[str, Any] = {"adapts": "all", "features": "recompute"}
ALGORITHMS: dict[str, tuple[Any, MemoryConfig | None]] = {
    "proposed": (ProposedConfig(), None),
    "proposed_k20": (BY_STEPS, None),
    "proposed_without_head": (ProposedConfig(), None),
    "proposed_same_chunk": (ProposedConfig(), None),
    "proposed_k20_same_chunk": (BY_STEPS, None),
    "proposed_half_task": (ProposedConfig(), HALF_TASK),
    "anil": (UnrolledConfig(name="anil"), None),
    "itd_bio": (UnrolledConfig(name="itd_bio", mu=1e-4, inner_steps=20, head_start="fixed"), None),
    "fomaml": (UnrolledConfig(name="fomaml", inner_steps=5, first_order=True, **ALL_WEIGHTS), None),
    "maml": (UnrolledConfig(name="maml", inner_steps=5, **ALL_WEIGHTS), None),
    "maml_checkpoint": (
        UnrolledConfig(name="maml", inner_steps=5, **ALL_WEIGHTS), MemoryConfig(checkpoint="inner_step")
    ),
    "imaml": (ImamlConfig(inner_steps=5, inner_lr=0.01, linear_steps=5, lam=50.0), None),
}  # fmt: skip
WAYS, SHOTS, QUERIES, SIZE = 5, 5, 5, 32
IMAGES_PER_TASK = WAYS * (SHOTS + QUERIES)
HALVES = "supervised_halves"
WITHOUT_HEAD = "_without_head"
PAUSE = 0.05  # s: OpenMP's threads wait busily for their next work, 10 ms and more, and would slow down the other side
Step = Callable[[], object]


@dataclass(frozen=True)
class Setting:
    """What both sides share."""

    device: torch.device
    bf16: bool
    filters: int
    tasks: int
    workers: int
    graph: bool = False

    def model(self, learned: bool) -> MetaModel:
        model = build_model(Conv4Config(filters=self.filters), 3, SIZE, WAYS, learned, seed=0).to(self.device)
        if self.device.type == "cpu":
            model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return model

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def adam(model: torch.nn.Module) -> torch.optim.Adam:
    return torch.optim.Adam(model.parameters(), lr=1e-4, foreach=True)


def supervised(setting: Setting, batch: TaskBatch, chunk: int, side_by_side: bool = False) -> tuple[Step, list[Any]]:
    """The supervised step on the images of `batch`, `chunk` images at a time, and what persists. side_by_side: every
    thread takes chunks of its own, as the meta-step's workers take tasks; else they share each operator."""
    model = setting.model(learned=True)
    optimizer, parameters = adam(model), list(model.parameters())
    images = torch.cat([x.flatten(0, 1) for x, _ in (batch.support(), batch.query())]).float().div_(255)
    labels = torch.cat([y.flatten() for _, y in (batch.support(), batch.query())])
    if setting.device.type == "cpu":
        images = images.contiguous(memory_format=torch.channels_last)

    def loss(at: int) -> Tensor:
        with torch.autocast(setting.device.type, torch.bfloat16, enabled=setting.bf16):
            logits = model(images[at : at + chunk][None])[0]
        return F.cross_entropy(logits.float(), labels[at : at + chunk], reduction="sum").div(len(images))

    apart = side_by_side and setting.workers > 1
    pool = ThreadPoolExecutor(setting.workers, initializer=lambda: torch.set_num_threads(1)) if apart else None
    threads = 1 if apart else setting.workers

    starts = range(0, len(images), chunk)

    def chunks() -> None:
        for at in starts:
            loss(at).backward()

    backward = recorded(setting, chunks, parameters) if setting.graph else chunks

    def step() -> None:
        torch.set_num_threads(threads)
        optimizer.zero_grad(set_to_none=True)
        if pool is None:
            backward()
        else:
            for gradients in pool.map(lambda at: torch.autograd.grad(loss(at), parameters), starts):
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
        optimizer.step()

    return step, [model, optimizer, images, labels]


def recorded(setting: Setting, backward: Callable[[], None], parameters: list[torch.nn.Parameter]) -> Step:
    """`backward`, which adds to empty gradients, as one CUDA graph."""
    graphs = CudaGraphs(setting.device)

    def clear() -> None:
        for p in parameters:
            p.grad = None

    for _ in range(2):
        graphs.warm(backward)
        clear()
    replay, _ = graphs.capture(backward)
    gradients = [p.grad for p in parameters]
    clear()

    def again() -> None:
        replay()
        for p, gradient in zip(parameters, gradients, strict=True):
            p.grad = gradient

    return again


def meta(
    setting: Setting, batch: TaskBatch, name: str, chunk: int | None = None, side_by_side: bool = True
) -> tuple[Step, list[Any]]:
    """The meta-step of an algorithm on `batch`, and what persists: as it is configured by default, or of a head-only
    one `chunk` tasks at a time with its threads side by side or within operators."""
    config, memory = ALGORITHMS[name]
    model = setting.model(config.head_start == "learned")
    optimizer = adam(model)
    whole = setting.device.type == "cuda" and config.in_feature_space
    workers = setting.workers if side_by_side else 1
    execution = Execution(chunk or (len(batch) if whole else 1), setting.bf16, workers, setting.workers // workers)
    learner = build_algorithm(config, model, execution, memory)
    if name.endswith(WITHOUT_HEAD):
        assert isinstance(learner, FeatureSpaceLearner)
        learner._gradient = first_of_its_size(learner._gradient)
    if setting.graph and getattr(config, "inner_solver", "gd") == "gd":  # newton takes as many steps as it needs
        learner = CapturedLearner(learner, CudaGraphs(setting.device))

    def step() -> None:
        torch.set_num_threads(execution.threads_each)
        optimizer.zero_grad(set_to_none=True)
        learner.step(batch)
        optimizer.step()

    for _ in range(3 if isinstance(learner, CapturedLearner) else 0):
        step()  # replays from the fourth on
    return step, [model, optimizer, batch.image_set.images, batch.classes, batch.items]


def first_of_its_size(gradient: Callable[..., FeatureGradient]) -> Callable[..., FeatureGradient]:
    """`gradient` where the number of tasks is new, and else what it said of the first chunk of as many."""
    known: dict[int, FeatureGradient] = {}

    def again(support: tuple[Tensor, Tensor], *others: Any) -> FeatureGradient:
        size = len(support[0])
        if size not in known:
            known[size] = gradient(support, *others)
        return known[size]

    return again


def seconds(setting: Setting, step: Step) -> float:
    setting.synchronize()
    if setting.workers > 1:
        time.sleep(PAUSE)
    begin = time.perf_counter()
    step()
    setting.synchronize()
    return time.perf_counter() - begin


def peak_mib(setting: Setting, step: Step, persistent: list[Any]) -> float:
    step()  # the optimizer's state exists from here on
    return measure_peak(step, setting.device, persistent)[1].above_baseline_mib


def fastest(setting: Setting, batch: TaskBatch, rounds: int = 3) -> tuple[Step, int, bool]:
    """The fastest supervised step, its chunk, and whether its threads work side by side: the least seconds of `rounds`
    each, alternating."""
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
    """Seconds of both, taking turns; the first pair is left out."""
    return [(seconds(setting, first), seconds(setting, second)) for _ in range(pairs + 1)][1:]


def ratios(times: list[tuple[float, float]]) -> list[float]:
    """Lower quartile, median and upper quartile of second over first."""
    return statistics.quantiles((b / a for a, b in times), n=4, method="inclusive")


def compare(setting: Setting, batch: TaskBatch, names: list[str], pairs: int) -> dict[str, Any]:
    """Every algorithm's ratios to the supervised step."""
    floor, chunk, side_by_side = fastest(setting, batch)
    eager = replace(setting, graph=False, workers=1)  # a recording's memory stays, and the meter sees one thread
    floor_peak = peak_mib(setting, *supervised(eager, batch[:1], IMAGES_PER_TASK))
    result: dict[str, Any] = {
        "time_ratio": {}, "time_ratio_quartiles": {}, "memory_ratio": {}, "device": str(setting.device),
        "cuda_graph": setting.graph, "precision": "bf16" if setting.bf16 else "fp32",
        "threads": torch.get_num_threads(),
        "supervised_chunk": chunk, "supervised_side_by_side": side_by_side,
        "supervised_peak_mib_of_one_task": floor_peak, "supervised_seconds": {}, "seconds": {}, "peak_mib": {},
    }  # fmt: skip
    for name in names:
        same = name.endswith("_same_chunk")
        way: dict[str, Any] = {"chunk": max(1, chunk // IMAGES_PER_TASK), "side_by_side": side_by_side} if same else {}

        def build(within: Setting, name: str = name, way: dict[str, Any] = way) -> tuple[Step, list[Any]]:
            if name == HALVES:
                return supervised(within, batch, IMAGES_PER_TASK // 2, side_by_side)
            return meta(within, batch, name, **way)

        step = build(setting)[0]
        times = alternating(setting, floor, step, pairs)
        result["supervised_seconds"][name] = statistics.median(a for a, _ in times)
        result["seconds"][name] = statistics.median(b for _, b in times)
        low, result["time_ratio"][name], high = ratios(times)
        result["time_ratio_quartiles"][name] = [low, high]
        result["peak_mib"][name] = peak_mib(setting, *build(eager))
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
    """The comparison that the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=11)
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--filters", type=int, default=64)
    parser.add_argument("--algorithms", default=",".join([HALVES, *ALGORITHMS]))
    parser.add_argument("--graph", action="store_true", help="on a GPU, both sides as CUDA graphs, Adam apart")
    options = parser.parse_args(arguments)
    workers = options.threads if options.device == "cpu" else 1
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    torch.backends.cudnn.allow_tf32 = False
    setting = Setting(
        torch.device(options.device),
        options.precision == "bf16",
        options.filters,
        options.tasks,
        workers,
        options.graph,
    )
    images = load_split(SyntheticConfig(classes=64, images_per_class=600), "train").to(setting.device)
    batch = EpisodeSampler(images, "train", 0, WAYS, SHOTS, QUERIES).draw(0, options.tasks)
    return compare(setting, batch, options.algorithms.split(","), options.pairs)


if __name__ == "__main__":
    print(json.dumps(run()))
