"""`memmeta compare A B ...`: the keys in which runs differ, and their numbers."""

from collections.abc import Sequence
from typing import Any

from memmeta_exp.commands.arguments import folders_and_options
from memmeta_exp.config import ConfigError, flat
from memmeta_exp.reports.runs import Run, collect, numbers
from memmeta_exp.tracking.console import ROWS, number_text, print_columns

HELP = """memmeta compare DIR DIR ...

Shows runs side by side, also those of sweeps and multiruns: the keys in which their configurations differ, then their
final numbers. A dash means that the run has no value."""
DASH = "-"


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(HELP)
        return 0
    folders, _ = folders_and_options(arguments, "compare", {})
    if not folders:
        raise ConfigError("compare needs run folders: memmeta compare outputs/DATE/TIME outputs/DATE/TIME")
    runs, _ = collect(folders)
    if len(runs) < 2:
        raise ConfigError(f"{folders[0]} holds one run: name another to compare it with")
    print_columns("", ["", *(str(run.path) for run in runs)], [*_differing(runs), *_numbers(runs)])
    for run in runs:
        if run.reason:
            print(f"{run.path}: {run.state}: {run.reason}")
    return 0


def _differing(runs: Sequence[Run]) -> list[list[str]]:
    """The states of the runs, then a row for each key whose values differ."""
    configs = [flat(run.config) for run in runs]
    keys = dict.fromkeys(key for config in configs for key in config)
    differ = [key for key in keys if len({_word(config.get(key, DASH)) for config in configs if config}) > 1]
    rows = [[key, *(_word(config.get(key, DASH)) for config in configs)] for key in differ]
    return [["state", *(run.state for run in runs)], *rows]


def _word(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _numbers(runs: Sequence[Run]) -> list[list[str]]:
    found = [numbers(run) for run in runs]
    rows = [[label, *(number_text(values, key) for values in found)] for key, (label, *_) in ROWS.items()]
    return [[label.strip(), *(value or DASH for value in values)] for label, *values in rows if any(values)]
