"""Groups of ranks, each a forked child of this process, as of tests/training/server.py. A request is a line of JSON on
standard input, an answer one on standard output:

    {"argv": [...], "cwd": DIR, "ranks": N, "strikes": [[rank, "module:Class.method", n, what], ...]}
    {"codes": [...], "cpu_seconds": C}

A strike hits `rank` when it calls that method, or function, for the n-th time: a number is a signal that it sends
itself, a name an exception that it raises, or the errno of one; [value] is what the call returns, undone. This process
keeps the store, as torchrun does. codes: exit codes by rank, minus the signal of those that were killed. What rank r
prints is in out{r}.txt and err{r}.txt.
"""

import builtins
import errno
import os
import signal
from importlib import import_module
from typing import Any

from tests.training.server import run_command, serve


def strike(place: str, n: int, what: Any) -> None:
    module, _, path = place.partition(":")
    *owner, method = path.split(".")
    holder = getattr(import_module(module), owner[0]) if owner else import_module(module)
    real, seen = getattr(holder, method), [0]

    def call(*arguments: Any, **keywords: Any) -> Any:
        seen[0] += 1
        if seen[0] == n:
            if isinstance(what, list):
                return what[0]
            if isinstance(what, int):
                os.kill(os.getpid(), what)
            elif hasattr(errno, what):
                raise OSError(getattr(errno, what), os.strerror(getattr(errno, what)))
            else:
                raise getattr(builtins, what)("injected")
        return real(*arguments, **keywords)

    setattr(holder, method, call)


def child(request: dict[str, Any], rank: int, port: int) -> None:
    """Rank `rank` of a group; never returns."""
    os.chdir(request["cwd"])
    size = str(request["ranks"])
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": size, "RANK": str(rank)}
    os.environ |= {"LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": size, "TORCHELASTIC_USE_AGENT_STORE": "True"}
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{name}{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
    for at, place, n, what in request["strikes"]:
        if at == rank:
            strike(place, n, what)
    code = run_command(request["argv"])
    os._exit(code)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Runs one request."""
    from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage] - as torch documents it

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    ranks = {}
    for rank in range(request["ranks"]):
        pid = os.fork()
        if pid == 0:
            child(request, rank, store.port)
        ranks[pid] = rank
    codes, seconds = [0] * len(ranks), 0.0
    signal.alarm(300)  # ends this process, and the test, if ranks wait for each other for ever
    for pid, rank in ranks.items():
        _, ended_as, usage = os.wait4(pid, 0)
        codes[rank] = os.waitstatus_to_exitcode(ended_as)
        seconds += usage.ru_utime + usage.ru_stime
    signal.alarm(0)
    return {"codes": codes, "cpu_seconds": seconds}


if __name__ == "__main__":
    serve(answer)
