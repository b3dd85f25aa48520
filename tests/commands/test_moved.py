"""A run on dataset=folder whose images, or whose caller, have moved."""

import os
import shutil
from pathlib import Path

import pytest

from memmeta_exp.cli import main
from memmeta_exp.commands.evaluate import read_config
from memmeta_exp.config import absolute, flat, from_dict, path_keys, to_dict
from memmeta_exp.reports.paper_results import image_size
from tests.data.folders import image, tree

TINY = [
    "dataset=folder", "dataset.image_size=16", "images.normalise=dataset", "backbone.filters=8", "ways=2", "shots=1",
    "queries=1", "batch_size=2", "iterations=2", "val_tasks=4", "test_tasks=4", "convergence_tasks=2", "threads=1",
    "tracking=disabled", "progress=false",
]  # fmt: skip
OTHER = ["dataset=synthetic", "dataset.image_size=16"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """birds, and run, which was trained on it by its relative path. Made once: not to be touched."""
    place = tmp_path_factory.mktemp("made")
    tree(place / "birds", 3, {"c00": 1})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("memmeta_exp.training.runner.plot_run", lambda path, title: [])
        patch.setenv("MEMMETA_CACHE", str(place / "cache"))
        patch.chdir(place)
        assert main(["train", *TINY, "dataset.path=birds", "hydra.run.dir=run"]) == 0
    return place


@pytest.fixture
def run(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run and of its images, which are in `moved` now; the current folder has neither."""
    monkeypatch.setenv("MEMMETA_CACHE", str(tmp_path / "cache"))
    shutil.copytree(made / "run", tmp_path / "run")
    shutil.copytree(made / "birds", tmp_path / "moved")
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace(str(made / "birds"), "/was/here/birds"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "run"


def test_paths_are_stored_absolute_and_overrides_as_they_were_given(made: Path) -> None:
    assert read_config(made / "run", {}).dataset.path == str(made / "birds")
    assert "dataset.path=birds" in (made / "run" / "overrides.yaml").read_text()
    assert set(path_keys()) == {"data_root", "weights", "dataset.path", "dataset.split_file", "backbone.weights"}


def test_every_path_of_a_configuration_is_made_absolute(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = to_dict(read_config(made / "run", {}))
    values["dataset"] |= {"path": "birds", "split_file": "../split.csv"}
    values |= {"data_root": "~/data", "weights": None, "backbone": {"name": "timm", "weights": "w.pt"}, "images": {}}
    monkeypatch.chdir("/usr")
    found = flat(to_dict(absolute(from_dict(values))))
    assert [found[key] for key in path_keys()] == [
        os.path.expanduser("~/data"), None, "/usr/birds", "/split.csv", "/usr/w.pt",
    ]  # fmt: skip


def test_without_its_images_one_line_says_so(run: Path, memmeta, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in (["evaluate", f"run={run}"], ["train", f"resume={run}", "iterations=3"]):
        result = memmeta(*command)
        assert (result.code, len(result.err.splitlines())) == (2, 1), result.err
        assert "dataset.path=/was/here/birds is not a folder" in result.err
        assert "damaged" not in result.err
    finished = memmeta("train", f"resume={run}")
    assert (finished.code, finished.out) == (0, f"summary: {run / 'summary.json'}\n"), finished.err
    assert image_size(to_dict(read_config(run, {}))) == 16, "for a report"


def test_a_test_on_another_dataset_needs_no_images_of_the_run(run: Path, made: Path, memmeta) -> None:
    result = memmeta("evaluate", f"run={run}", *OTHER)
    assert result.code == 0, result.err
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEMMETA_CACHE", str(made / "cache"))
        assert memmeta("evaluate", f"run={made / 'run'}", *OTHER).out == result.out, "normalised by the same constants"


def test_evaluate_takes_the_place_where_the_images_are_now(run: Path, memmeta) -> None:
    result = memmeta("evaluate", f"run={run}", f"dataset.path={run.parent / 'moved'}")
    assert "; 4 tasks score as stored" in result.out, result.err
    assert read_config(run, {}).dataset.path == "/was/here/birds", "nothing is written"


def test_resume_and_the_same_command_take_it_and_store_it(run: Path, memmeta) -> None:
    moved = f"dataset.path={os.path.relpath(run.parent / 'moved')}"
    resumed = memmeta("train", f"resume={run}", "iterations=3", moved)
    assert resumed.code == 0, resumed.err
    assert "from iteration 2" in resumed.err
    config = read_config(run, {})
    assert (config.dataset.path, config.iterations) == (str(run.parent / "moved"), 3)
    again = memmeta("train", *TINY, moved, "iterations=3", f"hydra.run.dir={run}")
    assert "nothing to do" in again.err


def test_other_images_are_not_taken_for_those_of_the_run(run: Path, memmeta) -> None:
    image(run.parent / "moved" / "c08" / "0.png", seed=999)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    moved = f"dataset.path={run.parent / 'moved'}"
    for command in (
        ["evaluate", f"run={run}", moved],
        ["train", f"resume={run}", moved],
        ["train", *TINY, moved, f"hydra.run.dir={run}"],
    ):
        result = memmeta(*command)
        assert result.code == 2, result.out
        assert "the images of test are not those that the run began with" in result.err.splitlines()[-1]
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_path_is_relative_to_where_the_command_was_given(run: Path, memmeta, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parent)
    places = ["hydra.job.chdir=true", f"hydra.run.dir={run.parent / 'new'}"]
    result = memmeta("train", *TINY, "dataset.path=moved", *places)
    assert result.code == 0, result.err
    assert read_config(run.parent / "new", {}).dataset.path == str(run.parent / "moved")


REFUSED = {
    "evaluate run={run} backbone.weights=x": "unknown key 'backbone.weights'",
    "evaluate run={run} dataset.path=/nowhere": "dataset.path=/nowhere is not a folder",
    "evaluate run={run} dataset.channels=1": "is a dataset's key, and no dataset is chosen",
    "train resume={run} dataset.image_size=20": "dataset.path, dataset.split_file may change",
}


@pytest.mark.parametrize("command", REFUSED)
def test_what_may_not_change_is_refused(run: Path, memmeta, command: str) -> None:
    result = memmeta(*command.format(run=run).split())
    assert (result.code, len(result.err.splitlines())) == (2, 1), result.err
    assert REFUSED[command] in result.err
    assert "damaged" not in result.err
