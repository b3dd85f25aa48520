"""The console script `memmeta`. Importing this module, and so `memmeta --help`, loads neither torch nor Hydra.

Exit codes: 0 done; 1 the run failed; 2 the command cannot be run as given (one line says what, why and what to do);
128 + N stopped by signal N. A failure to print does not change the exit code of a command that writes files. A command
whose result is its output exits with 1 if the output cannot be written.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from memmeta_exp.distributed.launch_env import one_of_many
from memmeta_exp.utils.errors import ConfigError, MemmetaError
from memmeta_exp.utils.output import lossy_output, lost
from memmeta_exp.utils.path_keys import at_home
from memmeta_exp.utils.signals import Stopped, hush, leaving_at_once, stopped_behind

COMMANDS = {
    "train": (
        "memmeta_exp.commands.train",
        "meta-train: memmeta train [-m] [GROUP=OPTION] [KEY=VALUE] ..., resume: resume=DIR, repeat a run: run=DIR",
    ),
    "evaluate": (
        "memmeta_exp.commands.evaluate",
        "test a run on its stored episodes, or on new ones: memmeta evaluate run=DIR [tasks=N] [dataset=OTHER]",
    ),
    "predict": (
        "memmeta_exp.commands.predict",
        "a run on your own images: memmeta predict run=DIR support=FOLDER query=FOLDER out=FILE.csv",
    ),
    "export": (
        "memmeta_exp.commands.export",
        "a run's model as one file: memmeta export run=DIR out=FILE.safetensors",
    ),
    "profile": (
        "memmeta_exp.commands.profile",
        "measure a train step by phase, or predict its GPU memory: memmeta profile [predict=cuda] [KEY=VALUE]",
    ),
    "report": (
        "memmeta_exp.commands.report",
        "make tables, figures and an HTML page of runs and sweeps: memmeta report DIR...",
    ),
    "ls": ("memmeta_exp.commands.ls", "runs and sweeps with their numbers: memmeta ls [DIR ...] [sort=COLUMN]"),
    "compare": (
        "memmeta_exp.commands.compare",
        "in which keys runs differ, and their numbers: memmeta compare DIR DIR",
    ),
    "dashboard": (
        "memmeta_exp.commands.dashboard",
        "make a W&B workspace and report of a project: memmeta dashboard project=NAME [offline=true]",
    ),
    "sweep": (
        "memmeta_exp.commands.sweep",
        "run every job of a sweep file, and report: memmeta sweep FILE.yaml [size=small] [KEY=VALUES]",
    ),
    "keys": ("memmeta_exp.commands.keys", "list every configuration key and its meaning: memmeta keys [WORD ...]"),
    "data": ("memmeta_exp.commands.data", "list, download, import and verify datasets: memmeta data"),
}


# the result of these is files; the others print theirs
LEAVE_FILES = ("train", "sweep", "profile", "report", "dashboard", "predict", "export")


def usage() -> str:
    """What `memmeta --help` prints."""
    lines = ["memmeta COMMAND ...    memory-reduced meta-learning", "", "Commands:"]
    lines += [f"  {name:<10} {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join([*lines, "", "memmeta COMMAND --help explains a command; memmeta --version prints the version."])


def main(argv: list[str] | None = None) -> int:
    """Runs one command line; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    with lossy_output(), _logging_to_stderr():
        try:
            with leaving_at_once(for_good=argv is None):
                line, code = _outcome(arguments)
                hush()
                code = complain(line, code) if line else code
                sys.stdout.flush()
                return _unless_lost(code, arguments)
        except Stopped as stopped:  # a second signal, before `hush`
            return complain(str(stopped), 128 + stopped.signum)


def _outcome(arguments: list[str]) -> tuple[str | None, int]:
    """Runs the command. Returns the error line, None without an error, and the exit code. Bugs keep their traceback."""
    try:
        return None, _command(arguments)
    except (Stopped, KeyboardInterrupt, Exception) as error:
        ended = _ended_by(error)
        if ended is None:
            raise
        return ended


def _ended_by(error: BaseException) -> tuple[str | None, int] | None:
    """What `_outcome` says of an error; None of a bug of ours."""
    stopped = stopped_behind(error)
    if isinstance(error, MemmetaError) and (stopped is None or error.exit_code > 128):
        return (None if error.reported else str(error)), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 130
    if stopped is not None:
        return str(stopped), 128 + stopped.signum
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}", 1
    return None


def _command(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if arguments[0] == "--version":
        from memmeta_exp import __version__

        print(f"memmeta {__version__}")
        return 0
    name, *rest = arguments
    rest = [at_home(argument) for argument in rest]
    if name not in COMMANDS:
        from difflib import get_close_matches

        near = get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else f"; choose from {', '.join(COMMANDS)}"
        raise ConfigError(f"unknown command '{name}'{hint}")
    if name != "train" and one_of_many():
        refusal = ConfigError(f"memmeta {name} runs in one process: start it without torchrun")
        refusal.reported = os.environ["RANK"] != "0"
        raise refusal
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # waiting threads that spin slow down a busy machine
    return import_module(COMMANDS[name][0]).main(rest)


def _unless_lost(code: int, arguments: list[str]) -> int:
    """Reports output that could not be written. Returns 1 if it was the result of a successful command, else `code`."""
    error = lost(sys.stdout)
    if error is None or code:
        return code
    leaves_files = arguments and arguments[0] in LEAVE_FILES and not {"-h", "--help"} & set(arguments)
    what = "the result files are complete" if leaves_files else "free some disk space"
    return complain(f"standard output could not be written ({error.strerror}): {what}", 0 if leaves_files else 1)


def complain(line: str, code: int) -> int:
    """Prints `line` to standard error and returns `code`. Unprintable characters are escaped, so it stays one line."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    print(f"memmeta: {shown}", file=sys.stderr)
    return code


@contextmanager
def _logging_to_stderr() -> Iterator[None]:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("memmeta: %(message)s"))
    logger = logging.getLogger("memmeta")
    before = logger.handlers, logger.propagate, logger.level
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.handlers, logger.propagate, level = before
        logger.setLevel(level)
