"""W&B beside the run folder: the same numbers offline, one warning where it cannot be reached, never an exception."""

import logging
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import wandb
from offline_reader import finished_file, read_history, read_records, read_steps, read_summary

from memmeta_exp.config import Config, from_dict
from memmeta_exp.tracking import Tracker, wandb_run
from memmeta_exp.tracking.run_folder import RunFolder, read_metrics


def make_config(**tracking: Any) -> Config:
    sections = {"algorithm": {}, "dataset": {"name": "glyphs"}, "backbone": {}, "optimizer": {"name": "adam"}}
    return from_dict({**sections, "tracking": {"tags": ["mine"], **tracking}})


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "memmeta"]


def test_importing_the_package_imports_neither_wandb_nor_torch() -> None:
    program = "import sys, memmeta_exp.tracking; sys.exit(bool({'wandb', 'torch'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_offline_run_holds_the_numbers_of_metrics_jsonl(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = make_config(mode="offline")
    with Tracker(config, RunFolder(tmp_path)) as tracker:
        for t in range(1, 501):  # more than one 32 KiB block of the .wandb file
            tracker.log(t, {"train/loss": 1 / t, "train/acc": t / 1000, "val/acc": 0.5 - abs(t - 300) / 1000})
        tracker.log(500, {"memory/peak_mib": 50.25})
        print("a line of ours")
        assert tracker.wandb._run is not None
        assert tracker.wandb._run.settings.console == "off"  # the console is the launcher's to keep
        tracker.summary({"test/acc": 0.625})
        assert tracker.wandb.url is None
    file = finished_file(tmp_path)
    rows = read_metrics(tmp_path)
    assert len(rows) == 501
    logged = [*rows[:499], rows[499] | rows[500]]  # W&B has one row a step
    assert read_history(file) == logged
    assert read_steps(file) == list(range(1, 501))
    summary = read_summary(file)
    assert summary["val/acc"] == {"max": 0.5}
    assert summary["memory/peak_mib"] == {"max": 50.25}
    assert (summary["train/loss"], summary["test/acc"]) == (1 / 500, 0.625)
    captured = capfd.readouterr()
    assert captured.out + captured.err == "a line of ours\n"


def test_offline_run_is_named_grouped_and_configured(tmp_path: Path) -> None:
    config = make_config(mode="offline", project="mine")
    with Tracker(config, RunFolder(tmp_path)):
        pass
    file = finished_file(tmp_path)
    (run,) = [record.run for record in read_records(file) if record.HasField("run")][:1]
    assert (run.display_name, run.run_group, run.project) == (config.run_name, config.run_group, "mine")
    assert run.job_type == "train"
    assert sorted(run.tags) == ["conv4", "glyphs", "mine", "proposed"]
    values = {item.key: item.value_json for item in run.config.update}
    assert values["batch_size"] == "8"
    assert '"mu":0.1' in values["algorithm"].replace(" ", "")
    metrics = {record.metric.name: record.metric for record in read_records(file) if record.HasField("metric")}
    assert metrics["val/acc"].summary.max
    assert metrics["val/acc"].step_metric == "iteration"
    assert any(record.metric.glob_name == "*" for record in read_records(file) if record.HasField("metric"))


def test_wandbs_own_variables_count_where_no_key_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"PROJECT": "theirs", "RUN_GROUP": "g", "TAGS": "a,mine", "JOB_TYPE": "trial", "NOTES": "a note"}
    for name, value in variables.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(wandb, "init", lambda **given: asked.append(given) or MagicMock())
    keys = {"project": "p", "run_group": "h", "job_type": "j", "notes": "n", "run_name": "r"}
    for config in (make_config(mode="offline"), make_config(mode="offline", **keys)):
        wandb_run._start(config, tmp_path, {"name": "own", "job_type": "train"}, None)
    theirs, ours = ({key: given[key] for key in ("project", "group", "job_type", "notes", "name")} for given in asked)
    assert theirs == {"project": "theirs", "group": "g", "job_type": "trial", "notes": None, "name": "own"}
    assert ours == {"project": "p", "group": "h", "job_type": "j", "notes": "n", "name": "r"}
    assert asked[0]["tags"] == ["mine", "a", "proposed", "glyphs", "conv4"]


def test_a_title_stands_in_place_of_the_name_as_far_as_there_is_room(tmp_path: Path, monkeypatch) -> None:
    config, names = make_config(mode="offline"), []
    monkeypatch.setattr(wandb_run, "_init", lambda config, path, called, *_: names.append(called["name"]))
    for title in (None, "seed=1 (mine)", "k" * 128, "k" * 129):
        with Tracker(config, RunFolder(tmp_path), title=title):
            pass
    assert names == [config.run_name, "seed=1 (mine)", "k" * 128, "k" * 125 + "..."]


def test_what_is_not_finite_is_null_locally_and_left_out_in_wandb(tmp_path: Path) -> None:
    with Tracker(make_config(mode="offline"), RunFolder(tmp_path)) as tracker:
        tracker.log(1, {"train/loss": math.nan, "inner/kappa": math.inf, "train/acc": 0.5})
    assert read_metrics(tmp_path) == [{"iteration": 1, "train/loss": None, "inner/kappa": None, "train/acc": 0.5}]
    (row,) = read_history(finished_file(tmp_path))
    assert row["train/acc"] == 0.5
    assert not {"train/loss", "inner/kappa"} & row.keys()


def test_disabled_writes_local_files_only(tmp_path: Path) -> None:
    with Tracker(make_config(mode="disabled"), RunFolder(tmp_path)) as tracker:
        tracker.log(1, {"x": 1.0})
        tracker.summary({"y": 2.0})
        assert tracker.wandb.path is None
    assert sorted(file.name for file in tmp_path.iterdir()) == ["metrics.jsonl", "summary.json"]


def test_an_error_in_wandb_warns_once_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with Tracker(make_config(mode="offline"), RunFolder(tmp_path)) as tracker:
        run = tracker.wandb._run
        assert run is not None

        def broken(*args: Any, **kwargs: Any) -> None:
            raise BrokenPipeError("the service died\nsecond line")

        monkeypatch.setattr(run, "log", broken)
        for t in range(1, 4):
            tracker.log(t, {"x": float(t)})
        tracker.summary({"x": 3.0})
    run.finish()
    (warning,) = warnings_of(caplog)
    assert "the service died" in warning
    assert "\n" not in warning
    assert [row["x"] for row in read_metrics(tmp_path)] == [1.0, 2.0, 3.0]


def test_an_exception_in_training_comes_through_and_ends_the_run_as_failed(tmp_path: Path) -> None:
    def train() -> None:
        with Tracker(make_config(mode="offline"), RunFolder(tmp_path)) as tracker:
            tracker.log(1, {"x": 1.0})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train()
    exits = [record.exit.exit_code for record in read_records(finished_file(tmp_path)) if record.HasField("exit")]
    assert exits == [1]
    assert wandb.run is None


@pytest.fixture
def unreachable_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port where nothing listens, no stored key, and settings read anew."""
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    wandb.teardown()


@pytest.mark.usefixtures("unreachable_server")
@pytest.mark.parametrize("key", [None, "a" * 40, "b" * 86], ids=["no key", "key of 40", "key of 86"])
def test_online_without_key_or_network_goes_on_offline_with_one_warning(
    key: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if key is not None:
        monkeypatch.setenv("WANDB_API_KEY", key)
    caplog.set_level(logging.WARNING, logger="memmeta")
    start = time.monotonic()
    with Tracker(make_config(mode="online", init_timeout_s=1.0), RunFolder(tmp_path)) as tracker:
        opened_seconds = time.monotonic() - start
        tracker.log(1, {"x": 0.5})
        assert tracker.wandb.url is None
    wandb.teardown()
    (warning,) = warnings_of(caplog)
    assert "offline" in warning
    assert "\n" not in warning
    assert read_history(finished_file(tmp_path)) == [{"iteration": 1, "x": 0.5}]
    (folder,) = [path for path in (tmp_path / "wandb").iterdir() if path.is_dir() and not path.is_symlink()]
    assert folder.name.startswith("offline-run-"), "the run that never began leaves nothing"
    assert opened_seconds < 10  # 1 s of waiting and what starting wandb costs
    assert "wandb:" not in "".join(capfd.readouterr())
