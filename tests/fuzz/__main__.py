"""`python -m tests.fuzz [stride=N] [GROUP ...]`: prints each fault as it is found, and the figures of every group."""

import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.groups import GROUPS, made
from tests.fuzz.harness import fuzzing, judged


def main(arguments: list[str]) -> int:
    """Runs the groups that are named, else all; returns whether there was a fault."""
    stride = next((int(a.partition("=")[2]) for a in arguments if a.startswith("stride=")), 1)
    names = [a for a in arguments if "=" not in a] or list(GROUPS)
    bad = 0
    with tempfile.TemporaryDirectory() as folder, fuzzing(Path(folder) / "cases") as fuzzer:
        bases = made(fuzzer, Path(folder) / "bases", names)
        for name in names:
            start, count, found = time.perf_counter(), 0, 0
            for case, wrong in judged(fuzzer, GROUPS[name](bases), stride):
                count += 1
                if wrong:
                    found += 1
                    print(f"  {case} | {wrong}", flush=True)
            print(f"{name}: {count} cases, {found} faults, {time.perf_counter() - start:.0f} s", flush=True)
            bad += found
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
