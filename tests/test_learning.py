"""That it learns, on real images: minutes, so not part of `make test`."""

import json

import pytest

from memmeta_exp.cli import main


@pytest.mark.slow
def test_cifar_fs_is_learned_with_every_solve_certified(tmp_path, monkeypatch, data_root: str) -> None:
    """1,200 tasks: chance is 20 %, an untrained backbone scores about 43 % with solved heads."""
    monkeypatch.chdir(tmp_path)
    overrides = ["dataset=cifar_fs", f"data_root={data_root}", "iterations=150", "eval_every=150", "tracking=disabled"]
    assert main(["train", *overrides, "hydra.run.dir=run"]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["test/acc"] > 0.5
    assert summary["hypergrad/inexact_fraction"] == 0
    assert summary["inner/grad_norm_max"] <= 1e-4
