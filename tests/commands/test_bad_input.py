"""Bad input: one line that says what, why and what to do, exit code 2, nothing left behind."""

import subprocess
import sys
from pathlib import Path

import pytest

from memmeta_exp.utils.path_keys import at_home

BAD = {  # of configurations a few: tests/test_refusals.py has the table
    "algorithm=propsed": "did you mean 'proposed'?",
    "ways=6": "set ways to 5 or fewer",
    "device=cuda:99": "device=cpu",
    "--mulitrun": "did you mean '--multirun'?",
    "--config-name=other": "KEY=VALUE",
    "--iterations=10": "write iterations=VALUE",
    "--resolve": "need --cfg",
    "hydra.run.dir=": "name a folder for the run",
    "hydra.run.dir=/proc/x/y": "cannot be created",
}


@pytest.mark.parametrize("flags", [("-m", "--cfg", "job"), ("--info", "--cfg", "job"), ("-m", "--run")])
def test_two_flags_that_each_say_what_to_do(train, flags: tuple[str, ...]) -> None:
    result = train("seed=0,1", *flags)
    assert (result.code, "do not go together: leave one out" in result.err) == (2, True), result.err


@pytest.mark.parametrize("override", BAD)
def test_one_line_and_exit_code_2(train, tmp_path, override: str) -> None:
    result = train(override)
    assert result.code == 2, result.err
    assert result.err.startswith("memmeta: ")
    assert len(result.err.splitlines()) == 1, result.err
    assert BAD[override] in result.err
    assert result.out == ""
    assert list(tmp_path.iterdir()) == [], "nothing may be created"


def test_one_bad_job_of_a_multirun_stops_it_before_it_starts(train, tmp_path) -> None:
    result = train("-m", "seed=0,1", "ways=3,6")
    assert result.code == 2
    assert "set ways to 5 or fewer" in result.err
    assert list(tmp_path.iterdir()) == []


def test_a_path_may_begin_at_home(train, memmeta, tmp_path, monkeypatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for arguments, expected in {
        ("train", "dataset=fc100", "data_root=~/data"): f"{home}/data",
        ("train", "dataset=fc100", "++data_root=~/data"): f"{home}/data",
        ("train", "dataset=folder", "dataset.path=~/mine"): f"dataset.path={home}/mine",
        ("train", "backbone=timm", "backbone.model=resnet18", "backbone.weights=~/w.pt"): f"{home}/w.pt",
        ("train", "resume=~/x"): f"{home}/x",
        ("train", "dataset=folder", "dataset.path=~no-such-user/x"): "~no-such-user/x is not a folder",
        ("train", "dataset=fc100", "data_root=~no-such-user/x"): "~no-such-user/x/cifar100/data.hdf5 does not exist",
        ("data", "import", "folder", "~no-such-user/x"): "~no-such-user/x is not a folder",
        ("evaluate", "run=~/x"): f"{home}/x is not a run folder",
        ("data", "import", "folder", str(home), "split_file=~/s.csv"): f"{home}/s.csv does not exist",
        ("sweep", "nothing.yaml", "dir=~/x"): "the sweep file",
    }.items():
        result = memmeta(*arguments)
        assert (result.code, expected in result.err) == (2, True), result.err
    assert memmeta("dashboard", "project=mine", "offline=true", "out=~/d.json").code == 0
    assert (home / "d.json").is_file()
    for no_path in ("project=~/x", "~data_root", "data_root=a/~", "data_root=./~"):
        assert at_home(no_path) == no_path
    assert train("hydra.run.dir=~/run", "iterations=1").code == 0
    assert (home / "run" / "summary.json").is_file()


def test_flags_may_stand_anywhere(train) -> None:
    for order in (("-m", "seed=0,-1"), ("seed=0,-1", "-m")):
        result = train(*order)
        assert result.code == 2
        assert "seed=-1" in result.err


def test_a_dataset_that_is_not_there(memmeta, tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("MEMMETA_DATA", raising=False)
    unset = memmeta("train", "dataset=cifar_fs")
    missing = memmeta("train", "dataset=fc100", f"data_root={tmp_path / 'nowhere'}")
    assert (unset.code, missing.code) == (2, 2)
    assert "MEMMETA_DATA" in unset.err
    assert "memmeta data" in missing.err
    assert len(missing.err.splitlines()) == len(unset.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_other_commands(memmeta, tmp_path) -> None:
    for arguments, expected in {
        ("trian",): "did you mean 'train'?",
        ("evaluate",): "memmeta evaluate run=",
        ("evaluate", "outputs/x"): "run=outputs/x",
        ("evaluate", "rum=x"): "did you mean 'run'?",
        ("evaluate", "run="): "run=VALUE",
        ("evaluate", f"run={tmp_path}"): "not a run folder",
        ("evaluate", "run=x", "checkpoint=worst"): "best, last",
        ("data", "rot=x"): "data_root",
    }.items():
        result = memmeta(*arguments)
        assert result.code == 2, arguments
        assert expected in result.err
        assert len(result.err.splitlines()) == 1


def test_help_loads_neither_torch_nor_hydra() -> None:
    script = (
        "import sys; from memmeta_exp.cli import main; code = main(['--help']);"
        "heavy = {'torch', 'hydra', 'omegaconf', 'wandb', 'numpy'} & set(sys.modules); print('HEAVY', heavy, code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "HEAVY set() 0" in done.stdout
    for command in ("train", "evaluate", "profile", "data"):
        assert command in done.stdout


def test_train_help_lists_the_groups(memmeta) -> None:
    result = memmeta("train", "--help")
    assert result.code == 0
    for group in ("algorithm", "dataset", "backbone", "optimizer", "tracking", "experiment"):
        assert f"\n{group}" in result.out
    assert "\nexperiment/paper: cifar_fs, fc100, " in result.out
    assert "\ndataset: cifar_fs, fc100, " in result.out
    assert "batch_size" in result.out


def test_a_folder_that_cannot_be_written(train, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "outputs").write_text("a file where the folder should be")
    result = train()
    assert result.code == 2
    assert len(result.err.splitlines()) == 1
    assert "hydra.run.dir" in result.err
