"""A stand-in for `memmeta` as the child of a launcher's process: starts at once, and does what STAND_IN (JSON: seed to
deed) says. Writes the run folder as `memmeta train` does."""

import fcntl
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

values = dict(argument.split("=", 1) for argument in sys.argv[2:])
folder = Path(values["hydra.run.dir"])
deed = json.loads(os.environ.get("STAND_IN", "{}")).get(values["seed"], "finish")
again = (folder / "status.json").exists()
started = time.time()


def status(state: str, reason: str | None = None) -> None:
    about = {"state": state, "pid": os.getpid(), "host": socket.gethostname(), "iteration": 3, "reason": reason}
    aside = folder / ".status"
    aside.write_text(json.dumps(about))
    aside.replace(folder / "status.json")


def stopped(signum: int, frame: object) -> None:
    status("interrupted", f"stopped by signal {signum} after iteration 3")
    sys.exit(128 + signum)


for signum in (signal.SIGTERM, signal.SIGUSR2):
    signal.signal(signum, stopped)
signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGUSR2))  # as the command does
if deed == "refuse":
    print("memmeta: device=cuda: torch finds no CUDA device here")
    sys.exit(2)
folder.mkdir(parents=True, exist_ok=True)
lock = (folder / ".lock").open("a")
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
status("running")
if deed == "die":
    os.kill(os.getpid(), signal.SIGKILL)
if deed == "orphan" and not again:
    os.kill(os.getppid(), signal.SIGKILL)
if deed == "wait" or (deed == "wait once" and not again):
    time.sleep(60)
time.sleep(float(os.environ.get("STAND_IN_SECONDS", "0")))
summary = {
    "test/acc": 0.5,
    "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"),
    "threads": os.environ.get("OMP_NUM_THREADS"),
    "again": again,
    "title": os.environ.get("WANDB_NAME"),
    "began": started,
    "over": time.time(),
}
(folder / "summary.json").write_text(json.dumps(summary))
status("finished")
