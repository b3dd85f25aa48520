"""The other files of examples/: each runs as its first lines say, and learns something."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from memmeta_exp.config import SPLITS, options
from memmeta_exp.config.compose import offer_plugins
from memmeta_exp.data import load_split
from memmeta_exp.tracking.run_folder import read_metrics
from tests.commands.conftest import memmeta  # noqa: F401 - a fixture

EXAMPLES = Path(__file__).parents[2] / "examples"
CHANCE = 1 / 3
SMALL = [
    "dataset.images_per_class=20", "ways=3", "shots=5", "queries=5", "batch_size=2", "iterations=40", "eval_every=20",
    "optimizer.lr=3e-3", "val_tasks=20", "test_tasks=20", "convergence_tasks=2", "threads=1", "tracking=disabled",
    "progress=false", "plots=false", "hydra.run.dir=run",
]  # fmt: skip

pytestmark = pytest.mark.usefixtures("plugging")


def learnt(folder: Path) -> None:
    """Fails unless validation and test are above chance, and validation is better than before training."""
    first, *_, last = [row["val/acc"] for row in read_metrics(folder) if "val/acc" in row]
    assert last > max(first, CHANCE) + 0.1
    assert json.loads((folder / "summary.json").read_text())["test/acc"] > CHANCE + 0.1


def test_a_backbone(memmeta, tmp_path) -> None:  # noqa: F811 - the fixture
    own = ["plugins=[examples.backbone]", "backbone=group_norm", "backbone.width=16"]
    done = memmeta("train", *own, "dataset=synthetic", "dataset.image_size=16", *SMALL)
    assert done.code == 0, done.err
    learnt(tmp_path / "run")


def test_a_dataset(memmeta, tmp_path) -> None:  # noqa: F811 - the fixture
    done = memmeta("train", "plugins=[examples.dataset]", "dataset=shapes", "backbone.filters=8", *SMALL)
    assert done.code == 0, done.err
    learnt(tmp_path / "run")
    listed = memmeta("data", "plugins=[examples.dataset]")
    assert "shapes: present\n    Stars of 3 to 10 corners" in listed.out
    verified = memmeta("data", "verify", "shapes", "plugins=[examples.dataset]")
    assert (verified.code, "train: counts: 24 classes of 40 images" in verified.out) == (0, True), verified.err


def test_a_dataset_is_the_same_at_every_call_and_its_splits_differ() -> None:
    offer_plugins(["plugins=[examples.dataset]"])
    config = options("dataset")["shapes"](images_per_class=4)
    splits = {split: load_split(config, split).images for split in SPLITS}
    assert torch.equal(splits["val"], load_split(config, "val").images)
    assert splits["train"].shape == (24, 4, 1, 28, 28)
    assert not torch.equal(splits["val"], splits["test"])


def test_a_run_is_tested_on_a_plugged_in_dataset(memmeta) -> None:  # noqa: F811 - the fixture
    small = [o for o in SMALL if not o.startswith("iterations")]
    size = ["dataset=synthetic", "dataset.image_size=28", "dataset.channels=1", "backbone.filters=8", "iterations=2"]
    assert memmeta("train", *size, *small).code == 0
    other = memmeta("evaluate", "run=run", "plugins=[examples.dataset]", "dataset=shapes", "tasks=5")
    assert "5 tasks of shapes (3-way 5-shot" in other.out, other.err


def test_a_hyperparameter() -> None:
    done = subprocess.run(
        [sys.executable, "hyperparameter.py"], cwd=EXAMPLES, capture_output=True, text=True, check=True
    )
    losses, weights = (
        [float(word) for word in line.replace(",", "").split() if "." in word] for line in done.stdout.splitlines()
    )
    assert losses[1] < 0.8 * losses[0]
    assert weights[1] > 2 * weights[0]
