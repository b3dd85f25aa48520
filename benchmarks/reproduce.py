"""A short reproduction of the results: `make reproduce`, within 15 minutes on 2 cores.

It trains the best recipe on CIFAR-FS for a fraction of its length and tests it. It passes if the accuracy is at least
64.24 %, which the paper reports for its method after 64,000 training tasks. KEY=VALUE arguments are passed to `memmeta
train`. Exit codes: 0 reached, 1 not reached or the run failed, 2 it cannot be run (it needs CIFAR-FS: memmeta data
fetch cifar100).
"""

import json
import sys
import time
from pathlib import Path

from memmeta_exp.cli import main as memmeta

QUICK = (
    "experiment=best/cifar_fs", "iterations=700", "training.ways=32", "eval_every=700", "val_tasks=50",
    "test_tasks=600",
)  # fmt: skip
MUST_REACH = 0.6424


def main(arguments: list[str]) -> int:
    if any(not a.partition("=")[1] or a.startswith("-") for a in arguments):
        print(f"{__doc__}\nArguments: KEY=VALUE, as of memmeta train.")
        return 0 if {"-h", "--help"} & set(arguments) else 2
    folder = Path("outputs") / "reproduce" / time.strftime("%Y-%m-%d_%H-%M-%S")
    print(f"memmeta train {' '.join([*QUICK, *arguments])}", flush=True)
    print(f"about two minutes on a recent processor, in {folder}", flush=True)
    began = time.perf_counter()
    code = memmeta(["train", *QUICK, f"hydra.run.dir={folder}", *arguments])
    if code:
        return code
    seconds, summary = time.perf_counter() - began, json.loads((folder / "summary.json").read_text())
    accuracy = summary["test/acc"]
    verdict = "reached" if accuracy >= MUST_REACH else "NOT REACHED"
    print(
        f"{verdict}: test accuracy {accuracy:.2%} +- {summary['test/acc_ci95']:.2%}, at least {MUST_REACH:.2%} "
        f"asked for; {summary['tasks_seen']:,} training tasks, {seconds:.0f} s in all"
    )
    return int(accuracy < MUST_REACH)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
