"""A run that is killed by SIGKILL again and again, at random moments and inside its writes, and goes on each time, ends
with the bits of the run that is left alone."""

import random
from pathlib import Path
from typing import Any

import pytest

from tests.training.conftest import TINY, bits, same_bits

OPERATIONS = 45  # on files, of the two hundred of a run and the fifteen before a run goes on
SHARE = 0.3  # of the seconds of a run that is left alone
ALGORITHMS = {
    "proposed": ["algorithm.inner_warm_start=true", "algorithm.linear_warm_start=true", "algorithm.linear_solver=cg"],
    "maml": ["backbone.norm=running", "algorithm.inner_steps=1"],
    "fomaml": ["optimizer=sgd", "optimizer.momentum=0.9", "algorithm.inner_steps=1"],
    "anil": ["optimizer=adamw", "optimizer.weight_decay=0.1"],
    "itd_bio": ["optimizer.schedule=cosine"],
    "imaml": ["algorithm.inner_steps=1", "algorithm.linear_steps=1"],
}


KILLS = [("proposed", 3), *[pytest.param(name, 20, marks=pytest.mark.slow) for name in ALGORITHMS]]


@pytest.mark.parametrize(("algorithm", "least"), KILLS)
def test_killed_again_and_again_to_the_same_bits(runs, tmp_path: Path, algorithm: str, least: int) -> None:
    def output() -> str:
        return (tmp_path / "output.txt").read_text()

    command = ["train", *TINY, f"algorithm={algorithm}", *ALGORITHMS[algorithm]]
    alone = runs(tmp_path, *command, "hydra.run.dir=alone")
    assert alone.status == 0, output()
    moments, kills, at = random.Random(algorithm), 0, 0
    while True:
        folder = tmp_path / f"killed{at}"
        known = (folder / "config.yaml").exists()
        inside: dict[str, Any] = {}
        if kills < least:  # in turn inside an operation on files and at any moment
            inside = {"seconds": SHARE * moments.random() * alone.cpu_seconds}
            inside = inside if kills % 2 else {"operation": moments.randint(1, OPERATIONS)}
        again = ["train", f"resume={folder.name}"] if known else [*command, f"hydra.run.dir={folder.name}"]
        ended = runs(tmp_path, *again, **inside)
        kills += ended.status == -9
        if ended.status == 0:  # on a fast machine before the last kill: then the rest hit another run
            same_bits(tmp_path / "alone", folder)
            at += 1
            if kills >= least:
                break
        else:
            assert ended.status == -9, output()
    assert runs(tmp_path, *command, "hydra.run.dir=killed0").status == 0
    assert "nothing to do" in output()
    for word in ("Traceback", "damaged", "cut short"):
        assert word not in output()


def test_the_bits_tell_runs_apart(runs, tmp_path: Path) -> None:
    """What the test above compares differs where the seed does."""
    for seed in (0, 1):
        assert runs(tmp_path, "train", *TINY, "iterations=2", f"seed={seed}", f"hydra.run.dir={seed}").status == 0
    first, second = bits(tmp_path / "0"), bits(tmp_path / "1")
    differing = {key.partition("/")[0] for key in first if first[key] != second[key]}
    assert differing == {"episodes", "metrics", "summary", "last", "best"}
