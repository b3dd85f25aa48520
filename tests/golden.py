"""The golden runs: three seeded iterations of every algorithm on the CPU, to the bit.

    python -m tests.golden > tests/golden.json            (after a change that is meant to change bits)

Kernels are pinned to those that every x86-64 processor has, before torch is loaded: torch's own to the baseline, MKL to
its compatible mode, oneDNN off, one thread. So the bits depend on the versions of torch and of the C library
(exp and log) alone.
"""

import hashlib
import json
import os
import platform
import sys

PINNED = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "OMP_NUM_THREADS": "1"}
OVERRIDES = [
    "dataset=synthetic", "dataset.image_size=16", "dataset.classes=6", "dataset.images_per_class=8",
    "backbone.filters=6", "ways=3", "shots=2", "queries=2", "batch_size=3", "device=cpu", "threads=1",
]  # fmt: skip
ITERATIONS = 3


def golden_run(algorithm: str) -> dict[str, object]:
    """The query loss of every task of every iteration and the test accuracy and loss, as hexadecimal floats, and the
    SHA-256 of the weights."""
    from memmeta_exp.build import build, build_optimizer
    from memmeta_exp.commands.compose import jobs

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


def main() -> None:
    if any(os.environ.get(key) != value for key, value in PINNED.items()):
        os.execve(sys.executable, [sys.executable, "-m", "tests.golden"], {**os.environ, **PINNED})
    import torch

    from memmeta_exp.config import SECTIONS

    torch.backends.mkldnn.set_flags(False)
    runs = {name: golden_run(name) for name in SECTIONS["algorithm"]}
    made_with = {"torch": torch.__version__.partition("+")[0], "libc": " ".join(platform.libc_ver())}
    print(json.dumps({**made_with, "runs": runs}, indent=1))


if __name__ == "__main__":
    main()
