"""Train steps of this package and of other libraries: `make bench-peers`.

    learn2learn    MAML, FOMAML, ANIL, ITD-BiO
    TorchOpt       MAML, ANIL, ITD-BiO, iMAML, and the implicit gradient of the head (`proposed`)
    higher         MAML, FOMAML, ANIL, ITD-BiO

Each is installed into its own environment under --environments, with the same torch. If an installation fails, its
error is reported, and the others are compared. (hypertorch, a library of implicit gradients, is not on the package
index; the project of that name there is about hypergraphs.)

All get the same tasks and initial weights. First, each library's meta-gradient is compared with ours in float64, tensor
by tensor. If it differs by more than 1e-6, this is reported and the library is not timed. The timed step is zero_grad
and the meta-gradient, without an optimizer step, in --dtype. Libraries take turns, so a disturbance affects all. Peak
memory is measured by `memmeta_exp.profiling.peak_memory` in every process: MiB of tensors above parameters and data.
The peers' images are floats before the step; ours are gathered and converted within the step, which is included.

The last line is JSON. speedup: the median over rounds of (peer's seconds / ours), for the fastest peer. memory_ratio:
our peak / the lowest peak of a peer. Goal: a speedup of at least 1.5, a memory ratio of at most 1.
"""

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.arguments import at_least, names
from benchmarks.peer_libraries.environments import RECIPES, InstallError, python_of
from benchmarks.peer_libraries.problem import COMPARED, SETTINGS, Settings, gradient_error
from benchmarks.peer_libraries.processes import WorkerError, WorkerProcess
from memmeta_exp.backbones import build_model
from memmeta_exp.backbones.conv4 import Conv4Config
from memmeta_exp.data import EpisodeSampler, load_split
from memmeta_exp.data.cache import cache_folder
from memmeta_exp.data.datasets import SyntheticConfig
from memmeta_exp.tracking.environment import cpu_model

TOLERANCE = 1e-6  # relative, of a meta-gradient in float64
WARM_UP = 2  # untimed steps of each library before the first round
WAYS = SHOTS = QUERIES = 5


@dataclass
class Result:
    """One library's numbers for one algorithm. seconds: of each round. error: why there are none."""

    gradient_error: float | None = None
    peak_mib: float | None = None
    seconds: list[float] = field(default_factory=list)
    error: str | None = None

    def summary(self) -> dict[str, Any]:
        """The entry of the last line: the median of the rounds, and the error, if any."""
        median = statistics.median(self.seconds) if self.seconds else None
        found = {"seconds": median, "peak_mib": self.peak_mib, "gradient_error": self.gradient_error}
        return found if self.error is None else {**found, "error": self.error}


Results = dict[str, dict[str, Result]]  # algorithm -> library -> result


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=at_least(1), default=1, help="threads of every process (default 1)")
    parser.add_argument("--rounds", type=at_least(1), default=10)
    parser.add_argument("--tasks", type=at_least(1), default=8, help="tasks of a meta-step (default 8)")
    parser.add_argument("--filters", type=at_least(1), default=64)
    parser.add_argument("--image-size", type=at_least(16), default=32)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--peers", default=",".join(RECIPES), help="comma-separated; empty for our side alone")
    parser.add_argument("--algorithms", default=",".join(SETTINGS), help="comma-separated")
    parser.add_argument("--tuned-peers", action="store_true", help="the peers' network channels-last, pooling first")
    parser.add_argument("--environments", type=Path, default=cache_folder() / "peers", help="where peers are installed")
    parser.add_argument("--json", type=Path, help="also write the last line to this file")
    options = parser.parse_args(arguments)
    options.peers = names(parser, "peer", options.peers, RECIPES)
    options.algorithms = names(parser, "algorithm", options.algorithms, SETTINGS)
    return options


def store_problem(file: Path, options: argparse.Namespace, learned: bool) -> None:
    """Stores tasks and initial weights for `benchmarks.peer_libraries.problem.load_problem`."""
    size = options.image_size
    images = load_split(SyntheticConfig(image_size=size), "train")
    batch = EpisodeSampler(images, "train", 0, WAYS, SHOTS, QUERIES).draw(0, options.tasks)
    parts = [part.unflatten(1, (WAYS, -1)) for part in (batch.support()[0], batch.query()[0])]
    model = build_model(Conv4Config(filters=options.filters), 3, size, WAYS, learned=learned, seed=0)
    torch.save({"images": torch.cat(parts, 2), "shots": SHOTS, "state": model.state_dict()}, file)


def start_workers(options: argparse.Namespace) -> tuple[dict[str, WorkerProcess], dict[str, str]]:
    """The worker processes by library, "ours" first, and the errors of peers that could not be started."""
    workers, failed = {"ours": WorkerProcess("ours", sys.executable, options.threads)}, {}
    for peer in options.peers:
        print(f"{peer}: installing where it is not yet", file=sys.stderr, flush=True)
        try:
            workers[peer] = WorkerProcess(peer, python_of(peer, options.environments), options.threads)
        except (InstallError, WorkerError) as error:
            failed[peer] = str(error)
            print(f"{peer}: {error}", file=sys.stderr, flush=True)
    return workers, failed


class Contest:
    """One algorithm in every library that offers it."""

    def __init__(self, algorithm: str, workers: dict[str, WorkerProcess], options: argparse.Namespace) -> None:
        self.algorithm, self.options = algorithm, options
        self.workers = {name: w for name, w in workers.items() if algorithm in w.facts["algorithms"]}
        self.results = {name: Result() for name in self.workers}

    def run(self, folder: Path) -> dict[str, Result]:
        """Compares gradients, then measures peaks, then time. folder: for temporary files."""
        file = folder / f"{self.algorithm}.pt"
        store_problem(file, self.options, SETTINGS[self.algorithm].learned)
        self._load(file, COMPARED[self.algorithm], "float64")
        self._compare(folder)
        self._load(file, SETTINGS[self.algorithm], self.options.dtype)
        for name in self._standing():
            self.results[name].peak_mib = self._ask(name, "peak")
        self._time()
        return self.results

    def _standing(self) -> list[str]:
        return [name for name in self.workers if self.results[name].error is None]

    def _ask(self, name: str, do: str, **arguments: Any) -> Any:
        """The library's answer; None after it has failed for this algorithm."""
        if self.results[name].error is not None:
            return None
        try:
            return self.workers[name].ask(do, **arguments)
        except WorkerError as error:
            self.results[name].error = str(error)
            return None

    def _load(self, file: Path, settings: Settings, dtype: str) -> None:
        work = {"algorithm": self.algorithm, "settings": asdict(settings), "dtype": dtype}
        for name in self._standing():
            self._ask(name, "load", file=str(file), tuned=self.options.tuned_peers, **work)

    def _compare(self, folder: Path) -> None:
        """Compares the gradients with ours, or with the first peer's if ours failed."""
        reference = None
        for name in self._standing():
            path = folder / f"{self.algorithm}-{name}.pt"
            self._ask(name, "gradient", to=str(path))
            if self.results[name].error is not None:
                continue
            found = torch.load(path, weights_only=True)
            reference = found if reference is None else reference
            error = self.results[name].gradient_error = gradient_error(found, reference)
            if not error <= TOLERANCE:
                self.results[
                    name
                ].error = f"its gradient differs from {self._standing()[0]}'s by {error:.1e}: not timed"

    def _time(self) -> None:
        for _ in range(WARM_UP):
            for name in self._standing():
                self._ask(name, "step")
        for round_ in range(self.options.rounds):
            order = self._standing()
            for name in order if round_ % 2 else order[::-1]:
                seconds = self._ask(name, "step")
                if seconds is not None:
                    self.results[name].seconds.append(seconds)


def speedup(results: dict[str, Result]) -> float | None:
    """The minimum over peers of the median over rounds of (peer's seconds / ours); None without a peer."""
    ours = results["ours"].seconds
    rounds = [r.seconds for name, r in results.items() if name != "ours" and r.seconds and r.error is None]
    ratios = [statistics.median(a / b for a, b in zip(peer, ours, strict=True)) for peer in rounds if ours]
    return min(ratios, default=None)


def memory_ratio(results: dict[str, Result]) -> float | None:
    """Our peak / the lowest peak of a peer; None without a peer."""
    peaks = [r.peak_mib for name, r in results.items() if name != "ours" and r.peak_mib is not None]
    ours = results["ours"].peak_mib
    return ours / min(peaks) if peaks and ours is not None else None


def table(results: Results) -> str:
    """One line per algorithm and library: seconds, seconds / ours, MiB, MiB / ours, gradient error."""
    heads = ("algorithm", "library", "s/step", "x ours", "MiB", "x ours", "gradient error")
    lines = [heads, *(_row(a, name, found[name], found["ours"]) for a, found in results.items() for name in found)]
    return "\n".join("{:<10} {:<12} {:>8} {:>7} {:>8} {:>7}  {}".format(*line) for line in lines)


def _row(algorithm: str, name: str, result: Result, ours: Result) -> tuple[str, ...]:
    mine, theirs = ours.summary(), result.summary()
    cells = [algorithm, name]
    for key, digits in (("seconds", 3), ("peak_mib", 1)):
        ratio = theirs[key] / mine[key] if theirs[key] and mine[key] else None
        cells += [_number(theirs[key], digits), _number(ratio, 2)]
    error = "" if result.gradient_error is None else f"{result.gradient_error:.1e}"
    return (*cells, result.error or error)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def summary(
    results: Results, workers: dict[str, WorkerProcess], failed: dict[str, str], options: argparse.Namespace
) -> dict[str, Any]:
    """The content of the last line."""
    peers = [name for name in workers if name != "ours"]

    def of(library: str) -> dict[str, Any]:
        return {name: found[library].summary() for name, found in results.items() if library in found}

    return {
        "speedup": {name: speedup(found) for name, found in results.items()},
        "memory_ratio": {name: memory_ratio(found) for name, found in results.items()},
        "peers": {peer: of(peer) for peer in peers},
        "ours": of("ours"),
        "failed": failed,
        "versions": {peer: workers[peer].facts["version"] for peer in peers},
        "settings": {name: asdict(SETTINGS[name]) for name in results},
        "threads": options.threads,
        "tasks": options.tasks,
        "rounds": options.rounds,
        "dtype": options.dtype,
        "tuned_peers": options.tuned_peers,
        "torch": torch.__version__,
        "cpu": cpu_model(),
    }


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    workers, failed = start_workers(options)
    results: Results = {}
    with tempfile.TemporaryDirectory() as folder:
        for algorithm in options.algorithms:
            print(f"{algorithm}: gradients, memory, {options.rounds} rounds", file=sys.stderr, flush=True)
            results[algorithm] = Contest(algorithm, workers, options).run(Path(folder))
    found = summary(results, workers, failed, options)
    for worker in workers.values():
        worker.close()
    print(table(results))
    text = json.dumps(found)
    if options.json is not None:
        options.json.write_text(text + "\n")
    print(text)
    return int(any("error" in ours for ours in found["ours"].values()))


if __name__ == "__main__":
    sys.exit(main())
