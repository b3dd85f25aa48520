"""`memmeta sweep`, its jobs in this process: what is run, skipped, gone on with, listed, and said."""

import json
import logging
import os
import shlex
import signal
from pathlib import Path

import matplotlib.pyplot as plt
import pandas
import pytest
import torch
import yaml

from memmeta_exp.commands import sweep as command
from memmeta_exp.config import Config, ConfigError
from memmeta_exp.sweeps.sweep_folder import SweepFolder
from memmeta_exp.tracking.run_folder import RunFolder
from memmeta_exp.utils.errors import RunError, RunInterrupted
from tests.commands.conftest import TINY, Result

FILE = {
    "method": "grid",
    "parameters": {"algorithm": {"values": ["proposed", "anil"]}, "seed": {"values": [0, 1]}},
    "command": ["memmeta", "train", *TINY, "${args_no_hyphens}"],
}


@pytest.fixture
def reports(monkeypatch) -> list:
    """The reports asked for."""
    asked: list = []

    def write_report(folders: list[Path], out: Path) -> Path:
        asked.append((folders, out))
        return out / "report.html"

    monkeypatch.setattr("memmeta_exp.reports.report.write_report", write_report)
    return asked


@pytest.fixture
def sweep(memmeta, tmp_path, reports):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(FILE, sort_keys=False))
    return lambda *arguments: memmeta("sweep", "mine.yaml", *arguments)


@pytest.fixture
def runs(monkeypatch) -> list[Config]:
    """Runs that cost nothing, as they are asked for; seeds 7, 8 and 9 fail, crash and are interrupted."""
    asked: list[Config] = []

    def run(config: Config, path: Path, overrides: list[str], title: str | None = None) -> Path:
        asked.append(config)
        folder = RunFolder(path)
        if config.seed == 7:
            folder.set_status("failed", reason="train/loss is nan at iteration 3")
            raise RunError("train/loss is nan at iteration 3")
        if config.seed == 8:
            raise ZeroDivisionError("a bug")
        if config.seed == 9:
            folder.set_status("interrupted", reason="stopped by signal 15")
            raise RunInterrupted(signal.SIGTERM, 3, path)
        folder.write_summary({"test/acc": config.seed / 10, "title": title})
        folder.set_status("finished", iteration=6)
        return path / "summary.json"

    monkeypatch.setattr(command.runner, "run", run)
    return asked


def rows(folder: str = "outputs/sweeps/mine") -> pandas.DataFrame:
    return pandas.read_csv(f"{folder}/results.csv")


def test_real_jobs_in_one_process_are_those_of_their_own_commands(memmeta, sweep, reports) -> None:
    threads = torch.get_num_threads()
    result = sweep("seed=1", "iterations=1")
    assert result.code == 0, result.err
    table = rows()
    assert list(table["state"]) == ["finished", "finished"]
    alone = memmeta(*shlex.split(dry_line(memmeta, 1))[1:])
    assert alone.code == 0, alone.err
    ours, theirs = Path("outputs/sweeps/mine") / table["job"].tolist()[1], alone.summary.parent
    a, b = (torch.load(run / "checkpoints" / "last.pt", weights_only=True)["model"] for run in (ours, theirs))
    assert all(torch.equal(a[key], b[key]) for key in a), "a job before it in the process changed it"
    assert (ours / "test_episodes.csv").read_text() == (theirs / "test_episodes.csv").read_text()
    assert json.loads((ours / "summary.json").read_text())["test/acc"] == table["test/acc"].tolist()[1]
    assert torch.get_num_threads() == threads
    assert not [h for h in logging.getLogger("memmeta").handlers if "log" in str(getattr(h, "stream", ""))]
    assert plt.get_fignums() == []
    assert reports == [([Path("outputs/sweeps/mine")], Path("outputs/sweeps/mine/report"))]
    assert "summary: " not in result.out, "what a job prints is in its log"
    assert "summary: " in next(Path("outputs/sweeps/mine/log").glob("anil*.txt")).read_text()


def dry_line(memmeta, index: int) -> str:
    """The command of a job as dry_run prints it, but for another folder."""
    lines = memmeta("sweep", "mine.yaml", "seed=1", "iterations=1", "dry_run=true", "dir=elsewhere").out.splitlines()
    return lines[index]


def test_it_goes_on_when_one_fails_and_skips_what_is_finished(sweep, runs, reports) -> None:
    result = sweep("seed=1,7,8", "algorithm=proposed")
    table = rows()
    assert result.code == 1
    assert list(table["state"]) == ["finished", "failed", "failed"]
    assert table["reason"].tolist()[1] == "train/loss is nan at iteration 3"
    assert table["reason"].tolist()[2] == "ZeroDivisionError: a bug"
    assert list(table["seed"]) == [1, 7, 8]
    assert table["test/acc"].tolist()[0] == 0.1
    assert "2 of 3 jobs did not finish" in result.err
    assert "Traceback" in next(Path("outputs/sweeps/mine/log").glob("*-s8-*.txt")).read_text()
    assert "Traceback" not in result.out + result.err
    assert len(reports) == 1
    runs.clear()
    assert sweep("seed=1,7", "algorithm=proposed").code == 1
    assert [config.seed for config in runs] == [7], "finished jobs are not run again, failed ones are"
    runs.clear()
    assert sweep("seed=1", "algorithm=proposed", "tracking=offline").code == 0
    assert not runs
    assert list(rows()["seed"]) == [1]
    assert len(reports) == 3, "a finished sweep makes its report again"


def test_what_a_sweep_says_and_leaves(sweep, runs) -> None:
    """Jobs are named by what tells them apart."""
    asked = ("seed=1,7", "algorithm=anil", "batch_size=2")
    before = sweep("dry_run=true", *asked)
    assert not Path("outputs").exists()
    lines = before.out.splitlines()
    assert [line.startswith("memmeta train dataset=synthetic") for line in lines] == [True] * 2
    result, folder, table = sweep(*asked), Path("outputs/sweeps/mine"), rows()
    said = [line.partition("] ")[2].partition(", ")[0] for line in result.out.splitlines() if line.startswith("[")]
    ids = [Path(job).name for job in table["job"]]
    assert said == [f"finished seed=1 ({ids[0]})", f"failed seed=7 ({ids[1]})"]
    assert f"1 of 2 jobs did not finish: seed=7 ({ids[1]})" in result.err
    shown = result.out.splitlines()
    assert sum(all(word in line for word in (" 7 ", "failed")) for line in shown) == 1, "of the table"
    assert sum(all(word in line for word in (" 1 ", "finished", " 10.00%")) for line in shown) == 1
    assert table["title"].tolist()[0] == "seed=1 (anil-synthetic-conv4-3w2s-s1)"
    described = yaml.safe_load((folder / "sweep.yaml").read_text())
    expected = {"name": "mine", "file": "mine.yaml", "overrides": list(asked), "command": FILE["command"], "jobs": 2}
    assert described == expected
    listed = json.loads((folder / "jobs.json").read_text())
    assert [job["values"]["seed"] for job in listed] == [1, 7]
    assert all((folder / job["job"]).is_dir() for job in listed)
    assert len(pandas.read_parquet(folder / "results.parquet")) == 2
    assert sweep("dry_run=true", *asked).out.splitlines() == [f"# finished: {lines[0]}", lines[1]]


def test_an_interruption_stops_it_and_leaves_the_table(sweep, runs, reports) -> None:
    result = sweep("seed=9,2", "algorithm=proposed")
    assert result.code == 128 + signal.SIGTERM
    assert [config.seed for config in runs] == [9]
    assert list(rows()["state"]) == ["interrupted", "waiting"]
    assert not reports
    assert "run the same command again to continue" in result.err


def test_a_signal_between_jobs_stops_it(sweep, runs, monkeypatch) -> None:
    update = command._Progress.update

    def interrupted(self) -> None:
        update(self)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(command._Progress, "update", interrupted)
    assert sweep("seed=1,2", "algorithm=proposed").code == 130
    assert list(rows()["state"]) == ["finished", "waiting"]


def test_leaving_at_once_leaves_the_table_too(sweep, runs, monkeypatch) -> None:
    run = command.runner.run

    def impatient(config: Config, path: Path, overrides: list[str], title: str | None = None) -> Path:
        if config.seed == 2:
            raise KeyboardInterrupt
        return run(config, path, overrides, title=title)

    monkeypatch.setattr(command.runner, "run", impatient)
    assert sweep("seed=2,3", "algorithm=proposed").code == 130
    assert list(rows()["state"]) == ["interrupted", "waiting"]


def test_profile_jobs(memmeta, tmp_path, reports) -> None:
    shape = ["dataset=synthetic", "dataset.image_size=16", "backbone.filters=4", "batch_size=1"]
    parameters = {"algorithm.inner_steps": {"values": [2]}, "algorithm": {"value": "anil"}}
    content = {
        "method": "grid",
        "parameters": parameters,
        "command": ["memmeta", "profile", "predict=auto", *shape, "${args_no_hyphens}"],
    }
    (tmp_path / "memory.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    result = memmeta("sweep", "memory.yaml", "device=cpu")  # so that no GPU is measured where there is one
    assert result.code == 0, result.err
    table = rows("outputs/sweeps/memory")
    assert list(table["memory/kind"]) == ["cuda-predicted"]
    assert min(table["memory/above_baseline_mib"].tolist()) > 0
    assert all(table["bytes.tensors"].notna().tolist())
    assert list(table["algorithm.inner_steps"]) == [2]
    folder = Path("outputs/sweeps/memory") / table["job"].tolist()[0]
    assert {"profile.json", "config.yaml", "env.json", "status.json"} <= {file.name for file in folder.iterdir()}
    again = memmeta("sweep", "memory.yaml", "device=cpu")
    assert (again.code, "1 jobs, 0 to do" in again.out) == (0, True)


def test_the_small_size_is_a_file_of_its_own(sweep, runs, tmp_path) -> None:
    refused = sweep("size=small")
    assert (refused.code, "small/mine.yaml, which does not exist" in refused.err) == (2, True)
    (tmp_path / "small").mkdir()
    small = {**FILE, "parameters": {"seed": {"value": 5}}}
    (tmp_path / "small" / "mine.yaml").write_text(yaml.safe_dump(small, sort_keys=False))
    assert sweep("size=small").code == 0
    assert list(rows("outputs/sweeps/mine-small")["seed"]) == [5]
    assert yaml.safe_load(Path("outputs/sweeps/mine-small/sweep.yaml").read_text())["name"] == "mine"


BAD = {
    "nothing.yaml": "the sweep file nothing.yaml does not exist; did you mean 'mine.yaml'?",
    "": "sweep takes one sweep file, such as sweeps/accuracy.yaml",
    "mine.yaml other.yaml": "sweep takes one sweep file, not 2",
    "mine.yaml -m": "unknown option '-m'",
    "mine.yaml size=big": "size=big is unknown",
    "mine.yaml launcher=jobblib": "launcher=jobblib is unknown; did you mean 'joblib'?",
    "mine.yaml dry_run=yes": "dry_run=yes is unknown",
    "mine.yaml dir=a${b}": "dir=a${b}: name a folder",
    "mine.yaml optimizer.lr=interval(0.1,1)": "a sweep cannot draw from an interval; list the values",
    "mine.yaml algorithm=glob(x*)": "algorithm=glob(x*) stands for no value: name at least one; choose from anil, base",
    "mine.yaml seeds=1": "unknown key 'seeds'; did you mean 'seed'?",
    "mine.yaml algorithm=protosed": "unknown algorithm 'protosed'; did you mean 'proposed'?",
    "mine.yaml ways=1": "ways=1 is out of range",
    "mine.yaml device=cuda:9": "torch finds",
    "mine.yaml launcher=joblib device=cuda:0": "device=cuda",
    "mine.yaml launcher.n_jobs=2": "launcher=basic has no setting 'launcher.n_jobs': it has no settings",
    "mine.yaml launcher=joblib launcher.jobs=2": "has no setting 'launcher.jobs'; did you mean 'launcher.n_jobs'?",
    "mine.yaml seed=1 algorithm=anil launcher=joblib launcher.n_jobs=0": "launcher.n_jobs=0 is out of range",
    "mine.yaml launcher=joblib launcher.n_jobs=many": "launcher.n_jobs",
    "mine.yaml hydra.run.dir=x": "hydra.run.dir: the sweep sets each job's folder",
}


@pytest.mark.parametrize("arguments", BAD, ids=BAD.values())
def test_bad_input_is_one_line_and_leaves_nothing(sweep, memmeta, arguments: str) -> None:
    result: Result = memmeta("sweep", *arguments.split())
    assert result.code == 2
    assert BAD[arguments] in result.err
    assert result.err.count("\n") == 1
    assert result.out == ""
    assert not Path("outputs").exists()


@pytest.mark.parametrize("name", ["mine (copy).yaml", "lr,mu.yaml", "a{b}=c.yaml", "é's #1.yaml"])
def test_files_and_folders_have_any_name(sweep, memmeta, runs, name: str) -> None:
    Path("mine.yaml").rename(name)
    for folder in ([], [f"dir=x/{name}"]):
        result = memmeta("sweep", name, "seed=0,1", *folder)
        assert result.code == 0, result.err
    for path in (f"outputs/sweeps/{Path(name).stem}", f"x/{name}"):
        assert list(rows(path)["state"]) == ["finished"] * 4


def test_functions_of_hydra_in_the_file_and_beside_it(sweep, runs) -> None:
    parameters = {"algorithm": {"values": ["glob(m*)", "anil"]}, "seed": {"value": "range(2,4)"}}
    Path("mine.yaml").write_text(yaml.safe_dump({**FILE, "parameters": parameters}))
    result = sweep("batch_size=sort(3,1)")
    assert result.code == 0, result.err
    found = [(c.algorithm.name, c.seed, c.batch_size) for c in runs]
    assert set(found) == {(name, seed, size) for size in (1, 3) for name in ("maml", "anil") for seed in (2, 3)}


def test_a_launcher_that_is_not_installed(sweep, monkeypatch) -> None:
    monkeypatch.setattr("memmeta_exp.sweeps.slurm.find_spec", lambda name: None)
    result = sweep("launcher=slurm")
    assert (result.code, "pip install 'memmeta[slurm]'" in result.err) == (2, True)


def test_a_dry_run_for_slurm_needs_no_slurm(sweep, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    asked = ("seed=1", "launcher=slurm", "launcher.account=lab", "launcher.timeout_min=30")
    result = sweep("dry_run=true", *asked)
    assert result.out.startswith(
        "# Slurm: partition the default (launcher.partition), account lab (launcher.account), time 30 min "
    )
    misspelt = sweep("dry_run=true", *asked, "launcher.partitoin=gpu")
    assert (misspelt.code, "did you mean 'launcher.partition'?" in misspelt.err) == (2, True)
    assert "needs srun, which is not found" in sweep(*asked).err


def test_a_study_is_named_with_its_folder(sweep, memmeta) -> None:
    Path("sweeps").mkdir()
    Path("mine.yaml").rename("sweeps/mine.yaml")
    assert "the sweep file mine does not exist: write memmeta sweep sweeps/mine.yaml" in memmeta("sweep", "mine").err


def test_one_sweep_at_a_time_in_a_folder(sweep, runs) -> None:
    with SweepFolder(Path("outputs/sweeps/mine")).held():
        result = sweep("seed=1", "algorithm=anil")
    assert (result.code, "outputs/sweeps/mine is in use by another memmeta sweep" in result.err) == (2, True)
    assert not runs


def test_a_report_that_fails_costs_no_number(sweep, runs, monkeypatch) -> None:
    def broken(folders: list[Path], out: Path) -> Path:
        raise ConfigError("no chart today")

    monkeypatch.setattr("memmeta_exp.reports.report.write_report", broken)
    result = sweep("seed=1", "algorithm=anil")
    assert (result.code, result.err) == (2, "memmeta: no chart today\n")
    assert list(rows()["state"]) == ["finished"]
