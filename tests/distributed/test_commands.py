"""What several ranks are refused, in one line and before anything is made, and what they leave to rank 0."""

import os
from pathlib import Path

import pytest
import torch

from memmeta_exp.config import Config, from_omegaconf
from memmeta_exp.config.compose import composed
from memmeta_exp.distributed.launch_env import RankInfo, rank_info
from memmeta_exp.distributed.process_group import SINGLE_PROCESS, Group
from memmeta_exp.utils.errors import ConfigError
from tests.distributed.conftest import COMMAND

TORCHRUN = {
    "WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "here",
    "MASTER_PORT": "1",
}  # fmt: skip


def test_the_environment_names_a_rank_or_none() -> None:
    assert rank_info({}) is None
    assert rank_info({"WORLD_SIZE": "1", "RANK": "0"}) is None
    assert rank_info(TORCHRUN) == RankInfo(size=4, rank=3, local_rank=1, local_size=2)


@pytest.mark.parametrize(
    "wrong", [{"LOCAL_RANK": ""}, {"RANK": "4"}, {"RANK": "x"}, {"LOCAL_RANK": "2"}, {"WORLD_SIZE": "0"}]
)
def test_half_an_environment_is_refused(memmeta, monkeypatch, tmp_path, wrong: dict[str, str]) -> None:
    for name, value in (TORCHRUN | wrong).items():
        monkeypatch.setenv(name, value)
    result = memmeta("train")
    assert (result.code, result.out) == (2, "")
    (line,) = result.err.splitlines()
    assert "start ranks with torchrun, or unset WORLD_SIZE" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["evaluate", "profile", "sweep", "data", "report"])
def test_other_commands_are_for_one_process(memmeta, monkeypatch, command: str) -> None:
    for name, value in (TORCHRUN | {"RANK": "0"}).items():
        monkeypatch.setenv(name, value)
    first = memmeta(command)
    assert (first.code, first.err) == (
        2,
        f"memmeta: memmeta {command} runs in one process: start it without torchrun\n",
    )
    monkeypatch.setenv("RANK", "1")
    second = memmeta(command)
    assert (second.code, second.err) == (2, "")


def device(name: str, gpus: int, local: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> str:
    """What device=NAME is on the rank `local` (number, of how many) of a machine."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    config: Config = from_omegaconf(composed([f"device={name}"]))
    return Group(RankInfo(8, local[0], *local)).with_device(config).device


def test_each_rank_has_a_gpu_of_its_own(monkeypatch) -> None:
    for name in ("auto", "cuda"):
        assert device(name, 4, (3, 4), monkeypatch) == "cuda:3"
    assert device("cuda:2", 4, (0, 1), monkeypatch) == "cuda:2", "one rank a machine"
    assert device("auto", 0, (3, 4), monkeypatch) == "cpu"
    assert device("cpu", 4, (3, 4), monkeypatch) == "cpu"
    with pytest.raises(ConfigError, match="4 ranks on a machine where torch finds 2 CUDA devices"):
        device("auto", 2, (0, 4), monkeypatch)
    with pytest.raises(ConfigError, match="device=cuda:1 puts the 2 ranks of a machine on one GPU"):
        device("cuda:1", 4, (0, 2), monkeypatch)
    config = from_omegaconf(composed([]))
    assert SINGLE_PROCESS.with_device(config) is config


@pytest.mark.parametrize(("count", "ranks"), [(4, 3), (1, 3), (7, 2), (9, 4)])
def test_shares_are_contiguous_and_even(count: int, ranks: int) -> None:
    groups = [Group(RankInfo(ranks, rank, rank, ranks)) for rank in range(ranks)]
    tasks = list(range(count))
    assert [task for group in groups for task in tasks[group.share(count)]] == tasks
    sizes = groups[0].sizes(count)
    assert sizes == [len(tasks[group.share(count)]) for group in groups]
    assert max(sizes) - min(sizes) <= 1


def made(folder: Path) -> list[str]:
    return sorted(p for p in os.listdir(folder) if not p.startswith(("out", "err")))


REFUSED = {
    "batch_size=1": "batch_size=1 on 2 ranks leaves ranks without a task: use at most 1 ranks",
    "ways=9": "ways=9 is more than the 4 classes",
    "-m": "-m on 2 ranks",
}


@pytest.mark.parametrize("override", REFUSED)
def test_what_cannot_work_is_refused_once(on, tmp_path, override: str) -> None:
    ended = on(tmp_path, 2, *COMMAND, override)
    assert ended.codes == [2, 2]
    assert ended.err[0].startswith(f"memmeta: {REFUSED[override]}")
    assert ended.err[0].count("\n") == 1
    assert (ended.err[1], ended.out) == ("", ["", ""])
    assert made(tmp_path) == []


def test_rank_0_alone_prints_and_a_finished_run_stays(on, tmp_path) -> None:
    shown = on(tmp_path, 2, *COMMAND, "--cfg", "job")
    assert (shown.codes, shown.out[1], made(tmp_path)) == ([0, 0], "", [])
    assert "batch_size: 4" in shown.out[0]
    assert on(tmp_path, 2, *COMMAND, "iterations=1").codes == [0, 0]
    again = on(tmp_path, 2, *COMMAND, "iterations=1")
    assert again.codes == [0, 0]
    assert "nothing to do" in again.err[0]
    assert again.err[1] == ""
