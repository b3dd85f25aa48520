"""The GPU benchmark on a CPU, small, and the released step structure it compares with."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from benchmarks import floor, floor_steps, gpu, released
from benchmarks.released import released_step
from memmeta_exp.algorithms import build_algorithm
from memmeta_exp.algorithms.proposed import ProposedConfig
from memmeta_exp.backbones import build_model
from memmeta_exp.backbones.conv4 import Conv4, Conv4Config
from memmeta_exp.data import EpisodeSampler, load_split
from memmeta_exp.data.datasets import SyntheticConfig
from memmeta_exp.profiling.peak_memory import PeakMeter

RELEASED = ProposedConfig(
    mu=0.0, inner_solver="gd", inner_steps=20, inner_lr=0.1, inner_tolerance=None, linear_solver="cg", linear_steps=3,
    linear_tolerance=None,
)  # fmt: skip


def test_the_released_structure_is_proposed_in_another_order_of_work() -> None:
    """The same meta-gradient, float64 (few steps of conjugate gradients: without R many of them amplify rounding)."""
    images = load_split(SyntheticConfig(classes=6, images_per_class=12), "train")
    batch = EpisodeSampler(images, "train", 0, 5, 5, 5).draw(0, 2)
    models = [
        build_model(Conv4Config(filters=6, block=b), 3, 32, 5, False, seed=0).double() for b in ("plain", "fused")
    ]
    released_step(models[0], batch, 20, 0.1, 3)
    build_algorithm(RELEASED, models[1]).step(batch)
    found = dict(models[1].named_parameters())
    compared = 0
    for name, parameter in models[0].named_parameters():
        if name in found:  # batch norm takes a convolution's bias away again
            a, b = parameter.grad, found[name].grad
            assert a is not None
            assert b is not None
            assert (a - b).norm() < 1e-9 * a.norm(), name
            compared += 1
    assert compared == 12


def test_it_needs_the_memory_it_is_blamed_for() -> None:
    """A second graph of the features beside the query's, where `proposed` holds one of each."""
    images = load_split(SyntheticConfig(classes=6, images_per_class=12), "train")
    batch = EpisodeSampler(images, "train", 0, 5, 5, 5).draw(0, 1)
    model = build_model(Conv4Config(filters=16, block="plain"), 3, 32, 5, False, seed=0)
    learner = build_algorithm(dataclasses.replace(RELEASED), model)

    def peak(step) -> int:
        model.zero_grad()
        with PeakMeter(model, images.images) as meter:
            step()
        return meter.requested_above_baseline

    assert peak(lambda: released_step(model, batch, 2, 0.1, 2)) > 1.1 * peak(lambda: learner.step(batch))


def test_its_peak_by_the_command_is_the_same_at_every_k(tmp_path: Path) -> None:
    out = tmp_path / "released.json"
    assert released.main(["--sizes", "32", "--steps", "1,4", "--filters", "16", "--out", str(out)]) == 0
    found = json.loads(out.read_text())["above_baseline_mib"]["32x32"]
    assert found["K=1"] == found["K=4"] > 10


def test_the_published_peaks_are_those_of_today() -> None:
    kept = json.loads((Path(__file__).parents[2] / "docs" / "results" / "released_memory.json").read_text())
    assert released.peak_mib(32, 5) == pytest.approx(kept["above_baseline_mib"]["32x32"]["K=5"], abs=0.01)


@pytest.mark.parametrize(
    "part", [*(pytest.param(p, marks=pytest.mark.slow) for p in ("memory", "floor")), "passes", "released"]
)
def test_the_command_without_a_gpu(part: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(gpu, "CASES", {name: gpu.CASES[name] for name in ("proposed", "maml checkpoint")})
    monkeypatch.setattr(Conv4, "prefers_joint_forward", Conv4.fuses)  # as on a GPU, which is what is predicted
    gpu.main(["--device", "cpu", "--small", "--parts", part, "--out", str(tmp_path)])
    result = json.loads((tmp_path / "gpu.json").read_text())
    text = (tmp_path / "gpu.md").read_text()
    assert "a CPU (no GPU figures)" in text
    if part == "memory":
        assert len(result["memory"]) == 2 * 2
        assert all(row["kind"] == "cpu-tensors" and abs(row["error"]) < 0.01 for row in result["memory"])
        assert all(row["predicted_allocated_mib"] > row["predicted_mib"] for row in result["memory"])
    elif part == "floor":
        rows = {floor.HALVES, *floor_steps.ALGORITHMS}
        assert set(result["fp32"]["time_ratio"]) == set(result["bf16"]["time_ratio"]) == rows
        assert "bf16, against a supervised step on the same images" in text
    elif part == "passes":
        few, many = result["passes"][1:]
        assert (few["tasks"], many["tasks"]) == (1, 2)
        assert 1.5 * few["above_baseline_mib"] < many["above_baseline_mib"]
        assert f"| 32 | 2 | 2 | {many['seconds']:.4f} |" in text
    else:
        assert result["released"]["times_as_fast"] > 0
        assert "times as fast as the released step structure" in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_gpu_is_asked_for(capsys, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as end:
        gpu.main(["--out", str(tmp_path)])
    assert end.value.code == 2
    assert "torch finds no cuda here" in capsys.readouterr().err


def test_no_row_begins_after_the_time(tmp_path: Path) -> None:
    gpu.main(["--device", "cpu", "--small", "--parts", "memory", "--minutes", "0", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert (found["memory"], found["memory_left_out"]) == ([], 2 * len(gpu.CASES))


def test_an_unknown_part_is_refused(capsys, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as end:
        gpu.main(["--device", "cpu", "--parts", "released,flor", "--out", str(tmp_path / "out")])
    assert end.value.code == 2
    assert "unknown part 'flor': choose from floor, passes" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
