"""What older versions wrote is read as if written today; on a command line their keys are refused with today's."""

import json
from pathlib import Path

import pytest
import yaml

from memmeta_exp.config import ConfigError, from_omegaconf, from_yaml, group_digest, progress_of_today, to_dict
from memmeta_exp.config.compose import composed
from memmeta_exp.config.older import RENAMED
from memmeta_exp.reports.runs import read_run
from tests.reports.folders import write_json, write_run

TODAY = (
    "algorithm=anil", "tasks_per_pass=2", "test_adaptation=gd", "convergence_gradient=own",
    "images.test_time_flip=true", "backbone.norm=running", "backbone.task_stats_weight=0.3",
)  # fmt: skip


def older_values() -> dict:
    """The configuration of TODAY as an older version wrote it."""
    values = to_dict(from_omegaconf(composed(list(TODAY))))
    values["chunk"] = values.pop("tasks_per_pass")
    values["eval_rule"] = values.pop("test_adaptation")
    values["convergence_of"] = values.pop("convergence_gradient")
    values["images"]["mirrored"] = values["images"].pop("test_time_flip")
    values["backbone"]["batch_share"] = values["backbone"].pop("task_stats_weight")
    values["algorithm"]["adapts"] = values["algorithm"].pop("adapted_params")
    return values | {"cuda_graph": False}


def test_an_older_config_yaml_loads(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(older_values()))
    assert from_yaml(file) == from_omegaconf(composed(list(TODAY)))


def test_a_key_by_both_its_names_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(older_values() | {"tasks_per_pass": 1}))
    with pytest.raises(ConfigError, match=r"unknown key 'chunk'; it is called tasks_per_pass now"):
        from_yaml(file)


def test_an_older_run_is_reported_as_one_of_today(tmp_path: Path) -> None:
    today = read_run(write_run(tmp_path / "today", to_dict(from_omegaconf(composed(list(TODAY))))))
    numbers = {"lower/wrong_fraction": 0.5, "lower/kappa": 7.0, "val/acc_best": 0.4}
    path = write_run(tmp_path / "older", older_values(), overrides=("chunk=2", "+images.mirrored=true", "ways=5"))
    write_json(path / "summary.json", numbers)
    row = {
        "iteration": 0,
        "lower/L_g": 2.0,
        "lower/residual_max": 1.0,
        "lower/steps": 3,
        "convergence/wrong_fraction": 0,
    }
    (path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    run = read_run(path)
    assert run.finished
    assert group_digest(run.config) == group_digest(today.config)
    assert run.summary == {"hypergrad/inexact_fraction": 0.5, "inner/kappa": 7.0, "val/acc_best": 0.4}
    names = ["iteration", "inner/L_g", "inner/grad_norm_max", "inner/steps", "convergence/inexact_fraction"]
    assert [list(row) for row in run.rows] == [names]
    assert run.overrides == {"tasks_per_pass": "2", "images.test_time_flip": "true", "ways": "5"}


def test_an_older_checkpoint_goes_on() -> None:
    saved = {"iteration": 4, "wrong_sum": 1.5, "latest": {"lower/L_g": 2.0}, "best_model": {"weight": 1}}
    today = {"iteration": 4, "inexact_sum": 1.5, "latest": {"inner/L_g": 2.0}, "best_model": {"weight": 1}}
    assert progress_of_today(saved) == today


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_the_command_line_says_what_a_key_is_called_now(old: str, new: str) -> None:
    with pytest.raises(ConfigError, match=rf"^unknown key '{old}'; it is called {new} now$"):
        composed([f"{old}=1"])
