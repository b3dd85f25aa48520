"""As tests.training.server, with bounds on each command and what it took. A request is {"argv", "cwd", "environment"},
an answer {"status", "seconds", "mib"}; what the command prints is in output.txt of `cwd`.

mib: by how much the peak of its resident memory exceeds what this process has.
"""

import os
import resource
import signal
import time
from typing import Any

from tests.training.server import run_command, serve

WALL_SECONDS = 60  # after which a command is ended
ADDRESS_SPACE = 16 * 2**30  # bytes


def child(request: dict[str, Any]) -> None:
    """Does what is asked and never returns."""
    os.chdir(request["cwd"])
    os.environ.update(request["environment"])
    out = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(out, 1)
    os.dup2(out, 2)
    signal.alarm(WALL_SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    code = run_command(request["argv"])
    os._exit(code)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Runs one request."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        child(request)
    _, ended_as, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - start
    return {
        "status": os.waitstatus_to_exitcode(ended_as),
        "seconds": min(seconds, max(usage.ru_utime + usage.ru_stime, seconds if ended_as == signal.SIGALRM else 0)),
        "mib": max(0, usage.ru_maxrss - before) / 1024,
    }


def take_small_datasets() -> None:
    """An import takes any number of images, so that its readers see what is in small files."""
    from memmeta_exp.data.prepare import fetch
    from memmeta_exp.data.prepare.readers import omniglot
    from tests.fuzz.imports import CHARACTERS

    names = omniglot.class_names
    fetch._counted = lambda name, split, read: read()
    omniglot.class_names = lambda split: names(split)[:CHARACTERS]


if __name__ == "__main__":
    import pandas  # noqa: F401
    import pyarrow  # noqa: F401

    import memmeta_exp.commands.data
    import memmeta_exp.commands.evaluate
    import memmeta_exp.commands.report
    import memmeta_exp.commands.sweep
    import memmeta_exp.reports.figures
    import memmeta_exp.reports.page
    import memmeta_exp.reports.theorem_fits  # noqa: F401

    take_small_datasets()
    serve(answer)
