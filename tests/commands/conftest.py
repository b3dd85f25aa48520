"""Running the command line in this process, in a folder of its own."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from memmeta_exp.cli import main

TINY = [
    "dataset=synthetic", "dataset.image_size=16", "dataset.classes=5", "dataset.images_per_class=8",
    "backbone.filters=8", "ways=3", "shots=2", "queries=2", "batch_size=2", "iterations=6", "eval_every=3",
    "val_tasks=4", "test_tasks=5", "convergence_tasks=2", "threads=1", "tracking=disabled",
]  # fmt: skip


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def summary(self) -> Path:
        last = self.out.splitlines()[-1]
        assert last.startswith("summary: "), last
        return Path(last.removeprefix("summary: "))


@pytest.fixture(autouse=True)
def no_pictures(request, monkeypatch) -> None:
    """Drawing them is half of a tiny run's time: only tests marked `plots` let it happen."""
    if request.node.get_closest_marker("plots") is None:
        monkeypatch.setattr("memmeta_exp.training.runner.plot_run", lambda path, title: [])


@pytest.fixture
def memmeta(tmp_path, monkeypatch, capfd):
    """Calls `memmeta *arguments` in tmp_path; returns exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    for name in [n for n in os.environ if n.startswith("WANDB")]:
        monkeypatch.delenv(name)

    def call(*arguments: str) -> Result:
        capfd.readouterr()
        code = main(list(arguments))
        captured = capfd.readouterr()
        return Result(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def a_run(tmp_path_factory) -> Path:
    """A finished run of TINY, made once: to be read or copied, not touched."""
    folder = tmp_path_factory.mktemp("made") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("memmeta_exp.training.runner.plot_run", lambda path, title: [])
        assert main(["train", *TINY, f"hydra.run.dir={folder}"]) == 0
    return folder


@pytest.fixture
def train(memmeta):
    return lambda *overrides: memmeta("train", *TINY, *overrides)
