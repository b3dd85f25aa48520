"""`memmeta profile`, measured and predicted."""

import json
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from memmeta_exp.commands import profile as command
from memmeta_exp.config import from_dict
from memmeta_exp.config.compose import jobs
from memmeta_exp.experiment.builder import build
from memmeta_exp.experiment.optimizers import build_optimizer
from memmeta_exp.experiment.train_step import TrainStep
from memmeta_exp.profiling.peak_memory import MIB, measure_peak
from tests.commands.conftest import TINY, Result

ALGORITHMS = ["proposed", "anil", "itd_bio", "maml", "fomaml", "baseline", "imaml"]


@pytest.fixture
def profile(memmeta):
    return lambda *arguments: memmeta("profile", *TINY, *arguments)


def written(result: Result) -> tuple[Path, dict]:
    assert result.code == 0, result.err
    last = result.out.splitlines()[-1]
    assert last.startswith("profile: ")
    path = Path(last.removeprefix("profile: "))
    return path.parent, json.loads(path.read_text())


@pytest.mark.parametrize(
    "algorithm", [pytest.param(a, marks=[] if a in ("proposed", "maml") else [pytest.mark.slow]) for a in ALGORITHMS]
)
def test_phases_add_up_and_the_peak_is_the_one_of_measure_peak(profile, algorithm: str) -> None:
    _, found = written(profile(f"algorithm={algorithm}", "algorithm.inner_steps=3"))
    phases = found["phases"]
    assert {"sampling", "backward", "optimizer", "other"} <= phases.keys()
    assert ("linear solve" in phases) == (algorithm in ("proposed", "imaml"))
    assert sum(row["share"] for row in phases.values()) == pytest.approx(1)
    assert all(row["seconds"] >= 0 for row in phases.values())
    assert found["time/tasks_per_second"] == pytest.approx(2 / found["time/step_seconds_median"])
    assert found["memory/kind"] == "cpu-tensors"
    assert max(row["above_baseline_mib"] for row in phases.values()) == found["memory/above_baseline_mib"]
    assert found["memory/above_baseline_mib"] * MIB == peak_of_an_iteration(algorithm)
    assert found["memory/peak_mib"] > found["memory/above_baseline_mib"]


def peak_of_an_iteration(algorithm: str) -> float:
    (config,) = jobs([*TINY, f"algorithm={algorithm}", "algorithm.inner_steps=3"], False)
    experiment = build(config)
    optimizer, _ = build_optimizer(config, experiment.model)
    iteration = TrainStep(experiment, optimizer)
    iteration(1)
    iteration.clear()
    _, peak = measure_peak(lambda: iteration(2), "cpu", iteration.persistent())
    return peak.above_baseline_mib * MIB


def test_it_is_the_number_that_training_logs(a_run, profile) -> None:
    summary = json.loads((a_run / "summary.json").read_text())
    _, found = written(profile("steps=1"))
    for key in ("memory/above_baseline_mib", "memory/peak_mib", "memory/kind"):
        assert found[key] == summary[key]


@pytest.mark.slow
def test_with_workers_one_is_taken_apart(profile) -> None:
    """What runs in other threads would be seen by no observer."""
    alone, run_parallel = (written(profile("steps=1", "threads=2", f"workers={n}"))[1] for n in (1, 2))
    assert alone["phases"].keys() == run_parallel["phases"].keys()
    assert alone["memory/above_baseline_mib"] == run_parallel["memory/above_baseline_mib"]
    assert (alone["workers"], run_parallel["workers"]) == (1, 2)
    maml = [written(profile("steps=1", "algorithm=maml", "threads=2", f"workers={n}"))[1] for n in (1, 2)]
    assert maml[0]["memory/above_baseline_mib"] == maml[1]["memory/above_baseline_mib"]


def test_what_it_leaves(profile, tmp_path) -> None:
    folder, found = written(profile("steps=2", "seed=3"))
    assert folder.resolve().parents[1] == tmp_path / "outputs"
    assert {path.name for path in folder.iterdir()} == {"profile.json", "config.yaml", "env.json", "status.json"}
    assert from_dict(OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))).seed == 3  # pyright: ignore
    assert found["steps"] == 2
    named, _ = written(profile("steps=1", "hydra.run.dir=mine"))
    assert named == Path("mine")


@pytest.mark.parametrize(
    ("gpu", "device", "kind"),
    [(False, "auto", "cuda-predicted"), (True, "cpu", "cuda-predicted"), (True, "auto", "measured")],
)
def test_auto_measures_where_there_is_a_gpu(profile, monkeypatch, gpu: bool, device: str, kind: str) -> None:
    def measured(config, path, steps, title) -> None:
        command._write(config, path, {"memory/kind": "measured", "steps": steps}, "cpu", title)

    def predicted(config, path, title) -> None:  # torch's optimisers would ask the GPU that there is not
        command._write(config, path, {"memory/kind": "cuda-predicted"}, "cpu", title)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(command, "check", lambda config: None)
    monkeypatch.setattr(command, "_measured", measured)
    monkeypatch.setattr(command, "_predicted", predicted)
    _, found = written(profile("predict=auto", f"device={device}", *(["steps=2"] if kind == "measured" else [])))
    assert found["memory/kind"] == kind
    assert found.get("steps") == (2 if kind == "measured" else None)


def test_a_prediction(profile, memmeta, monkeypatch) -> None:
    _, found = written(profile("predict=cuda"))
    assert found["memory/kind"] == "cuda-predicted"
    assert found["memory/above_baseline_mib"] * MIB == found["bytes"]["tensors"] > 0
    tensors_and_images = found["bytes"]["tensors"] + found["bytes"]["images"]
    assert found["max_memory_allocated_hopper"] > found["max_memory_allocated"] > tensors_and_images
    monkeypatch.delenv("MEMMETA_DATA", raising=False)
    result = memmeta("profile", "predict=cuda", "experiment=paper/miniimagenet", "batch_size=4")
    assert written(result)[1]["bytes"]["images"] == 64 * 600 * 3 * 84 * 84
    assert "not measured" in result.out


BAD = {
    "predict=cpu": "choose from auto, cuda",
    "predict": "predict=VALUE",
    "steps=0": "from 1 to",
    "steps=two": "from 1 to",
    "-m": "one configuration",
    "--multirn": "unknown option",
    "hydra.run.dir=": "name a folder for the run",
    "hydra.run.dir=/proc/x/y": "cannot be created",
    "hydra.run.dir=a/${now:%Y}": "interpolation",
    "predict=cuda steps=3": "leave steps out",
    "predict=cuda precision=bf16": "autocast",
    "predict=cuda ways=6": "set ways to 5 or fewer",
}


@pytest.mark.parametrize("arguments", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(profile, tmp_path, arguments: str) -> None:
    result = profile(*arguments.split(" "))
    assert result.code == 2
    assert len(result.err.splitlines()) == 1, result.err
    assert BAD[arguments] in result.err
    assert list(tmp_path.iterdir()) == []


def test_data_that_cannot_be_read(memmeta, tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("MEMMETA_DATA", raising=False)
    for dataset in ("miniimagenet", "cifar_fs"):
        result = memmeta("profile", f"dataset={dataset}")
        assert result.code == 2
        assert len(result.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_profile_that_fails_is_one_line_and_leaves_nothing(profile, tmp_path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 5 GiB.")

    monkeypatch.setattr("memmeta_exp.experiment.train_step.TrainStep.__call__", refuse)
    result = profile()
    assert result.code == 1
    assert len(result.err.splitlines()) == 1
    assert "smaller tasks_per_pass" in result.err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_left_alone(profile, tmp_path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").write_text("x")
    result = profile("hydra.run.dir=mine")
    assert result.code == 2
    assert "not empty" in result.err
    assert [p.name for p in tmp_path.rglob("*")] == ["mine", "x"]


def test_help(memmeta) -> None:
    result = memmeta("profile", "--help")
    assert result.code == 0
    assert "predict=cuda" in result.out
