"""The speed-up by several ranks, measured on this machine and modelled for GPUs: `make bench-scaling`.

Measured: the tasks of one iteration (Conv4, 5-way 5-shot, 32x32, `proposed`) on 1, 2, 4, .. ranks of one thread each,
up to the number of cores or `--ranks`. One group of processes runs all sizes in turn while the idle ranks sleep, so
other work on the machine affects all alike. Times are medians of `--rounds` rounds, ratios are medians of the rounds'
ratios. Waiting is the time that the fastest rank waits for the slowest. Communication is the rest of an iteration after
the slowest rank's work: exchanging the status, gathering the report, summing the meta-gradient. processor: the largest
CPU time of a rank, over all its threads; on shared cores, wall-clock times also depend on the scheduler.

Modelled: an iteration of B tasks on N GPUs. Tasks are divided among GPUs; communication does not overlap with them:

    T(N) = host + ceil(B / N) t + control(N) + ring(N)
    ring(N) = base + 2 (N - 1) latency + 2 (N - 1) / N bytes / bandwidth

t: seconds per task, from its counted floating-point operations. host: time of an iteration that does not depend on the
number of tasks. control: three calls between hosts over gloo (two exchanges of the status, the report). bytes: of the
meta-gradient, 4 per parameter. Rings within one machine use NVLink's numbers, larger rings the network's. ASSUMED has
every number and its source. The last line is JSON.
"""

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.utils.flop_counter import FlopCounterMode

from memmeta_exp.algorithms import Execution, Learner, build_algorithm
from memmeta_exp.algorithms.proposed import ProposedConfig
from memmeta_exp.backbones import build_model
from memmeta_exp.backbones.conv4 import Conv4Config
from memmeta_exp.backbones.resnet12 import Resnet12Config
from memmeta_exp.data import EpisodeSampler, load_split
from memmeta_exp.data.datasets import SyntheticConfig
from memmeta_exp.distributed.launch_env import RankInfo
from memmeta_exp.distributed.process_group import Group
from memmeta_exp.training.data_parallel import ShardedLearner

SETTINGS = {"Conv4-64, 32x32": (Conv4Config(), 32), "ResNet-12, 84x84": (Resnet12Config(), 84)}
GPUS, BATCHES = (8, 64, 512), (8, 64, 512, 4096)
PAYS = 0.5  # fraction of the ideal speed; below it, a GPU is idle or communicating more than half of the time
WORTH = 0.8
CALLS = 3


@dataclass(frozen=True)
class Assumed:
    """The assumed machines: H100 SXM with 8 GPUs each.

    flops: 66.9e12 in float32 without tensor cores (published peak of the H100; memmeta leaves TF32 off). use: the
    fraction of it that these networks reach, a guess. nvlink: 900 GB/s for both directions (published), half of it for
    one. network: one ConnectX-7 of 400 Gb/s per GPU (DGX H100 user guide). The latencies of a ring step and the base
    time of a call are constants of NCCL's cost model (src/graph/tuning.cc, hwLat and baseLat of the protocol LL, which
    has half the bandwidth). host_s: some hundred kernel launches, a guess. gloo_hop_s: one TCP message between hosts, a
    guess; a call takes log2(ranks) of them. wait_s: the wait for the GPU to read the report, a guess.
    """

    flops: float = 66.9e12
    use: float = 0.3
    machine: int = 8
    nvlink_bytes_per_second: float = 450e9
    network_bytes_per_second: float = 50e9
    nvlink_latency_s: float = 0.6e-6
    network_latency_s: float = 2.7e-6
    base_s: float = 6.6e-6
    host_s: float = 2e-3
    gloo_hop_s: float = 50e-6
    wait_s: float = 50e-6


ASSUMED = Assumed()


@dataclass(frozen=True)
class Load:
    """The load of an iteration: operations per task, bytes of the meta-gradient."""

    task_flops: float
    gradient_bytes: int


def ring_seconds(gpus: int, size: int, a: Assumed = ASSUMED) -> float:
    """Seconds of an all-reduce of `size` bytes over a ring of `gpus`, with the faster of two protocols: low latency at
    half the bandwidth, or full bandwidth at five times the latency."""
    if gpus == 1:
        return 0.0
    inside = gpus <= a.machine
    latency = a.nvlink_latency_s if inside else a.network_latency_s
    bandwidth = a.nvlink_bytes_per_second if inside else a.network_bytes_per_second
    hops, carried = 2 * (gpus - 1), 2 * (gpus - 1) / gpus * size
    return a.base_s + min(hops * latency + 2 * carried / bandwidth, hops * 5 * latency + carried / bandwidth)


def iteration_seconds(gpus: int, batch: int, load: Load, a: Assumed = ASSUMED) -> float:
    """T(N) of the module docstring."""
    task = load.task_flops / (a.flops * a.use)
    control = a.wait_s + CALLS * math.log2(gpus) * a.gloo_hop_s if gpus > 1 else 0.0
    return a.host_s + math.ceil(batch / gpus) * task + control + ring_seconds(gpus, load.gradient_bytes, a)


def efficiency(gpus: int, batch: int, load: Load, a: Assumed = ASSUMED) -> float:
    """T(1) / (N T(N)): 1 where N GPUs are N times as fast."""
    return iteration_seconds(1, batch, load, a) / (gpus * iteration_seconds(gpus, batch, load, a))


def tasks_for(gpus: int, least: float, load: Load, a: Assumed = ASSUMED) -> int:
    """The smallest number of tasks per GPU with an efficiency of at least `least`."""
    return next(each for each in range(1, 10**6) if efficiency(gpus, each * gpus, load, a) >= least)


def stops_paying(batch: int, load: Load, a: Assumed = ASSUMED) -> int:
    """The largest power of two of GPUs, at most `batch`, with an efficiency of at least PAYS."""
    sizes = [2**k for k in range(int(math.log2(batch)) + 1)]
    return max(n for n in sizes if efficiency(n, batch, load, a) >= PAYS)


def load_of(name: str) -> Load:
    """The load of an algorithm, counted in one train step on one task on the CPU."""
    backbone, size = SETTINGS[name]
    learner, sampler = _learner(backbone, size)
    with FlopCounterMode(display=False) as counter:
        learner.step(sampler.draw(0, 1))
    return Load(counter.get_total_flops(), 4 * sum(p.numel() for p in learner.model.parameters()))


def _learner(backbone: Any, size: int) -> tuple[Learner, EpisodeSampler]:
    images = load_split(SyntheticConfig(classes=10, images_per_class=12, image_size=size), "train")
    model = build_model(backbone, 3, size, 5, learned=False, seed=0)
    return build_algorithm(ProposedConfig(), model, Execution()), EpisodeSampler(images, "train", 0, 5, 5, 5)


def worker(rank: int, options: argparse.Namespace, counts: list[int], store: str, out: Any) -> None:
    """One process of the group. Rank 0 puts the measured rounds into `out`."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=max(counts))
    inner, sampler = _learner(Conv4Config(), 32)
    learners = {1: inner}
    for n in counts[1:]:
        control = dist.new_group(list(range(n)), backend="gloo")
        learners[n] = ShardedLearner(inner, Group(RankInfo(n, rank, rank, n), control)) if rank < n else inner
    rounds = [
        {n: _timed(learners[n], n, rank, sampler, k * options.tasks, options.tasks) for n in counts}
        for k in range(options.rounds + 1)
    ]
    if rank == 0:
        out.put(rounds[1:])
    dist.destroy_process_group()


def _timed(learner: Learner, n: int, rank: int, sampler: EpisodeSampler, at: int, tasks: int) -> dict[str, float]:
    """Times of one iteration on the first `n` ranks; its seconds are those of the slowest rank."""
    learner.model.zero_grad(set_to_none=True)
    dist.barrier()
    work, total, processor = 0.0, 0.0, 0.0
    if rank < n:
        inner = learner.inner if isinstance(learner, ShardedLearner) else learner
        batch = sampler.draw(at, tasks)
        with _Watched(inner) as watch:
            start, used = time.perf_counter(), time.process_time()
            learner.step(batch)
            total, processor = time.perf_counter() - start, time.process_time() - used
        work = watch[0] if n > 1 else total
    most = torch.tensor([total, work, processor], dtype=torch.float64)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    least = torch.tensor([work if rank < n else math.inf], dtype=torch.float64)
    dist.all_reduce(least, dist.ReduceOp.MIN)
    seconds, work, processor = most.tolist()
    return {"seconds": seconds, "work": work, "least_work": float(least), "processor": processor}


class _Watched:
    """Records the seconds of `learner`.step in the block, in a list with one entry."""

    def __init__(self, learner: Learner) -> None:
        self.learner = learner

    def __enter__(self) -> list[float]:
        real: Callable[[Any], Any] = self.learner.step
        found = [0.0]

        def step(batch: Any) -> Any:
            start = time.perf_counter()
            report = real(batch)
            found[0] = time.perf_counter() - start
            return report

        self.learner.step = step  # pyright: ignore[reportAttributeAccessIssue]
        return found

    def __exit__(self, *_: object) -> None:
        del self.learner.step


def measured(options: argparse.Namespace) -> list[dict[str, float]]:
    """Measures one row per number of ranks."""
    counts = [2**k for k in range(int(math.log2(options.ranks)) + 1)]
    context = mp.get_context("spawn")
    out = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        arguments = [(rank, options, counts, f"{folder}/store", out) for rank in range(max(counts))]
        processes = [context.Process(target=worker, args=one) for one in arguments]
        for process in processes:
            process.start()
        rounds = out.get(timeout=600)
        for process in processes:
            process.join()
    return [_row(n, rounds) for n in counts]


def _row(n: int, rounds: list[dict[int, dict[str, float]]]) -> dict[str, float]:
    def median(value: Callable[[dict[int, dict[str, float]]], float]) -> float:
        return statistics.median(map(value, rounds))

    return {
        "ranks": n,
        "seconds": median(lambda r: r[n]["seconds"]),
        "speedup": median(lambda r: r[1]["seconds"] / r[n]["seconds"]),
        "processor_seconds": median(lambda r: r[n]["processor"]),
        "processor_speedup": median(lambda r: r[1]["processor"] / r[n]["processor"]),
        "waiting_share": median(lambda r: (r[n]["work"] - r[n]["least_work"]) / r[n]["seconds"]),
        "communication_ms": 1000 * median(lambda r: r[n]["seconds"] - r[n]["work"]) if n > 1 else 0.0,
        "communication_share": median(lambda r: 1 - r[n]["work"] / r[n]["seconds"]) if n > 1 else 0.0,
    }


def modelled(loads: dict[str, Load]) -> list[dict[str, Any]]:
    """Models one row per network and number of GPUs."""
    return [
        {
            "network": name,
            "gradient_mb": load.gradient_bytes / 1e6,
            "task_ms": 1000 * load.task_flops / (ASSUMED.flops * ASSUMED.use),
            "gpus": n,
            "communication_ms": 1000 * (iteration_seconds(n, n, load) - iteration_seconds(1, 1, load)),
            "efficiency_1_task_each": efficiency(n, n, load),
            "tasks_each_for_0.5": tasks_for(n, PAYS, load),
            "tasks_each_for_0.8": tasks_for(n, WORTH, load),
        }
        for name, load in loads.items()
        for n in GPUS
    ]


def ends(loads: dict[str, Load]) -> list[dict[str, Any]]:
    """`stops_paying` for each network and batch."""
    return [
        {"network": name, "batch": batch, "stops_paying_at": stops_paying(batch, load)}
        for name, load in loads.items()
        for batch in BATCHES
    ]


def _print(rows: list[dict[str, Any]]) -> None:
    print("| " + " | ".join(rows[0]) + " |", flush=True)
    for row in rows:
        print(
            "| " + " | ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()) + " |", flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--ranks", type=int, default=min(8, len(os.sched_getaffinity(0))))
    options = parser.parse_args()
    tables: dict[str, Any] = {"measured": measured(options)}
    _print(tables["measured"])
    loads = {name: load_of(name) for name in SETTINGS}
    tables |= {"modelled": modelled(loads), "stops_paying": ends(loads)}
    _print(tables["modelled"])
    _print(tables["stops_paying"])
    print(json.dumps({**tables, "assumed": asdict(ASSUMED)}))


if __name__ == "__main__":
    main()
