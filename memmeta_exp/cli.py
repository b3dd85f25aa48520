"""The console script `memmeta`. Importing this module, and so `memmeta --help`, loads neither torch nor Hydra.

Exit codes: 0 done; 1 the run failed; 2 the command cannot be run as given (one line says what, why and what to do);
128 + N stopped by signal N. What becomes of the printed lines changes none of them, with one exception: a command
whose result is what it prints ends with 1 where that cannot be written.
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
from memmeta_exp.utils.signals import Stopped, hush, leaving_at_once

COMMANDS = {
    "train": (
        "memmeta_exp.commands.train",
        "meta-train a configuration: memmeta train [-m] [GROUP=OPTION] [KEY=VALUE] ..., or go on: resume=DIR",
    ),
    "evaluate": (
        "memmeta_exp.commands.evaluate",
        "test a run again on its stored episodes, or on others: memmeta evaluate run=DIR [tasks=N] [dataset=OTHER]",
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
        "an iteration's time and memory by phase, or its memory on a GPU: memmeta profile [predict=cuda] [KEY=VALUE]",
    ),
    "report": ("memmeta_exp.commands.report", "tables, figures and one page of runs and sweeps: memmeta report DIR..."),
    "dashboard": (
        "memmeta_exp.commands.dashboard",
        "a W&B workspace and report of a project: memmeta dashboard project=NAME [offline=true]",
    ),
    "sweep": (
        "memmeta_exp.commands.sweep",
        "every job of a sweep file, their table and report: memmeta sweep FILE.yaml [size=small] [KEY=VALUES]",
    ),
    "keys": ("memmeta_exp.commands.keys", "every configuration key and what it means: memmeta keys [WORD ...]"),
    "data": ("memmeta_exp.commands.data", "list datasets, what is present, and how to get the rest: memmeta data"),
}


LEAVE_FILES = ("train", "sweep", "profile", "report", "dashboard", "predict", "export")  # the others print their result


def usage() -> str:
    """What `memmeta --help` prints."""
    lines = ["memmeta COMMAND ...    memory-reduced meta-learning", "", "Commands:"]
    lines += [f"  {name:<10} {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join([*lines, "", "memmeta COMMAND --help says more; memmeta --version prints the version."])


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
        except Stopped as stopped:  # a second signal, between two of these statements
            return complain(str(stopped), 128 + stopped.signum)


def _outcome(arguments: list[str]) -> tuple[str | None, int]:
    """The exit code, and the line for what a user or the machine can cause; our own bugs keep their traceback."""
    try:
        return None, _command(arguments)
    except Stopped as stopped:
        return str(stopped), 128 + stopped.signum
    except MemmetaError as error:
        return (None if error.reported else str(error)), error.exit_code
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}", 1
    except KeyboardInterrupt:
        return "interrupted", 130


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
        refusal = ConfigError(f"memmeta {name} is for one process: torchrun is for memmeta train")
        refusal.reported = os.environ["RANK"] != "0"
        raise refusal
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that spin while they wait make a busy machine crawl
    return import_module(COMMANDS[name][0]).main(rest)


def _unless_lost(code: int, arguments: list[str]) -> int:
    """`code`, with one line where printed lines could not be written; 1 where they were the command's result."""
    error = lost(sys.stdout)
    if error is None or code:
        return code
    leaves_files = arguments and arguments[0] in LEAVE_FILES and not {"-h", "--help"} & set(arguments)
    what = "the files are whole" if leaves_files else "give a place with room for it"
    return complain(f"what was printed could not be written ({error.strerror}): {what}", 0 if leaves_files else 1)


def complain(line: str, code: int) -> int:
    """Prints one error line; returns `code`. What is no character of a line, in a value that is quoted, is escaped."""
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
