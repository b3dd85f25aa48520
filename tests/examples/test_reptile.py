"""examples/reptile.py through every command: an algorithm that no part of the package knows."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from memmeta_exp.config import options
from memmeta_exp.config.compose import jobs
from memmeta_exp.data.episodes import half
from memmeta_exp.experiment.builder import build
from memmeta_exp.reports import plot_style
from memmeta_exp.tracking.run_folder import read_metrics
from tests.commands.conftest import memmeta  # noqa: F401 - a fixture
from tests.distributed.conftest import on, same_numbers  # noqa: F401 - a fixture

FILE = Path(__file__).parents[2] / "examples/reptile.py"
CHANCE = 1 / 3
REPTILE = [
    "plugins=[reptile]", "algorithm=reptile", "algorithm.inner_lr=0.3", "algorithm.inner_steps=3", "optimizer.lr=1e-2",
    "dataset=synthetic", "dataset.image_size=16", "dataset.images_per_class=20", "backbone.filters=8", "ways=3",
    "queries=5", "batch_size=2", "val_tasks=20", "test_tasks=10", "convergence_tasks=2", "eval_every=10", "threads=1",
    "tracking=disabled", "progress=false", "plots=false",
]  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, plugging) -> Path:
    """The current folder, with the example in it as a user's own module."""
    shutil.copy(FILE, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_meta_gradient_is_the_way_to_the_end_of_the_steps() -> None:
    """Worked by hand for K = 1: theta - w_2 over lambda, w_1 = theta - lambda d g, w_2 = w_1 - lambda d f(w_1)."""
    (config,) = jobs([*REPTILE, "algorithm.inner_steps=1", "batch_size=1", "precision=fp64"], multirun=False)
    experiment = build(config)
    model, batch = experiment.model, experiment.samplers["train"].draw(0, 1)
    experiment.learner.step(batch)
    found = [p.grad.clone() for p in model.parameters()]  # pyright: ignore[reportOptionalMemberAccess]

    def gradient(which: str) -> list[torch.Tensor]:
        images, labels, *_ = half(batch, which)
        loss = torch.nn.functional.cross_entropy(model(images.double() / 255)[0], labels[0])
        return list(torch.autograd.grad(loss, list(model.parameters())))

    first = gradient("support")
    with torch.no_grad():
        for p, d in zip(model.parameters(), first, strict=True):
            p -= 0.3 * d
    second = gradient("query")
    for d, a, b in zip(found, first, second, strict=True):
        assert d.abs().max() > 0
        assert torch.allclose(d, a + b, atol=1e-10)


def test_it_trains_goes_on_is_tested_and_reported(memmeta, here) -> None:  # noqa: F811 - the fixture
    done = memmeta("train", *REPTILE, "iterations=20", "hydra.run.dir=run")
    assert done.code == 0, done.err
    assert all(row["inner/distance"] > 0 for row in read_metrics(here / "run") if "train/loss" in row)
    first, *_, last = [row for row in read_metrics(here / "run") if "val/acc" in row]
    assert last["val/acc"] > max(first["val/acc"], CHANCE) + 0.1
    assert last["val/loss"] < first["val/loss"] - 0.1
    assert memmeta("train", "resume=run", "iterations=30").code == 0
    assert json.loads((here / "run/summary.json").read_text())["test/acc"] > CHANCE + 0.2
    tested = memmeta("evaluate", "run=run")
    assert "10 tasks score as stored" in tested.out, tested.err
    assert (
        memmeta(
            "train", *REPTILE[2:], "algorithm=anil", "algorithm.inner_lr=0.1", "iterations=10", "hydra.run.dir=a"
        ).code
        == 0
    )
    reported = memmeta("report", "run", "a", "out=report")
    assert reported.code == 0, reported.err
    assert "Reptile" in (here / "report/tables/accuracy.csv").read_text()
    looks = plot_style.algorithm_looks([])
    assert len({look["color"] for look in looks.values()}) == len(options("algorithm")), "each has a colour of its own"


def test_its_memory_is_measured_and_predicted(memmeta, here) -> None:  # noqa: F811 - the fixture
    found = {}
    for name, own in (("measured", ["steps=1"]), ("predicted", ["predict=cuda"])):
        assert memmeta("profile", *own, *REPTILE, f"hydra.run.dir={name}").code == 0
        found[name] = json.loads((here / name / "profile.json").read_text())["memory/above_baseline_mib"]
    assert found["predicted"] == pytest.approx(found["measured"], rel=0.25)


def test_a_sweep_runs_it_beside_others(memmeta, here) -> None:  # noqa: F811 - the fixture
    (here / "mine.yaml").write_text(
        "method: grid\nparameters:\n  algorithm: {values: [reptile, fomaml]}\n  iterations: {value: 2}\n"
        'command: [memmeta, train, "${args_no_hyphens}"]\n'
    )
    done = memmeta("sweep", "mine.yaml", "dir=out", *(o for o in REPTILE if not o.startswith("algorithm=")))
    assert done.code == 0, done.err
    assert "[2/2] finished algorithm=" in done.out
    assert {"Reptile", "FOMAML"} <= set(
        (here / "out/report/tables/accuracy.csv").read_text().replace(",", "\n").split("\n")
    )


def test_two_ranks_train_it_as_one_process_does(on, memmeta, here) -> None:  # noqa: F811 - the fixtures
    command = ["train", *REPTILE, "iterations=4", "eval_every=2", "precision=fp64", "device=cpu"]
    assert memmeta(*command, "hydra.run.dir=alone").code == 0
    ended = on(here, 2, *command, "hydra.run.dir=shared")
    assert ended.codes == [0, 0], ended.err
    same_numbers(here / "alone", here / "shared")
