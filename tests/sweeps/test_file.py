"""Sweep files: what is read from a sound one, and the line that each defect gets."""

from pathlib import Path

import pytest

from memmeta_exp.config import ConfigError
from memmeta_exp.sweeps.sweep_file import read

SOUND = """
name: mine
description: a study
project: memmeta
method: grid
metric: {name: val/acc.max, goal: maximize}
parameters:
  algorithm.inner_steps: {values: [5, 10]}
  algorithm.inner_lr: {values: ["null", 0.1]}
  optimizer.lr: {value: 1e-3}
  progress: {value: false, distribution: constant}
command: [memmeta, train, experiment=paper/cifar_fs, "${args_no_hyphens}"]
"""


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    return file


def test_a_sound_file(tmp_path) -> None:
    file = read(written(tmp_path, SOUND))
    assert (file.kind, file.fixed) == ("train", ("experiment=paper/cifar_fs",))
    assert file.parameters == {
        "algorithm.inner_steps": ("5", "10"),
        "algorithm.inner_lr": ("null", "0.1"),
        "optimizer.lr": ("1e-3",),
        "progress": ("False",),  # as W&B writes it, and Hydra reads it
    }
    assert list(file.parameters) == ["algorithm.inner_steps", "algorithm.inner_lr", "optimizer.lr", "progress"]


@pytest.mark.parametrize(
    "head",
    [
        "memmeta",
        "python, -m, memmeta_exp",
        '"${env}", "${interpreter}", -m, memmeta_exp',
        '"${env}", memmeta',
        '"${env}", "${program}"',
    ],
)
def test_every_way_to_start_memmeta(tmp_path, head: str) -> None:
    text = SOUND.replace("[memmeta, train", f"[{head}, profile, predict=auto").replace(
        "project:", "program: memmeta\nproject:"
    )
    file = read(written(tmp_path, text))
    assert (file.kind, file.fixed) == ("profile", ("predict=auto", "experiment=paper/cifar_fs"))


PARAMETER = "algorithm.inner_steps: {values: [5, 10]}"
COMMAND = '[memmeta, train, experiment=paper/cifar_fs, "${args_no_hyphens}"]'
DEFECTS = [  # what is replaced, by what, and what the line must say
    (SOUND, "- a\n- b", "needs the keys method, parameters and command"),
    (SOUND, "method: [", "is not valid YAML"),
    (SOUND, "", "needs the keys method"),
    ("project: memmeta", "projekt: memmeta", "unknown key 'projekt'; did you mean 'project'?"),
    ("project: memmeta", "project: 3", "project must be a text, not 3"),
    ("project: memmeta", "method: grid", "repeats the key 'method'"),
    ("project: memmeta", "run_cap: 3", "run_cap needs a W&B server"),
    ("project: memmeta", "early_terminate: {type: hyperband}", "early_terminate needs a W&B server"),
    ("method: grid", "", "method is missing: write method: grid"),
    ("method: grid", "method: gird", "method 'gird' is unknown: write method: grid"),
    ("method: grid", "method: bayes", "method: bayes needs a W&B server: use wandb sweep"),
    ("method: grid", "method: random", "hydra/sweeper=optuna"),
    ("name: val/acc.max", "name: val/acc", "write metric.name: val/acc.max"),
    ("goal: maximize", "goal: up", "metric.goal 'up' is unknown"),
    ("goal: maximize", "gaol: maximize", "unknown key 'metric.gaol'; did you mean 'goal'?"),
    ("metric: {name: val/acc.max, goal: maximize}", "metric: val/acc", "metric needs a name and a goal"),
    (PARAMETER, "algorithm.inner_steps: 5", "write {value: x} or {values: [x, y]}, not 5"),
    (PARAMETER, "algorithm.inner_steps: {}", "write one of {value: x} and {values: [x, y]}"),
    (PARAMETER, "algorithm.inner_steps: {value: 5, values: [5]}", "write one of {value: x}"),
    (PARAMETER, "algorithm.inner_steps: {values: []}", "values must be a list with at least one value"),
    (PARAMETER, "algorithm.inner_steps: {values: 5}", "values must be a list"),
    (PARAMETER, "algorithm.inner_steps: {valeus: [5]}", "unknown key 'valeus'; did you mean 'values'?"),
    (PARAMETER, "algorithm.inner_steps: {min: 1, max: 5}", "a distribution (min) needs a W&B server; list the values"),
    (PARAMETER, "algorithm.inner_steps: {distribution: normal}", "a distribution (distribution normal) needs a"),
    (PARAMETER, "algorithm.inner_steps: {values: [1], probabilities: [1]}", "needs a W&B server; list the values"),
    (PARAMETER, "algorithm.inner_steps: {value: 1, distribution: categorical}", "contradicts value"),
    (PARAMETER, "algorithm: {parameters: {inner_steps: {values: [5]}}}", "flat keys, such as algorithm.inner_steps"),
    (PARAMETER, "algorithm.mu: {values: [null]}", 'write "null", in quotes'),
    (PARAMETER, "algorithm: {values: [{inner_steps: 5}]}", "flat keys, such as algorithm.inner_steps"),
    (PARAMETER, "+algorithm.inner_steps: {values: [5]}", "'+algorithm.inner_steps' is not a key"),
    (PARAMETER, "hydra.run.dir: {value: here}", "sets each job's folder"),
    (PARAMETER, "experiment: {value: paper/fc100}", "experiment is in the command and among the parameters"),
    (COMMAND, "memmeta train", "command must be a list of strings"),
    (COMMAND, "[memmeta, train]", 'it does not contain the parameters once; write "${args_no_hyphens}" once'),
    (COMMAND, '[memmeta, train, "${args}"]', "${args} does not give Hydra overrides"),
    (COMMAND, '[memmeta, data, "${args_no_hyphens}"]', "must run memmeta train or memmeta profile"),
    (COMMAND, '[python, train.py, "${args_no_hyphens}"]', "must run memmeta train or memmeta profile"),
    (COMMAND, '[memmeta, train, -m, "${args_no_hyphens}"]', "'-m' is not an override"),
    (COMMAND, '[memmeta, train, "${envvar:X}", "${args_no_hyphens}"]', "is not an override"),
    (COMMAND, '[memmeta, train, seed=1, seed=2, "${args_no_hyphens}"]', "seed is there twice"),
    (COMMAND, '[memmeta, train, hydra.run.dir=x, "${args_no_hyphens}"]', "leave hydra.run.dir out"),
]  # fmt: skip


@pytest.mark.parametrize(("good", "bad", "line"), DEFECTS, ids=[line for _, _, line in DEFECTS])
def test_each_defect_is_one_clear_line(tmp_path, good: str, bad: str, line: str) -> None:
    assert good in SOUND
    file = written(tmp_path, SOUND.replace(good, bad))
    with pytest.raises(ConfigError) as raised:
        read(file)
    said = str(raised.value)
    assert line in said
    assert said.startswith(str(file))
    assert "\n" not in said


def test_a_missing_file_is_named_with_the_nearest(tmp_path) -> None:
    written(tmp_path, SOUND)
    with pytest.raises(ConfigError, match=r"the sweep file .*main.yaml does not exist; .*mine.yaml"):
        read(tmp_path / "main.yaml")
