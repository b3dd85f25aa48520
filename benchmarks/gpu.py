"""All GPU benchmarks in one command: `make bench-gpu`. To try it without a GPU: ARGS="--device cpu --small".

1  the floor (benchmarks/floor.py) in fp32 and bf16 (goal for `proposed`: at most 1.15 of a supervised step)
2  time and memory of `proposed` against the tasks of a backbone pass, at 32x32 (64 filters) and 84x84 (32 filters)
3  `proposed` (K = N = 20) against the released step structure (benchmarks/released.py) at 32 tasks (goal: 30 times as
   fast)
4  prediction against measurement: for every algorithm at 32x32 (64 filters) and 84x84 (32 filters), K in 5, 10, 15, 20
   and B in 1, 32, the tensor peak that `memmeta profile predict=cuda` predicts beside requested bytes and
   max_memory_allocated of a real iteration on synthetic images (goal: requested bytes within 3 %)

Part 4 starts no row after `--minutes`; the file says how many it left out. It writes gpu.json and gpu.md to `--out`
(docs/results by default, on a CPU outputs/gpu) after each part, so that a cut-off loses nothing. On a CPU the tensor
meter takes the place of CUDA's counters, and the file says so.
"""

import argparse
import gc
import json
import statistics
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import torch

from benchmarks import floor
from benchmarks.arguments import found_device, names
from benchmarks.released import released_step
from memmeta_exp.algorithms import Execution, build_algorithm
from memmeta_exp.algorithms.proposed import ProposedConfig
from memmeta_exp.backbones import build_model
from memmeta_exp.backbones.conv4 import Conv4Config
from memmeta_exp.config import Config
from memmeta_exp.config.compose import jobs
from memmeta_exp.data import EpisodeSampler, load_split
from memmeta_exp.data.datasets import SyntheticConfig
from memmeta_exp.experiment.builder import build
from memmeta_exp.experiment.optimizers import build_optimizer
from memmeta_exp.experiment.profile import profile
from memmeta_exp.experiment.train_step import TrainStep
from memmeta_exp.memory.predict import predict
from memmeta_exp.profiling.peak_memory import MIB, measure_peak

PARTS = ("floor", "passes", "released", "memory")
CHUNKS = (1, 2, 4, 8, 16, 32)
HOPPER = 9  # lowest compute capability with the larger cuBLAS workspace

CASES = {
    "proposed": ["algorithm=proposed"],
    "proposed gd+cg": ["algorithm=proposed", "algorithm.inner_solver=gd", "algorithm.linear_solver=cg"],
    "proposed half_task": ["algorithm=proposed", "memory.mode=half_task"],
    "anil": ["algorithm=anil"],
    "anil recompute": ["algorithm=anil", "algorithm.features=recompute"],
    "itd_bio": ["algorithm=itd_bio"],
    "itd_bio recompute": ["algorithm=itd_bio", "algorithm.features=recompute"],
    "fomaml": ["algorithm=fomaml"],
    "maml": ["algorithm=maml"],
    "maml checkpoint": ["algorithm=maml", "memory.checkpoint=inner_step"],
    "imaml": ["algorithm=imaml"],
}
SIZES = {32: 64, 84: 32}  # image size: filters


def case(name: str, size: int, steps: int, tasks: int, options: argparse.Namespace) -> Config:
    filters = 4 if options.small else SIZES[size]
    (config,) = jobs(
        [
            *CASES[name], f"device={options.device}", "dataset=synthetic", f"dataset.image_size={size}",
            "tasks_per_pass=1", f"backbone.filters={filters}", f"algorithm.inner_steps={steps}", f"batch_size={tasks}",
            "threads=1", "tracking=disabled", f"backbone.block={options.block}",
        ],
        multirun=False,
    )  # fmt: skip
    return config


def compared(name: str, size: int, steps: int, tasks: int, options: argparse.Namespace) -> dict[str, Any]:
    """One row: predicted and measured MiB above persistent tensors, and the allocator's maximum."""
    config = case(name, size, steps, tasks, options)
    row: dict[str, Any] = {"case": name, "image_size": size, "inner_steps": steps, "batch_size": tasks}
    foretold = predict(replace(config, device="cuda"))
    hopper = options.device != "cpu" and torch.cuda.get_device_capability(options.device)[0] >= HOPPER
    row["predicted_mib"] = foretold.above_baseline_mib
    row["predicted_allocated_mib"] = foretold.allocated(hopper) / MIB
    row["unsplit_at_most_mib"] = foretold.unsplit_at_most / MIB
    try:
        experiment = build(config)
        optimizer, _ = build_optimizer(config, experiment.model)
        iteration = TrainStep(experiment, optimizer)
        for t in (1, 2, 3):
            iteration.clear()
            _, peak = measure_peak(lambda t=t: iteration(t), experiment.device, iteration.persistent())
    except torch.OutOfMemoryError:
        row["measured_mib"] = None
        row["note"] = "out of memory"
        return row
    row |= {"measured_mib": peak.above_baseline_mib, "peak_mib": peak.absolute_mib, "kind": peak.kind}
    row["error"] = row["predicted_mib"] / row["measured_mib"] - 1
    row["allocated_error"] = row["predicted_allocated_mib"] / row["peak_mib"] - 1
    if experiment.device.type == "cuda":
        row["reserved_mib"] = torch.cuda.max_memory_reserved() / MIB
    return row


def memory(options: argparse.Namespace) -> dict[str, Any]:
    """The rows of part 4, and how many the time did not suffice for; the extremes of K and B come first."""
    sizes, steps, batches = ((32,), (2,), (1, 2)) if options.small else ((32, 84), (5, 20, 10, 15), (1, 32))
    wanted = list(product(steps, batches, sizes, CASES))
    rows = []
    for k, tasks, size, name in wanted:
        if time.monotonic() > options.deadline:
            break
        rows.append(compared(name, size, k, tasks, options))
        print(rows[-1], flush=True)
        _free(options)
    return {"memory": rows, "memory_left_out": len(wanted) - len(rows)}


def passes(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds and peak of an iteration of `proposed` against the tasks of a backbone pass, `auto` beside them."""
    batch, repeats = (2, 2) if options.small else (CHUNKS[-1], 10)
    rows = []
    for size, chunk in product((32,) if options.small else SIZES, ("auto", *(c for c in CHUNKS if c <= batch))):
        config = replace(case("proposed", size, 20, batch, options), tasks_per_pass=chunk)
        experiment = build(config)
        row = {"image_size": size, "tasks_per_pass": chunk, "tasks": experiment.learner.tasks_per_pass}
        try:
            found = profile(experiment, repeats)
            row |= {"seconds": found.step_seconds, "above_baseline_mib": found.peak.above_baseline_mib}
        except torch.OutOfMemoryError:
            row["note"] = "out of memory"
        rows.append(row)
        print(row, flush=True)
        _free(options)
    return rows


def _free(options: argparse.Namespace) -> None:
    gc.collect()
    if options.device != "cpu":
        torch.cuda.empty_cache()


def released_ratio(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of the released structure and of `proposed` on the same tasks, with K = N = 20 and mu = 0. Conjugate
    gradients of `proposed` may stop early at non-positive curvature; they take a few percent of its step."""
    tasks, rounds, filters = (2, 2, 4) if options.small else (32, 10, 64)
    device = torch.device(options.device)
    images = load_split(SyntheticConfig(classes=64, images_per_class=600), "train").to(device)
    batch = EpisodeSampler(images, "train", 0, 5, 5, 5).draw(0, tasks)
    plain = build_model(Conv4Config(filters=filters, block="plain"), 3, 32, 5, learned=False, seed=0).to(device)
    fused = build_model(Conv4Config(filters=filters), 3, 32, 5, learned=False, seed=0).to(device)
    config = ProposedConfig(
        mu=0.0, inner_solver="gd", inner_lr=0.1, inner_tolerance=None, linear_solver="cg", linear_tolerance=None
    )
    learner = build_algorithm(config, fused, Execution(1 if device.type == "cpu" else tasks))
    steps = (lambda: released_step(plain, batch, 20, 0.1, 20), lambda: learner.step(batch))
    models = (plain, fused)
    seconds = [tuple(_seconds(*side) for side in zip(steps, models, strict=True)) for _ in range(rounds + 1)][1:]
    ratio = statistics.median(a / b for a, b in seconds)
    a, b = (statistics.median(pair[i] for pair in seconds) for i in (0, 1))
    return {"tasks": tasks, "released_seconds": a, "proposed_seconds": b, "times_as_fast": ratio}


def _seconds(step: Any, model: torch.nn.Module) -> float:
    model.zero_grad(set_to_none=True)
    if next(model.parameters()).is_cuda:
        torch.cuda.synchronize()
    begin = time.perf_counter()
    step()
    if next(model.parameters()).is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def table(result: dict[str, Any]) -> str:
    """The content of gpu.md."""
    lines = [
        f"# Measured on {result['device_name']}",
        "",
        f"torch {result['torch']}. `make bench-gpu`, see benchmarks/gpu.py.",
        "",
    ]
    if "memory" in result:
        lines += [
            "MiB above persistent tensors, predicted on meta tensors and measured; then the total peak, predicted",
            "without what unsplit blocks may add, and measured (on a CPU without the libraries' workspaces).",
            "",
            "| case | image | K | B | predicted | measured | error | peak, predicted | measured | error | counted by |",
            "|---|---|---|---|---|---|---|---|---|---|---|",
        ]  # fmt: skip
        for r in result["memory"]:
            where = (
                f"| {r['case']} | {r['image_size']} | {r['inner_steps']} | {r['batch_size']} | {r['predicted_mib']:.2f}"
            )
            if r["measured_mib"] is None:
                lines.append(f"{where} | {r['note']} | | | | | |")
            else:
                lines.append(
                    f"{where} | {r['measured_mib']:.2f} | {r['error']:+.2%} | {r['predicted_allocated_mib']:.1f} "
                    f"| {r['peak_mib']:.1f} | {r['allocated_error']:+.2%} | {r['kind']} |"
                )
        worst = max((abs(r["error"]) for r in result["memory"] if r["measured_mib"] is not None), default=0.0)
        lines += ["", f"Largest error: {worst:.2%}. Rows left out for want of time: {result['memory_left_out']}."]
    if "passes" in result:
        lines += [
            "",
            "`proposed`, K = 20, time and memory of an iteration against the tasks of a backbone pass:",
            "",
            "| image | tasks_per_pass | tasks | seconds | MiB above what persists |",
            "|---|---|---|---|---|",
        ]
        for r in result["passes"]:
            found = r.get("note") or f"{r['seconds']:.4f} | {r['above_baseline_mib']:.1f}"
            lines.append(f"| {r['image_size']} | {r['tasks_per_pass']} | {r['tasks']} | {found} |")
    for precision in ("fp32", "bf16"):
        if precision in result:
            f = result[precision]
            lines += [
                "",
                f"{precision}, against a supervised step on the same images:",
                "",
                "| algorithm | time | memory |",
            ]
            lines += ["|---|---|---|"]
            lines += [f"| {n} | {f['time_ratio'][n]:.3f} | {f['memory_ratio'][n]:.3f} |" for n in f["time_ratio"]]
    if "released" in result:
        r = result["released"]
        lines += [
            "",
            f"`proposed` at K = N = 20 is {r['times_as_fast']:.1f} times as fast as the released step structure "
            f"({r['tasks']} tasks: {r['proposed_seconds']:.4f} s against {r['released_seconds']:.4f} s).",
        ]
    return "\n".join([*lines, ""])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="seconds instead of minutes: tries the command")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--block", default="fused", choices=("fused", "plain"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--minutes", type=float, default=11.0, help="the time after which part 4 begins no further row")
    options = parser.parse_args(arguments)
    options.deadline = time.monotonic() + 60 * options.minutes
    device, parts = found_device(parser, options.device), names(parser, "part", options.parts, PARTS)
    options.out = options.out or Path("outputs/gpu" if device.type == "cpu" else "docs/results")
    torch.backends.cudnn.allow_tf32 = False
    if device.type == "cuda":
        torch.cuda.set_device(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU (no GPU figures)"
    result: dict[str, Any] = {"device": str(device), "device_name": name, "torch": torch.__version__}
    options.out.mkdir(parents=True, exist_ok=True)
    for part in parts:
        result |= run_part(part, options)
        (options.out / "gpu.json").write_text(json.dumps(result, indent=1))
        (options.out / "gpu.md").write_text(table(result))
    print(json.dumps({key: value for key, value in result.items() if key != "memory"}))


def run_part(part: str, options: argparse.Namespace) -> dict[str, Any]:
    if part == "memory":
        return memory(options)
    if part == "passes":
        return {"passes": passes(options)}
    if part == "released":
        return {"released": released_ratio(options)}
    small = ["--tasks", "2", "--filters", "4", "--pairs", "2", "--threads", "1"] if options.small else []
    return {p: floor.run(["--device", options.device, "--precision", p, *small]) for p in ("fp32", "bf16")}


if __name__ == "__main__":
    main()
