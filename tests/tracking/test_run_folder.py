"""The run folder: strict JSON, nothing lost, nothing half-written, nobody's folder taken twice."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from memmeta_exp.config import from_dict, to_dict
from memmeta_exp.tracking.environment import git_state
from memmeta_exp.tracking.run_folder import EpisodeResult, RunFolder, claim, read_metrics, read_test_episodes
from memmeta_exp.utils import atomic_io
from memmeta_exp.utils.errors import DataError


def test_metrics_are_strict_json_and_come_back(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    values = {
        "a": 0.1,
        "nan": math.nan,
        "inf": -math.inf,
        "np": np.float64(2.5),
        "torch": torch.tensor(3),
        "n": [np.nan],
    }
    folder.log({"iteration": 1, **values})
    line = (tmp_path / "metrics.jsonl").read_text()  # before close: every line is flushed
    assert line.endswith("\n")
    assert "NaN" not in line
    assert "Infinity" not in line
    assert read_metrics(tmp_path) == [
        {"iteration": 1, "a": 0.1, "nan": None, "inf": None, "np": 2.5, "torch": 3, "n": [None]}
    ]


def test_a_line_cut_by_a_kill_is_dropped_and_the_next_one_is_whole(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"iteration": 1, "x": 1.0}\n{"iteration": 2, "x"')
    assert [row["iteration"] for row in read_metrics(tmp_path)] == [1]
    folder = RunFolder(tmp_path)
    folder.log({"iteration": 2, "x": 4.0})
    folder.close()
    assert read_metrics(tmp_path) == [{"iteration": 1, "x": 1.0}, {"iteration": 2, "x": 4.0}]


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path)
    folder.write_summary({"test/acc": 0.5})

    def no_space(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(atomic_io.os, "fsync", no_space)
    with pytest.raises(OSError, match="no space"):
        folder.write_summary({"test/acc": 0.9})
    assert [file.name for file in tmp_path.iterdir()] == ["summary.json"]
    assert json.loads((tmp_path / "summary.json").read_text()) == {"test/acc": 0.5}


def test_config_yaml_rebuilds_the_config(tmp_path: Path) -> None:
    sections = {"algorithm": {"inner_lr": 1e-5}, "backbone": {}, "optimizer": {"name": "adam"}, "tracking": {}}
    config = from_dict({**sections, "dataset": {"name": "glyphs"}, "data_root": "1e-3"})
    folder = RunFolder(tmp_path)
    folder.write_config(to_dict(config))
    folder.write_overrides(["seed=3", "algorithm.mu=0.2"])
    read = OmegaConf.to_container(OmegaConf.load(tmp_path / "config.yaml"))
    assert isinstance(read, dict)
    assert from_dict({str(key): value for key, value in read.items()}) == config
    assert OmegaConf.load(tmp_path / "overrides.yaml") == ["seed=3", "algorithm.mu=0.2"]


def test_status_keeps_its_start_and_its_last_iteration(tmp_path: Path) -> None:
    folder, file = RunFolder(tmp_path), tmp_path / "status.json"
    folder.set_status("running", iteration=7)
    file.write_text(file.read_text().replace(json.loads(file.read_text())["started"], "2024-01-01T00:00:00+00:00"))
    folder.set_status("failed", reason="no space left")
    status = json.loads(file.read_text())
    assert (status["state"], status["iteration"], status["reason"]) == ("failed", 7, "no space left")
    assert status["started"] == "2024-01-01T00:00:00+00:00" < status["updated"]
    assert status["pid"] > 0
    with pytest.raises(AssertionError):
        folder.set_status("done")


def test_status_keeps_its_title(tmp_path: Path) -> None:
    folder, file = RunFolder(tmp_path), tmp_path / "status.json"
    folder.set_status("running")
    assert (folder.title, "title" in json.loads(file.read_text())) == (None, False)
    folder.set_status("running", title="seed=1 (mine)")
    folder.set_status("finished")
    assert folder.title == "seed=1 (mine)"
    file.write_text('{"title": 7}')
    assert folder.title is None


def test_test_episodes_come_back_exactly(tmp_path: Path) -> None:
    episodes = [
        EpisodeResult(0, 0.1 + 0.2, 1 / 3, (4, 0), (10, 11, 20, 21)),
        EpisodeResult(1, 1.0, math.nan, (1, 2), (0, 1, 2, 3)),
    ]
    RunFolder(tmp_path).write_test_episodes(episodes)
    lines = (tmp_path / "test_episodes.csv").read_text().splitlines()
    assert lines[0] == "task,accuracy,loss,classes,items"
    assert lines[2] == "1,1.0,nan,1 2,0 1 2 3"
    read = read_test_episodes(tmp_path)
    assert read[0] == episodes[0]
    assert math.isnan(read[1].loss)


def test_claims_never_meet(tmp_path: Path) -> None:
    program = "import sys; from pathlib import Path; from memmeta_exp.tracking.run_folder import claim; "
    program += "print(*(claim(Path(sys.argv[1])) for _ in range(20)))"
    command = [sys.executable, "-c", program, str(tmp_path / "new" / "run")]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    claimed = " ".join(worker.communicate()[0] for worker in workers).split()
    assert len(claimed) == len(set(claimed)) == 40
    assert {Path(name).name for name in claimed} == {"run", *(f"run-{i}" for i in range(1, 40))}
    assert claim(tmp_path / "new" / "run").name == "run-40"


def test_env_says_what_ran(tmp_path: Path) -> None:
    RunFolder(tmp_path).write_env({"device": "cpu", "note": 1})
    env = json.loads((tmp_path / "env.json").read_text())
    assert torch.__version__.partition("+")[0] == env["versions"]["torch"].partition("+")[0]
    assert env["versions"]["omegaconf"].startswith("2.3")
    assert env["threads"] == torch.get_num_threads()
    assert env["device_name"] == env["cpu_model"] != ""
    assert (env["cpu_cores"] > 0, env["command"], env["note"]) == (True, sys.orig_argv, 1)
    assert {"git_revision", "git_dirty", "python", "platform", "device"} <= env.keys()


def test_git_state_is_that_of_the_checkout_that_tracks_the_package(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        return subprocess.run(
            ["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    (tmp_path / "__init__.py").touch()
    git("init", "-q")
    assert git_state(tmp_path) == {"git_revision": None, "git_dirty": None}  # in a checkout, but no part of it
    git("add", ".")
    git("commit", "-q", "-m", "first")
    assert git_state(tmp_path) == {"git_revision": git("rev-parse", "HEAD"), "git_dirty": False}
    installed = tmp_path / "site-packages"  # an environment inside some other project's checkout
    installed.mkdir()
    (installed / "__init__.py").touch()
    assert git_state(installed) == {"git_revision": None, "git_dirty": None}
    (tmp_path / "__init__.py").write_text("changed = True\n")
    assert git_state(tmp_path)["git_dirty"] is True


def test_a_folder_in_the_place_of_a_file_that_is_written(tmp_path: Path) -> None:
    (tmp_path / "status.json").mkdir()
    with pytest.raises(DataError, match=r"status\.json is a folder, where a file is to be written: move it away"):
        atomic_io.replace_text(tmp_path / "status.json", "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]
