"""Time and memory of the head of `proposed`, with and without the support space: `make bench-head`.

The process alternates between `Proposed.feature_gradient` with its defaults (Newton's method, a direct linear solve, mu
0.1) and `benchmarks/head_reference.py`, which solves the same with an nC x nC system. It uses one thread and measures
the CPU time of that thread, so other processes have little effect. Features are random clusters of one task, float32,
with 5 queries per class. Each row has as many pairs as fit in `--seconds`, at least 3; the first is left out. Times are
medians; ratios are medians of the pairs' ratios, with quartiles. Peaks are of live tensors above the features, from a
separate call. `apart` is the relative distance of the two gradients by the support features.

A second table has the reported residuals and the errors of the gradients by the support features against kappa =
L_g / mu: with the default tolerance of |d_phi g|, and after 50 steps.

The last line is JSON: {"ratio": {"5w1s": .., ..}, ..}, new over old for `--features`' first number. Goals: at most 0.5
at 5w5s, 1/15 at 20w5s, 1/100 at 64w1s.
"""

import argparse
import json
import re
import statistics
import time
from typing import Any

import torch
from torch import Tensor

from benchmarks import head_reference
from benchmarks.arguments import at_least
from memmeta_exp.algorithms.feature_space import FeatureGradient
from memmeta_exp.algorithms.proposed import Proposed, ProposedConfig
from memmeta_exp.profiling.peak_memory import measure_peak
from memmeta_exp.utils.malloc import keep_freed_memory

CASES = "5w1s,5w5s,10w5s,20w5s,64w1s"
KAPPAS = (1e2, 1e4, 1e6, 1e8)
TOLERANCES = (1e-4, 1e-12)
QUERIES, MU = 5, 0.1
Half = tuple[Tensor, Tensor]
Task = tuple[Half, Half, Tensor]


def task(ways: int, shots: int, features: int, dtype: torch.dtype = torch.float32) -> Task:
    """Support and query, each features [1, n, d] and labels [1, n], and phi_0 = 0."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(ways, features, generator=generator)

    def half(each: int) -> Half:
        labels = torch.arange(ways).repeat_interleave(each)
        noise = torch.randn(len(labels), features, generator=generator)
        return (centres[labels] / 2 + noise).relu()[None].to(dtype), labels[None]

    return half(shots), half(QUERIES), torch.zeros(ways, features + 1, dtype=dtype)


def new(given: Task, mu: float = MU, **options: Any) -> FeatureGradient:
    return Proposed(ProposedConfig(mu=mu, **options)).feature_gradient(*given, {})


def old(given: Task, mu: float = MU, **options: Any) -> FeatureGradient:
    return head_reference.feature_gradient(*given, mu, **options)


def timed(function: Any, given: Task) -> float:
    begin = time.thread_time()
    function(given)
    return time.thread_time() - begin


def distance(found: Tensor, true: Tensor) -> float:
    return float((found - true).norm() / true.norm())


def measured(ways: int, shots: int, features: int, seconds: float) -> dict[str, Any]:
    """One row of the first table."""
    given = task(ways, shots, features)
    first = timed(old, given) + timed(new, given)
    pairs = [(timed(old, given), timed(new, given)) for _ in range(max(3, min(300, int(seconds / first))))]
    low, ratio, high = statistics.quantiles((b / a for a, b in pairs), n=4, method="inclusive")
    peaks = [measure_peak(lambda f=f: f(given), "cpu", given)[1].above_baseline_mib for f in (old, new)]
    return {
        "ratio": ratio,
        "quartiles": [low, high],
        "old_ms": 1e3 * statistics.median(a for a, _ in pairs),
        "new_ms": 1e3 * statistics.median(b for _, b in pairs),
        "old_peak_mib": peaks[0],
        "new_peak_mib": peaks[1],
        "apart": distance(new(given).d_support, old(given).d_support),
        "pairs": len(pairs),
    }


def residuals(ways: int, shots: int, features: int, kappa: float, tolerance: float) -> dict[str, list[float]]:
    """The reported residuals of old and new, and the errors of their gradients against a fully solved lower level in
    float64. mu is chosen so that L_g / mu = `kappa`. tolerance: of |d_phi g|."""
    given, wide = task(ways, shots, features), task(ways, shots, features, torch.float64)
    mu = float(new(given).smoothness[0] - MU) / (kappa - 1)
    true = new(wide, mu, inner_tolerance=1e-6 * mu, inner_steps=100)
    both = [solve(given, mu, inner_tolerance=tolerance, inner_steps=50) for solve in (old, new)]
    return {
        "inner": [float(found.inner.residual[0]) for found in both],
        "linear": [float(found.linear.residual[0]) for found in both if found.linear is not None],
        "error": [distance(found.d_support.double(), true.d_support) for found in both],
    }


def sizes(text: str) -> tuple[int, int]:
    """(ways, shots) of a text such as 5w1s."""
    match = re.fullmatch(r"([1-9]\d*)w([1-9]\d*)s", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no task: write 5w1s for 5 ways and 1 shot")
    return int(match[1]), int(match[2])


def compare(cases: list[str], features: list[int], seconds: float) -> dict[str, Any]:
    """Measures and prints every row of both tables."""
    rows: dict[str, Any] = {}
    print("task     d     old ms    new ms  ratio   quartiles         old MiB  new MiB  apart")
    for name in cases:
        for d in features:
            row = rows[f"{name} d={d}"] = measured(*sizes(name), d, seconds)
            low, high = row["quartiles"]
            print(
                f"{name:6} {d:5d} {row['old_ms']:9.2f} {row['new_ms']:9.2f}  {row['ratio']:.4f}"
                f"  [{low:.4f}, {high:.4f}] {row['old_peak_mib']:7.2f} {row['new_peak_mib']:8.2f}  {row['apart']:.0e}",
                flush=True,
            )
    ways, shots = sizes(cases[min(1, len(cases) - 1)])
    found: dict[str, Any] = {}
    print(f"\n{'kappa':8} {'tolerance':10} |d_phi g|, old and new   residual of v             error of dF/dz_s")
    for kappa in KAPPAS:
        for tolerance in TOLERANCES:
            row = found[f"{kappa:.0e}, {tolerance:.0e}"] = residuals(ways, shots, features[0], kappa, tolerance)
            numbers = (f"{row[key][0]:.1e}  {row[key][1]:.1e}" for key in ("inner", "linear", "error"))
            print(f"{kappa:<8.0e} {tolerance:<10.0e}", "          ".join(numbers))
    ratio = {name: rows[f"{name} d={features[0]}"]["ratio"] for name in cases}
    return {"ratio": ratio, "rows": rows, "residuals": found, "torch": torch.__version__}


def run(arguments: list[str] | None = None) -> dict[str, Any]:
    """Runs the comparison with the command-line `arguments`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=CASES)
    parser.add_argument("--features", default="256,1600")
    parser.add_argument("--seconds", type=at_least(0), default=10, help="for each row, about")
    options = parser.parse_args(arguments)
    cases = options.cases.split(",")
    try:
        features = [at_least(1)(text) for text in options.features.split(",")]
        for name in cases:
            sizes(name)
    except (argparse.ArgumentTypeError, ValueError) as error:
        parser.error(str(error))
    keep_freed_memory()
    torch.set_num_threads(1)
    return compare(cases, features, options.seconds)


if __name__ == "__main__":
    print(json.dumps(run()))
