"""The command of the README as users give it: torchrun itself, its signals and its clean-up."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from memmeta_exp.tracking.run_folder import read_metrics
from tests.distributed.conftest import COMMAND
from tests.training.conftest import ROOT, status

pytestmark = pytest.mark.slow
PATIENCE_S = 120.0


@contextmanager
def torchrun(cwd: Path, ranks: int, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with (
        (cwd / "output.txt").open("w") as output,
        subprocess.Popen(
            [*launcher, "-m", "memmeta_exp", *arguments],
            cwd=cwd,
            env=environment,
            text=True,
            stdout=output,
            stderr=output,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def after(iterations: int, folder: Path) -> None:
    """Returns once that many are logged."""
    until = time.monotonic() + PATIENCE_S
    while not (folder / "metrics.jsonl").exists() or len(read_metrics(folder)) <= iterations:
        assert time.monotonic() < until
        time.sleep(0.1)


def ranks_of(process: "subprocess.Popen[str]") -> dict[int, int]:
    """Process ids by rank."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    environments = {int(pid): Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") for pid in children}
    return {
        int(entry.partition(b"=")[2]): pid
        for pid, environment in environments.items()
        for entry in environment
        if entry.startswith(b"RANK=")
    }


def said(cwd: Path) -> list[str]:
    return [line for line in (cwd / "output.txt").read_text().splitlines() if line.startswith("memmeta: ")]


def test_a_run_to_its_end(tmp_path) -> None:
    with torchrun(tmp_path, 2, *COMMAND) as process:
        assert process.wait(PATIENCE_S) == 0, (tmp_path / "output.txt").read_text()
    assert status(tmp_path / "run")["state"] == "finished"
    assert (tmp_path / "output.txt").read_text().count("summary: ") == 1


def test_a_killed_rank_and_a_stop(tmp_path) -> None:
    """Killed by SIGKILL on two ranks, gone on with on three and stopped by SIGTERM to torchrun, which passes it on."""
    with torchrun(tmp_path, 2, *COMMAND, "iterations=100000", "eval_every=100000") as process:
        after(3, tmp_path / "run")
        os.kill(ranks_of(process)[1], signal.SIGKILL)
        assert process.wait(PATIENCE_S) == 1
    (line,) = said(tmp_path)
    assert "a rank of this run is gone" in line
    stopped = status(tmp_path / "run")
    assert stopped["state"] == "failed"
    assert line.endswith(f"goes on from iteration {stopped['iteration']}, on any number of ranks")
    with torchrun(tmp_path, 3, "train", "resume=run") as process:
        after(stopped["iteration"] + 3, tmp_path / "run")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) != 0
    lines = said(tmp_path)
    assert [line for line in lines if "stopped by signal 15 after iteration" in line] == lines[-1:]
    interrupted = status(tmp_path / "run")
    assert interrupted["state"] == "interrupted"
    rows = [row["iteration"] for row in read_metrics(tmp_path / "run")]
    assert rows == list(range(interrupted["iteration"] + 1)), "no gap and no double"
