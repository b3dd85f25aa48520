"""`make reproduce`: what it runs, and what it says of it."""

import json
from pathlib import Path

import pytest

from benchmarks import reproduce
from memmeta_exp.config.compose import jobs


@pytest.mark.parametrize(("accuracy", "code", "said"), [(0.65, 0, "reached: "), (0.64, 1, "NOT REACHED: ")])
def test_it_compares_the_test_accuracy(tmp_path, monkeypatch, capsys, accuracy: float, code: int, said: str) -> None:
    monkeypatch.chdir(tmp_path)

    def train(arguments: list[str]) -> int:
        (config,) = jobs(arguments[1:], multirun=False)
        assert (config.dataset.name, config.iterations, config.seed) == ("cifar_fs", 700, 7)
        (folder,) = (Path(a.partition("=")[2]) for a in arguments if a.startswith("hydra.run.dir="))
        folder.mkdir(parents=True)
        summary = {"test/acc": accuracy, "test/acc_ci95": 0.01, "tasks_seen": 1400}
        (folder / "summary.json").write_text(json.dumps(summary))
        return 0

    monkeypatch.setattr(reproduce, "memmeta", train)
    assert reproduce.main(["seed=7"]) == code
    assert capsys.readouterr().out.splitlines()[-1].startswith(said)


def test_a_run_that_cannot_be_is_not_judged(monkeypatch) -> None:
    monkeypatch.setattr(reproduce, "memmeta", lambda _: 2)
    assert reproduce.main([]) == 2
