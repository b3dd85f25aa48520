"""Command lines of memmeta, each in a forked child of this process, which has imported everything and has one thread:
an import costs four seconds, a fork none. A request is a line of JSON on standard input, an answer one on standard
output:

    {"argv": [...], "cwd": DIR, "seconds": S or null, "operation": N or null}
    {"status": -9 or the exit code, "operations": M, "cpu_seconds": C}

seconds: SIGKILL comes when the child has computed that long; operation: the child kills itself in the N-th of
OPERATIONS (a write is cut in half). operations: how many there were.
"""

import gc
import json
import os
import select
import signal
import sys
from collections.abc import Callable
from typing import Any

OPERATIONS = ("replace", "fsync", "write", "ftruncate", "truncate", "open")


class Killer:
    """Counts operations on files and ends the process in the N-th."""

    def __init__(self, last: int | None) -> None:
        self.count, self.last = 0, last

    def install(self) -> None:
        for name in OPERATIONS:
            setattr(os, name, self._counting(name, getattr(os, name)))

    def _counting(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            self.count += 1
            if self.count == self.last:
                if name == "write":
                    real(arguments[0], arguments[1][: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **keywords)

        return call


def run_command(argv: list[str]) -> int:
    """Runs a command line in this process; returns its exit code, 99 after a traceback."""
    from memmeta_exp.cli import main

    try:
        code = main(argv)
    except BaseException:  # noqa: BLE001 - tests look for a traceback in the output
        import traceback

        traceback.print_exc()
        code = 99
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def child(request: dict[str, Any], report: int) -> None:
    """Does what is asked and never returns."""
    os.chdir(request["cwd"])
    out = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(out, 1)
    os.dup2(out, 2)
    killer = Killer(request["operation"])
    killer.install()
    code = run_command(request["argv"])
    os.pwrite(report, str(killer.count).encode(), 0)
    os._exit(code)


def cpu_seconds(pid: int) -> float:
    """The processor's, on which a busy machine has no influence."""
    with open(f"/proc/{pid}/schedstat") as stream:
        return int(stream.read().split()[0]) / 1e9


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Runs one request."""
    report = os.memfd_create("operations")
    pid = os.fork()
    if pid == 0:
        child(request, report)
    ended = os.pidfd_open(pid)
    while request["seconds"] is not None and not select.select([ended], [], [], 0.001)[0]:
        if cpu_seconds(pid) > request["seconds"]:
            os.kill(pid, signal.SIGKILL)
            break
    _, ended_as, usage = os.wait4(pid, 0)
    status = os.waitstatus_to_exitcode(ended_as)
    operations = int(os.pread(report, 20, 0) or 0)
    os.close(ended)
    os.close(report)
    return {"status": status, "operations": operations, "cpu_seconds": usage.ru_utime + usage.ru_stime}


def serve(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answers requests until there are no more."""
    import torch

    torch.set_num_threads(1)
    import memmeta_exp.commands.train  # noqa: F401
    from memmeta_exp.config.compose import jobs
    from memmeta_exp.tracking import environment

    with torch.compiler.set_stance("force_eager"):  # the memory meter's, which imports Dynamo at its first use
        jobs([], multirun=False)
    gc.freeze()  # a child's collections would copy all that memory
    environment.git_state = lambda _: {}  # processes of git
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    serve(answer)
