"""The floor's own command, small: what it ends with, and that both sides do the work they are said to."""

import torch

from benchmarks import floor
from memmeta_exp.config import SyntheticConfig
from memmeta_exp.data import EpisodeSampler, load_split

SMALL = ["--filters", "4", "--tasks", "2", "--pairs", "2", "--threads", "1"]


def test_its_last_line() -> None:
    threads = torch.get_num_threads()
    try:
        found = floor.run([*SMALL, "--algorithms", "proposed,proposed_same_chunk,proposed_half_task,anil"])
    finally:
        torch.set_num_threads(threads)
    names = {"proposed", "proposed_same_chunk", "proposed_half_task", "anil"}
    for key in ("time_ratio", "memory_ratio", "time_ratio_quartiles", "seconds", "supervised_seconds", "peak_mib"):
        assert set(found[key]) == names, key
    assert found["device"] == "cpu"
    assert found["memory_ratio"]["proposed_half_task"] < 0.8 * found["memory_ratio"]["proposed"]
    assert found["memory_ratio"]["proposed_same_chunk"] >= found["memory_ratio"]["proposed"]
    assert all(low <= found["time_ratio"][name] <= high for name, (low, high) in found["time_ratio_quartiles"].items())


def test_both_sides_move_theta() -> None:
    setting = floor.Setting(torch.device("cpu"), False, 4, 2, 1)
    images = load_split(SyntheticConfig(classes=8, images_per_class=20), "train")
    batch = EpisodeSampler(images, "train", 0, floor.WAYS, floor.SHOTS, floor.QUERIES).draw(0, 2)
    sides = [floor.supervised(setting, batch, 25), *(floor.meta(setting, batch, name) for name in floor.ALGORITHMS)]
    for step, (model, *_) in sides:
        before = [p.detach().clone() for p in model.parameters()]
        step()
        moved = [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
        assert all(moved), [name for name, _ in model.named_parameters()]
