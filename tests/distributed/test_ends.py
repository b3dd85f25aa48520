"""However one rank ends, all end: at the same iteration, with one line, and with a checkpoint that any number of ranks
goes on from."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from memmeta_exp.tracking.run_folder import read_metrics
from tests.distributed.conftest import COMMAND, Ended, same_numbers
from tests.training.conftest import ROOT, status

STEP, EVALUATE = (
    "memmeta_exp.training.data_parallel:ShardedLearner.step",
    "memmeta_exp.training.data_parallel:ShardedLearner.evaluate",
)
SUM, INSIDE = "memmeta_exp.distributed.process_group:Group.sum_", "memmeta_exp.algorithms.learner:Learner._start_of"
WARM = [
    "algorithm.inner_warm_start=true", "algorithm.linear_warm_start=true", "algorithm.linear_solver=cg",
    "checkpoint_every=2",
]  # fmt: skip
KILLED = -signal.SIGKILL


@pytest.fixture(scope="session")
def alone(on, tmp_path_factory) -> Callable[..., Path]:
    """The folder of COMMAND on one process, left alone; made once."""
    made: dict[tuple[str, ...], Path] = {}

    def run(*overrides: str) -> Path:
        if overrides not in made:
            made[overrides] = tmp_path_factory.mktemp("alone")
            assert on(made[overrides], 1, *COMMAND, *overrides).codes == [0]
        return made[overrides] / "run"

    return run


def lines(ended: Ended) -> list[str]:
    """All that the ranks said on standard error."""
    assert ended.out[1:] == [""] * (len(ended.out) - 1)
    assert not any("Traceback" in err for err in ended.err), ended.err
    return [line for err in ended.err for line in err.splitlines()]


def goes_on(on, tmp_path: Path, ranks: int, iteration: int, left_alone: Path) -> None:
    """On another number of ranks, to the end that the run left alone came to."""
    again = on(tmp_path, ranks, "train", "resume=run")
    assert again.codes == [0] * ranks, again.err
    assert f"going on in run from iteration {iteration}" in again.err[0]
    assert "ranks 2 is now" in again.err[0] or "ranks 3 is now" in again.err[0]
    same_numbers(left_alone, tmp_path / "run")
    assert status(tmp_path / "run")["state"] == "finished"


def test_a_killed_rank_costs_no_iteration(on, alone, tmp_path) -> None:
    """In the fifth step (with two reference measures), between its work and the sum: theta is that of four."""
    ended = on(tmp_path, 2, *COMMAND, strikes=[[1, SUM, 7, signal.SIGKILL]])
    assert ended.codes == [1, KILLED]
    (line,) = lines(ended)
    assert "a rank of this run is gone (" in line
    assert line.endswith("/run goes on from iteration 4, on any number of ranks")
    said = status(tmp_path / "run")
    assert (said["state"], said["iteration"]) == ("failed", 4)
    assert said["reason"] in line
    assert [row["iteration"] for row in read_metrics(tmp_path / "run")] == [0, 1, 2, 3, 4]
    goes_on(on, tmp_path, 1, 4, alone())


def test_warm_starts_that_die_with_their_rank(on, alone, tmp_path) -> None:
    """Then the last checkpoint stands, which has those of all ranks; three ranks take them up from two."""
    ended = on(tmp_path, 2, *COMMAND, *WARM, strikes=[[1, STEP, 7, signal.SIGKILL]])
    assert ended.codes == [1, KILLED]
    (line,) = lines(ended)
    assert line.endswith("goes on from its last checkpoint, on any number of ranks")
    assert status(tmp_path / "run")["state"] == "failed"
    goes_on(on, tmp_path, 3, 4, alone(*WARM))


@pytest.mark.slow
def test_when_rank_0_is_killed_another_says_so(on, alone, tmp_path) -> None:
    ended = on(tmp_path, 3, *COMMAND, strikes=[[0, STEP, 3, signal.SIGKILL]])
    assert ended.codes == [KILLED, 1, 1]
    (line,) = lines(ended)
    assert "a rank of this run is gone (" in line
    assert status(tmp_path / "run")["state"] == "running", "as of any run whose process was killed"
    goes_on(on, tmp_path, 2, 0, alone())


STOPS = {  # what the signal arrives in, at which rank, and the iterations done
    "in the third step": (INSIDE, 1, 3),
    "in a validation": (EVALUATE, 0, 3),
    "in the test": (EVALUATE, 1, 6),
}


@pytest.mark.parametrize(
    "moment", [pytest.param(m, marks=[] if m == "in the third step" else [pytest.mark.slow]) for m in STOPS]
)
def test_a_signal_to_one_rank_stops_all_at_the_same_iteration(on, alone, tmp_path, moment: str) -> None:
    place, rank, iteration = STOPS[moment]
    n = {"in the third step": 14, "in a validation": 2, "in the test": 4}[moment]
    ended = on(tmp_path, 2, *COMMAND, strikes=[[rank, place, n, signal.SIGTERM]])
    assert ended.codes == [128 + signal.SIGTERM] * 2, ended.err
    (line,) = lines(ended)
    assert f"stopped by signal 15 after iteration {iteration}; its state is saved in {tmp_path / 'run'}" in line
    said = status(tmp_path / "run")
    assert (said["state"], said["iteration"]) == ("interrupted", iteration)
    goes_on(on, tmp_path, 1, iteration, alone())


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("OSError", "rank 1: OSError: injected"),
        pytest.param("MemoryError", "rank 1: out of memory with tasks_per_pass=auto", marks=pytest.mark.slow),
    ],
)
def test_a_rank_that_fails_ends_all_with_its_line(on, tmp_path, what: str, said: str) -> None:
    ended = on(tmp_path, 3, *COMMAND, strikes=[[1, INSIDE, 5, what]])
    assert ended.codes == [1] * 3, ended.err
    (line,) = lines(ended)
    assert line.startswith(f"memmeta: {said}")
    assert status(tmp_path / "run")["state"] == "failed"
    assert status(tmp_path / "run")["reason"] in line


def test_our_own_bugs_keep_their_traceback_on_their_rank(on, tmp_path) -> None:
    ended = on(tmp_path, 2, *COMMAND, strikes=[[1, INSIDE, 12, "KeyError"]])
    assert ended.codes == [1, 99]
    assert ended.err[0] == "memmeta: rank 1: KeyError: 'injected'\n"
    assert "Traceback" in ended.err[1]


def test_rank_0_that_cannot_write_ends_the_others(on, tmp_path) -> None:
    ended = on(tmp_path, 2, *COMMAND, strikes=[[0, "memmeta_exp.tracking.run_folder:RunFolder.log", 3, "ENOSPC"]])
    assert ended.codes == [1, 1]
    (line,) = lines(ended)
    assert "No space left on device" in line
    assert status(tmp_path / "run")["state"] == "failed"


def test_ranks_that_are_not_alike_end_the_run(on, tmp_path) -> None:
    """One has other images: before the first iteration; the theta of one went its own way: at a validation."""
    ended = on(tmp_path, 2, *COMMAND, strikes=[[1, "memmeta_exp.training.state:fingerprint", 1, ["others"]]])
    assert ended.codes == [2, 2]
    (line,) = lines(ended)
    assert line.startswith("memmeta: the images: ")
    assert "others" in line
    ended = on(tmp_path, 2, *COMMAND, strikes=[[1, "torch.optim:Adam.step", 2, [None]]])
    assert ended.codes == [1, 1]
    (line,) = lines(ended)
    assert line.startswith("memmeta: theta is no longer the same on all ranks")
    assert [row["iteration"] for row in read_metrics(tmp_path / "run")] == [0, 1, 2]


RANK = """
import os, pathlib, signal, time
from memmeta_exp.distributed.launch_env import stop_with_launcher
signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path("told").touch(), os._exit(0)))
stop_with_launcher({"TORCHELASTIC_RUN_ID": "x"})
pathlib.Path("ready").touch()
time.sleep(30)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_rank_whose_torchrun_is_killed_is_told(tmp_path: Path) -> None:
    starts_a_rank = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    launcher = subprocess.Popen([sys.executable, "-c", starts_a_rank, RANK], cwd=tmp_path, env=environment)
    for file in ("ready", "told"):
        late = time.monotonic() + 20
        while not (tmp_path / file).exists():
            assert time.monotonic() < late, file
            time.sleep(0.01)
        launcher.kill()
    launcher.wait()
