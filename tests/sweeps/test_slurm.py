"""Array jobs against stand-ins for Slurm's commands: a queue of real processes, with preemption, behind them."""

import os
import signal
import stat
import sys
import threading
import time
from pathlib import Path

import pytest
import submitit

from memmeta_exp.sweeps.slurm import Preemption
from memmeta_exp.utils.signals import STOPPING

SBATCH = """
import os, re, subprocess, sys
script = open(sys.argv[1]).read()
state = os.environ["SLURM_STAND_IN"]
job = str(100 + len(os.listdir(state)))
open(f"{state}/script-{job}", "w").write(script)  # as Slurm does: submitit moves its own
array = re.search(r"--array=0-([0-9]+)", script)
tasks = range(int(array[1]) + 1) if array else [None]
for task in tasks:
    name = job if task is None else f"{job}_{task}"
    open(f"{state}/{name}", "w").write("RUNNING")
    env = dict(os.environ, SLURM_JOB_ID=job, SLURM_CPUS_PER_TASK="3")
    env |= {"STAND_IN_SCRIPT": f"{state}/script-{job}", "STAND_IN_NAME": name}
    env.pop("OMP_NUM_THREADS", None)
    if task is not None:
        env |= {"SLURM_ARRAY_JOB_ID": job, "SLURM_ARRAY_TASK_ID": str(task)}
    node = [sys.executable, "-S", os.path.dirname(sys.argv[0]) + "/node", name]
    subprocess.Popen(node, env=env, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(f"Submitted batch job {job}")
"""
NODE = """
import os, subprocess, sys
state, name = os.environ["SLURM_STAND_IN"], sys.argv[1]
while True:
    with open(f"{state}/output-{name}", "a") as log:
        subprocess.run(["bash", os.environ["STAND_IN_SCRIPT"]], stdout=log, stderr=log)
    if not os.path.exists(f"{state}/requeue-{name}"):
        break
    os.remove(f"{state}/requeue-{name}")
end = "FAILED" if os.path.exists(f"{state}/lost-{name}") else "COMPLETED"
open(f"{state}/{name}", "w").write(end)
"""
SRUN = """
import glob, os, signal, subprocess, sys, time
command = sys.argv[1:]
while command[0].startswith("-"):
    command = command[1:] if "=" in command[0] or command[0] == "--unbuffered" else command[2:]
process = subprocess.Popen(command, start_new_session=True)
state, name = os.environ["SLURM_STAND_IN"], os.environ["STAND_IN_NAME"]
deed = os.environ.get("SLURM_DEED", "")
if deed and name.endswith(deed.split()[1]) and not os.path.exists(f"{state}/done-{name}"):
    until = time.time() + 120
    while time.time() < until and len(glob.glob("out/jobs/*-s" + deed.split()[1] + "-*/status.json")) < 1:
        time.sleep(0.05)
    open(f"{state}/done-{name}", "w").close()
    if deed.startswith("lose"):
        open(f"{state}/lost-{name}", "w").close()
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.send_signal(signal.SIGUSR2)
sys.exit(process.wait() and 1)
"""
SCONTROL = """
import os, sys
assert sys.argv[1] == "requeue"
open(os.environ["SLURM_STAND_IN"] + "/requeue-" + sys.argv[2], "w").close()
"""
SACCT = """
import os
state = os.environ["SLURM_STAND_IN"]
print("JobID|State|NodeList")
for name in os.listdir(state):
    if "-" not in name:
        print(f"{name}|{open(state + '/' + name).read()}|node1")
"""
SCANCEL = """
import os, sys
state = os.environ["SLURM_STAND_IN"]
open(f"{state}/cancelled-{sys.argv[1]}", "w").close()
for name in os.listdir(state):
    if name.startswith(sys.argv[1] + "_"):
        open(f"{state}/{name}", "w").write("CANCELLED")
"""
COMMANDS = {"sbatch": SBATCH, "node": NODE, "srun": SRUN, "scontrol": SCONTROL, "sacct": SACCT, "scancel": SCANCEL}


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> Path:
    """Slurm's commands on PATH; the folder of their state."""
    programs, state = tmp_path / "bin", tmp_path / "slurm"
    programs.mkdir()
    state.mkdir()
    for name, text in COMMANDS.items():
        file = programs / name
        file.write_text(f"#!{sys.executable} -S\n{text}")
        file.chmod(file.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_STAND_IN", str(state))
    submitit.SlurmJob.watcher.clear()  # it knows the jobs of the test before, which had the same numbers
    monkeypatch.setattr(submitit.SlurmJob.watcher, "_delay_s", 0.2)  # seconds between looks at sacct
    return state


def test_an_array_with_a_preempted_job_that_goes_on(sweep, stand_in, cluster, tmp_path, monkeypatch) -> None:
    stand_in(seed1="wait once", seed2="refuse")
    monkeypatch.setenv("SLURM_DEED", "preempt 1")
    result, rows = sweep("launcher=slurm", "launcher.partition=gpu", "launcher.timeout_min=30")
    assert result.code == 1
    assert list(rows["state"]) == ["finished", "finished", "failed"], result.err
    assert rows["reason"].tolist()[2] == "device=cuda: torch finds no CUDA device here"
    assert list(rows["again"][:2]) == [False, True], "the preempted job was queued again and went on in its folder"
    assert set(rows["threads"][:2]) == {3}
    script = (cluster / "script-100").read_text()
    for line in ("--partition=gpu", "--time=30", "--array=0-2", "--signal=USR2@120", "--job-name=memmeta"):
        assert line in script
    assert not (tmp_path / "out" / "jobs" / ".submitit").exists()


def test_a_job_that_slurm_ends_costs_no_other(sweep, stand_in, cluster, monkeypatch) -> None:
    stand_in(seed0="wait")
    monkeypatch.setenv("SLURM_DEED", "lose 0")
    monkeypatch.setattr(submitit.SlurmJob, "_results_timeout_s", 0.2)
    result, rows = sweep("launcher=slurm", "seed=0,1")
    assert result.code == 1
    assert list(rows["state"]) == ["interrupted", "finished"]
    assert rows["reason"].tolist()[0] == "Slurm ended it: FAILED"


def test_a_stop_cancels_what_waits_and_runs(sweep, stand_in, cluster, tmp_path, monkeypatch) -> None:
    stand_in(seed0="wait", seed1="wait", seed2="wait")

    def interrupt() -> None:
        while len(list((tmp_path / "out").glob("jobs/*/status.json"))) < 3:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    result, rows = sweep("launcher=slurm")
    assert result.code == 130
    assert list(rows["state"]) == ["interrupted"] * 3
    assert (cluster / "cancelled-100").exists()


def test_on_a_node_the_child_alone_hears_what_stops_a_run(monkeypatch) -> None:
    """Slurm sends a signal to every process of a job; submitit's own is the one that its variable names."""
    monkeypatch.setenv("SUBMITIT_PREEMPT_SIGNAL", "USR1")
    before = [signal.getsignal(signum) for signum in STOPPING]
    with Preemption() as preemption:
        for signum in (signal.SIGHUP, signal.SIGUSR2, signal.SIGXCPU):
            os.kill(os.getpid(), signum)
        assert preemption.asked() is None
        os.kill(os.getpid(), signal.SIGUSR1)
        assert preemption.asked() == signal.SIGUSR1
    assert [signal.getsignal(signum) for signum in STOPPING] == before
