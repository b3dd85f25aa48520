"""The floor benchmark, small: its last line, and the work of both sides."""

import pytest
import torch

from benchmarks import floor, floor_steps
from memmeta_exp.data import EpisodeSampler, TaskBatch, load_split
from memmeta_exp.data.datasets import SyntheticConfig

SMALL = ["--filters", "4", "--tasks", "2", "--pairs", "2", "--threads", "1"]


@pytest.mark.slow
def test_its_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    both_tasks = 2 * floor_steps.IMAGES_PER_TASK

    def chosen(setting: floor_steps.Setting, batch: TaskBatch) -> tuple[floor_steps.Step, int, bool]:
        return floor_steps.supervised(setting, batch, both_tasks)[0], both_tasks, True

    monkeypatch.setattr(floor, "fastest", chosen)
    names = {"supervised_halves", "proposed", "proposed_same_chunk", "proposed_half_task", "anil"}
    threads = torch.get_num_threads()
    try:
        found = floor.run([*SMALL, "--threads", "2", "--algorithms", ",".join(sorted(names))])
    finally:
        torch.set_num_threads(threads)
    for key in ("time_ratio", "memory_ratio", "time_ratio_quartiles", "seconds", "supervised_seconds", "peak_mib"):
        assert set(found[key]) == names, key
    assert (found["device"], found["threads"]) == ("cpu", 2)
    assert found["memory_ratio"]["proposed_half_task"] < 0.8 * found["memory_ratio"]["proposed"]
    assert found["memory_ratio"]["proposed_same_chunk"] > 1.5 * found["memory_ratio"]["proposed"]
    assert 0.4 < found["memory_ratio"]["supervised_halves"] < 1
    assert all(low <= found["time_ratio"][name] <= high for name, (low, high) in found["time_ratio_quartiles"].items())


def test_the_search_takes_the_least_seconds_after_a_round_to_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = floor_steps.Setting(torch.device("cpu"), False, 4, 2, 2)
    rounds = {(25, False): [0.1, 5, 5], (50, False): [4, 4, 4], (100, False): [4, 3, 6], (50, True): [9, 2, 7]}
    times = {which: iter(taken) for which, taken in rounds.items()}
    times[25, True] = iter([8, 8, 8])
    monkeypatch.setattr(floor, "supervised", lambda setting, batch, chunk, run_parallel: ((chunk, run_parallel), []))
    monkeypatch.setattr(floor, "seconds", lambda setting, step: next(times[step]))
    assert floor.fastest(setting, some_tasks(2), rounds=2) == ((50, True), 50, True)


def test_without_a_head_one_task_stands_for_all() -> None:
    calls = []

    def gradient(support: tuple[torch.Tensor, torch.Tensor], *_: object) -> float:
        calls.append(len(support[0]))
        return float(support[0].sum())

    again = floor_steps.first_of_its_size(gradient)  # pyright: ignore[reportArgumentType]
    pairs = [(torch.full((tasks, 3), value), torch.zeros(tasks)) for tasks, value in ((1, 1.0), (1, 2.0), (2, 3.0))]
    assert [again(pair) for pair in pairs] == [3.0, 3.0, 18.0]
    assert calls == [1, 2]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--algorithms", "proposd"], "unknown algorithm 'proposd'"),
        (["--pairs", "1"], "1 is less than 2"),
        (["--threads", "0"], "0 is less than 1"),
        (["--tasks", "two"], "invalid whole number value: 'two'"),
        (["--device", "gpu"], "'gpu' is no device"),
        (["--device", "mps"], "'mps' is not measured here"),
        (["--device", "cuda:99"], "torch finds no cuda:99 here"),
    ],
)
def test_what_cannot_be_measured_is_said_in_a_line(options: list[str], said: str, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        floor.run(options)
    assert end.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def some_tasks(count: int) -> TaskBatch:
    images = load_split(SyntheticConfig(classes=8, images_per_class=20), "train")
    return EpisodeSampler(images, "train", 0, floor_steps.WAYS, floor_steps.SHOTS, floor_steps.QUERIES).draw(0, count)


def test_both_sides_move_theta() -> None:
    setting = floor_steps.Setting(torch.device("cpu"), False, 4, 2, 1)
    batch = some_tasks(2)
    sides = [
        floor_steps.supervised(setting, batch, 25),
        *(floor_steps.meta(setting, batch, name) for name in floor_steps.ALGORITHMS),
    ]
    for step, (model, *_) in sides:
        before = [p.detach().clone() for p in model.parameters()]
        step()
        moved = [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
        assert all(moved), [name for name, _ in model.named_parameters()]
