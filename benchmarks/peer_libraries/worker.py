"""The process of one library, `python -m benchmarks.peer_libraries.worker LIBRARY`. Each line is a JSON request or
reply.

    {"do": "load", "file", "algorithm", "settings", "dtype", "tuned"}    builds the train step
    {"do": "gradient", "to": PATH}    stores the meta-gradient by parameter name
    {"do": "step"}                    returns the seconds of one train step
    {"do": "peak"}                    returns the peak MiB of tensors above the baseline during one

The first reply needs no request: {"value": {"version", "algorithms", "torch"}}. A failure is {"error": one line}.
"""

import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import nn

from benchmarks.peer_libraries.problem import Settings, Step, describe, gradients, load_problem, module_version
from memmeta_exp.profiling.peak_memory import measure_peak


class Worker:
    """Holds the train step loaded last, and answers requests about it."""

    def __init__(self, library: str) -> None:
        name = "ours" if library == "ours" else f"using_{library}"
        self.side: Any = importlib.import_module(f"benchmarks.peer_libraries.{name}")
        self.model: nn.Module = nn.Module()
        self.step: Step = lambda: None
        self.data: Any = None
        self.learned = True

    def hello(self) -> dict[str, Any]:
        algorithms, version = list(self.side.ALGORITHMS), module_version(self.side.LIBRARY)
        return {"version": version, "algorithms": algorithms, "torch": torch.__version__}

    def load(self, file: str, algorithm: str, settings: dict[str, Any], dtype: str, tuned: bool) -> None:
        kind, s = getattr(torch, dtype), Settings(**settings)
        if hasattr(self.side, "load"):
            self.model, self.step = self.side.load(Path(file), algorithm, s, kind)
        else:
            problem = load_problem(Path(file), s, kind, tuned)
            self.model, self.step, self.data = problem.model, self.side.ALGORITHMS[algorithm](problem), problem.tasks
        self.learned = s.learned

    def gradient(self, to: str) -> None:
        self._clear()
        self.step()
        found = gradients(self.model)
        if not self.learned:
            found.pop("head_start", None)  # peers that unroll compute this gradient even if the start is not learned
        torch.save(found, to)

    def seconds(self) -> float:
        begin = time.perf_counter()
        self._clear()
        self.step()
        return time.perf_counter() - begin

    def peak(self) -> float:
        self._clear()  # else gradients of an earlier step would count in the baseline
        tensors = [vars(task) for task in self.data or ()]
        return measure_peak(self.step, "cpu", (self.model, tensors))[1].above_baseline_mib

    def _clear(self) -> None:
        self.model.zero_grad(set_to_none=True)


def serve(requests: TextIO, replies: TextIO, library: str) -> None:
    """Answers requests until `requests` ends. Returns at once if the library cannot be imported."""

    def answer(work: Callable[[], Any]) -> Any:
        value, failure = None, None
        try:
            value = work()
        except Exception as error:  # noqa: BLE001 - any error of the library is reported as its result
            traceback.print_exc()
            failure = describe(error)
        replies.write(json.dumps({"error": failure} if failure else {"value": value}) + "\n")
        replies.flush()
        return value

    workers: list[Worker] = []

    def start() -> dict[str, Any]:
        workers.append(Worker(library))
        return workers[0].hello()

    if answer(start) is None:
        return
    worker = workers[0]
    known = {"load": worker.load, "gradient": worker.gradient, "step": worker.seconds, "peak": worker.peak}
    for line in requests:
        request = json.loads(line)
        action = known[request.pop("do")]
        answer(lambda action=action, request=request: action(**request))


def main() -> None:
    # redirect what a library prints to the log, so that standard output has only replies
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    serve(sys.stdin, replies, sys.argv[1])


if __name__ == "__main__":
    main()
