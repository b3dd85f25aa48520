"""algorithm=baseline from the command line: its tasks, what it refuses, its checkpoints, and tests elsewhere."""

import json
from pathlib import Path

import pytest
import torch

from memmeta_exp.cli import main
from memmeta_exp.config.compose import jobs
from memmeta_exp.experiment.builder import build
from memmeta_exp.training import checkpoint
from tests.commands.conftest import TINY

WIDE = ["algorithm=baseline", "training.ways=5", "training.shots=1", "training.queries=1"]


@pytest.fixture(scope="module")
def a_baseline(tmp_path_factory) -> Path:
    """A finished run of it, made once."""
    folder = tmp_path_factory.mktemp("made") / "run"
    assert main(["train", *TINY, *WIDE, "iterations=1", "plots=false", f"hydra.run.dir={folder}"]) == 0
    return folder


def test_F_is_that_of_tasks_as_they_are_tested() -> None:
    """All classes at once in training; the head has rows for tasks of three."""
    (config,) = jobs([*TINY, *WIDE], multirun=False)
    experiment = build(config)
    shapes = {stream: sampler.draw(0, 1).items.shape[1:] for stream, sampler in experiment.samplers.items()}
    assert shapes == {"train": (5, 2), "reference": (3, 4), "val": (3, 4), "test": (3, 4)}
    assert len(experiment.model.head_start) == 3
    assert experiment.model.classifier is not None
    assert len(experiment.model.classifier) == len(experiment.samplers["train"].image_set.class_names)


def test_a_resumed_run_is_the_run(train, memmeta) -> None:
    """The classifier and its optimiser state are kept."""
    whole = train(*WIDE, "eval_every=2", "iterations=2", "hydra.run.dir=whole").summary.parent
    part = train(*WIDE, "eval_every=2", "iterations=1", "hydra.run.dir=part").summary.parent
    assert memmeta("train", f"resume={part}", "iterations=2").code == 0
    a, b = (checkpoint.load(folder / "checkpoints" / "last.pt")["model"] for folder in (whole, part))
    assert "classifier" in a
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_tested_on_other_classes_than_there_were_to_train_on(a_baseline, memmeta, tmp_path) -> None:
    """A dataset of fewer training classes than training.ways: what was learned to tell those apart is left behind."""
    elsewhere = ["dataset=synthetic", "dataset.image_size=16", "dataset.classes=4", "dataset.images_per_class=9"]
    result = memmeta("evaluate", f"run={a_baseline}", *elsewhere, "tasks=6", "out=other.json")
    assert result.code == 0, result.err
    assert json.loads((tmp_path / "other.json").read_text())["tasks"] == 6


def test_another_mu(train, memmeta, tmp_path) -> None:
    """The model of a run with that mu, for it plays no part in the baseline's training, and its score."""
    loss = []
    for trained, asked in (("0.1", []), ("2", []), ("0.1", ["mu=2"])):
        if not (tmp_path / trained).exists():
            train(*WIDE, "iterations=1", f"algorithm.mu={trained}", f"hydra.run.dir={trained}")
        result = memmeta("evaluate", f"run={tmp_path / trained}", "checkpoint=last", *asked, "out=found.json")
        assert result.code == 0, result.err
        loss.append(json.loads((tmp_path / "found.json").read_text())["test/loss"])
    assert result.out.rstrip().endswith("mu = 2")
    assert loss[2] == loss[1] != loss[0]


def test_another_share_of_the_tasks_own_statistics(train, memmeta, tmp_path) -> None:
    """As of a run with that share, which plays no part in training."""
    loss = []
    for trained, asked in (("0.1", []), ("0.6", []), ("0.1", ["task_stats_weight=0.6"])):
        if not (tmp_path / trained).exists():
            share = ["backbone.norm=running", f"backbone.task_stats_weight={trained}"]
            train(*WIDE, *share, "iterations=1", f"hydra.run.dir={trained}")
        result = memmeta("evaluate", f"run={tmp_path / trained}", "checkpoint=last", *asked, "out=found.json")
        assert result.code == 0, result.err
        loss.append(json.loads((tmp_path / "found.json").read_text())["test/loss"])
    assert result.out.rstrip().endswith("task_stats_weight = 0.6")
    assert loss[2] == loss[1] != loss[0]


def test_statistics_of_long_ago_are_no_statistics(train, memmeta, monkeypatch) -> None:
    """A checkpoint between validations, where running statistics are not gathered."""
    monkeypatch.setattr("memmeta_exp.backbones.task_norm.STATS_ITERATIONS", 1)
    steps = ["iterations=4", "eval_every=4", "checkpoint_every=3"]
    folder = train(*WIDE, *steps, "backbone.norm=running").summary.parent
    assert memmeta("evaluate", f"run={folder}", "checkpoint=last").code == 0
    (folder / "checkpoints" / "previous.pt").replace(folder / "checkpoints" / "last.pt")
    result = memmeta("evaluate", f"run={folder}", "checkpoint=last")
    assert (result.code, len(result.err.splitlines())) == (2, 1)
    assert "is of iteration 3, and backbone.norm=running updates" in result.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["task_stats_weight=0.5"], "task_stats_weight=0.5 is for backbone.norm=running"),
        (["task_stats_weight=1"], "backbone.task_stats_weight=1.0 is out of range"),
        (["mu=much"], "mu=much is not a number"),
        (["mu=nan"], "mu=nan is not finite"),
        (["mu=0"], "algorithm.mu=0.0 is out of range"),
        (["mu=1", "test_adaptation=gd"], "test_adaptation=gd has no R"),
    ],
)
def test_a_number_that_is_refused(a_baseline, memmeta, options: list[str], said: str) -> None:
    result = memmeta("evaluate", f"run={a_baseline}", *options)
    assert (result.code, len(result.err.splitlines())) == (2, 1)
    assert said in result.err
