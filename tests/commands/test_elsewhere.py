"""`memmeta evaluate ... dataset=OTHER`: a run tested on the tasks of another dataset."""

import json
from pathlib import Path

import pytest

from memmeta_exp.cli import main
from memmeta_exp.commands.evaluate import read_config
from memmeta_exp.config import from_dict, to_dict
from memmeta_exp.experiment.builder import build, dataset_constants
from memmeta_exp.experiment.evaluation import score_tasks
from memmeta_exp.training import checkpoint
from tests.commands.conftest import TINY

GREY = ["dataset.image_size=28", "dataset.channels=1", "images.normalise=dataset"]
GLYPHS = {"name": "glyphs"}


@pytest.fixture(scope="module")
def grey(tmp_path_factory) -> Path:
    """A run on images like those of dataset=glyphs, made once: not to be touched."""
    folder = tmp_path_factory.mktemp("made") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("memmeta_exp.training.runner.plot_run", lambda path, title: [])
        assert main(["train", *TINY, *GREY, f"hydra.run.dir={folder}"]) == 0
    return folder


def test_a_run_is_tested_on_another_dataset_as_its_own_images_were_normalised(grey, memmeta, tmp_path) -> None:
    before = {path: path.read_bytes() for path in grey.rglob("*") if path.is_file()}
    result = memmeta("evaluate", f"run={grey}", "dataset=glyphs", "shots=9", "out=found.json")
    assert result.code == 0, result.err
    assert "5 tasks of glyphs (3-way 9-shot, 2 queries a class), best checkpoint of iteration" in result.out
    config = read_config(grey, {})
    of_dataset = dataset_constants(config.dataset, None)
    elsewhere = build(from_dict({**to_dict(config), "dataset": GLYPHS, "shots": 9}), of_dataset=of_dataset)
    sampler = elsewhere.samplers["test"]
    assert sampler.pixels.mean == build(config).samplers["test"].pixels.mean
    assert sampler.pixels.mean != build(elsewhere.config).samplers["test"].pixels.mean, "of glyphs themselves"
    checkpoint.restore(elsewhere.model, grey / "checkpoints" / "best.pt")
    score = score_tasks(elsewhere, sampler.draw(0, 5))
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["test/acc"], found["test/acc_ci95"]) == score.interval
    assert (found["test/loss"], found["tasks"], found["dataset"]) == (score.mean_loss, 5, "glyphs")
    assert {path: path.read_bytes() for path in grey.rglob("*") if path.is_file()} == before


def test_its_own_test_tasks_are_the_same_through_either_door(grey, memmeta, tmp_path) -> None:
    same = [o for o in [*TINY, *GREY] if o.startswith("dataset")]
    assert memmeta("evaluate", f"run={grey}", *same, "out=a.json").code == 0
    assert memmeta("evaluate", f"run={grey}", "tasks=5", "out=b.json").code == 0
    a, b = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    assert a.pop("of") != b.pop("of")
    assert a == b


REFUSED = {
    "dataset=synthetic": "has images of 32x32 pixels in 3 channels, and the run on synthetic needs 28x28 pixels in 1 "
    "channel: choose a dataset with this size and number of channels, or set dataset.image_size and dataset.channels",
    "dataset=miniimagenet": "has images of 84x84 pixels in 3 channels",
    "dataset=glyfs": "unknown dataset 'glyfs'; did you mean 'glyphs'?",
    "dataset=": "chooses nothing",
    "dataset.classes=4": "dataset.classes=4 is a dataset's key, and no dataset is chosen: add dataset=NAME",
    "dataset=glyphs dataset.klasses=4": "dataset.klasses",
    "dataset=sinusoid": "needs images, and dataset=sinusoid has none",
    "dataset=folder": "set dataset.path=DIR",
    "dataset=glyphs shots=600": "cannot be tested on dataset=glyphs",
    "dataset=glyphs tasks=1": "tasks=1 is out of range",
    "tasks=10000000000": "tasks=10000000000 is out of range: it must be a whole number from 2 to 1048576",
}


@pytest.mark.parametrize("options", REFUSED)
def test_what_cannot_be_tested_on_is_refused_in_one_line(grey, memmeta, tmp_path, options: str) -> None:
    result = memmeta("evaluate", f"run={grey}", *options.split())
    assert (result.code, len(result.err.splitlines())) == (2, 1), result.err
    assert REFUSED[options] in result.err
    assert result.out == ""
    assert list(tmp_path.iterdir()) == []
