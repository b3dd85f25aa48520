"""The golden runs: three seeded iterations of every algorithm on the CPU, to the bit.

    python -m tests.golden                (rewrites tests/golden.json; after a change that is meant to change bits)

Kernels are pinned to those that every x86-64 processor has, before torch is loaded: torch's own to the baseline, MKL to
its compatible mode, oneDNN off, one thread. So the bits depend on the versions of torch and of the C library (exp and
log), and on the vendor of the processor alone: some last bits were seen to differ between AMD's and Intel's.
Runs of another vendor are kept while this one's bits are the same, and dropped with the change that moved them.
"""

import hashlib
import json
import os
import platform
import sys
from pathlib import Path

FILE = Path(__file__).parent / "golden.json"
PINNED = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "OMP_NUM_THREADS": "1"}
OVERRIDES = [
    "dataset=synthetic", "dataset.image_size=16", "dataset.classes=6", "dataset.images_per_class=8",
    "backbone.filters=6", "ways=3", "shots=2", "queries=2", "batch_size=3", "device=cpu", "threads=1",
]  # fmt: skip
ITERATIONS = 3


def golden_run(algorithm: str) -> dict[str, object]:
    """The query loss of every task of every iteration and the test accuracy and loss, as hexadecimal floats, and the
    SHA-256 of the weights."""
    from memmeta_exp.config.compose import jobs
    from memmeta_exp.experiment.builder import build
    from memmeta_exp.experiment.optimizers import build_optimizer

    (config,) = jobs([*OVERRIDES, f"algorithm={algorithm}"], multirun=False)
    experiment = build(config)
    optimizer, _ = build_optimizer(config, experiment.model)
    losses = []
    for t in range(ITERATIONS):
        optimizer.zero_grad()
        report = experiment.learner.step(experiment.samplers["train"].draw(3 * t, 3))
        optimizer.step()
        losses.append([loss.hex() for loss in report.loss.double().tolist()])
    accuracy, loss, _ = experiment.learner.evaluate(experiment.samplers["test"].draw(0, 4))
    assert accuracy is not None
    weights = hashlib.sha256()
    for name, value in sorted(experiment.model.state_dict().items()):
        weights.update(name.encode() + value.detach().contiguous().numpy().tobytes())
    return {
        "loss": losses,
        "test_accuracy": [a.hex() for a in accuracy.tolist()],
        "test_loss": [value.hex() for value in loss.tolist()],
        "weights_sha256": weights.hexdigest(),
    }


def vendor() -> str:
    """The processor's, as the kernel names it ("AuthenticAMD", "GenuineIntel"); empty where it does not."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), "")


def made_with() -> dict[str, str]:
    """The versions of torch and of the C library."""
    from importlib.metadata import version

    return {"torch": version("torch").partition("+")[0], "libc": " ".join(platform.libc_ver())}


def main() -> None:
    """Prints this machine's runs with --print, else writes them to tests/golden.json."""
    if any(os.environ.get(key) != value for key, value in PINNED.items()):
        os.execve(sys.executable, [sys.executable, "-m", "tests.golden", *sys.argv[1:]], {**os.environ, **PINNED})
    import torch

    from memmeta_exp.config import options

    torch.backends.mkldnn.set_flags(False)
    runs = {name: golden_run(name) for name in options("algorithm")}
    if "--print" in sys.argv:
        print(json.dumps(runs))
        return
    before = json.loads(FILE.read_text())
    same = made_with().items() <= before.items() and before["runs"].get(vendor()) == runs
    others = before["runs"] if same else {}
    FILE.write_text(json.dumps({**made_with(), "runs": {**others, vendor(): runs}}, indent=1) + "\n")


if __name__ == "__main__":
    main()
