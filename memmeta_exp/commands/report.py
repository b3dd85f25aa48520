"""`memmeta report DIR... [out=DIR]`: tables, figures and one page of what runs and sweeps left."""

from datetime import datetime
from pathlib import Path

from memmeta_exp.commands.arguments import parse
from memmeta_exp.config import ConfigError
from memmeta_exp.reports.report import write_report

HELP = """memmeta report DIR... [out=DIR] [plugins=[MODULE,...]]

Reads any mix of run folders, multirun folders, sweep folders and folders of them, and writes report.html (one file,
opens anywhere), tables/ (csv, md), figures/ (png, svg) and, for a sweep, study.json to out: DIR/report where there is
one DIR, else outputs/DATE/TIME-report. A run that failed or never ended is listed with its reason. docs/outputs.md
says what every column and figure means."""


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(HELP)
        return 0
    for argument in arguments:
        if argument.startswith("-"):
            raise ConfigError(f"unknown flag '{argument}': report takes folders, out=DIR and --help")
    if any(argument.startswith("plugins=") for argument in arguments):
        from memmeta_exp.config.compose import without_plugins  # loads Hydra, which a report needs for nothing else

        arguments = without_plugins(arguments)
    folders = [Path(a) for a in arguments if not _is_option(a)]
    out = parse([a for a in arguments if _is_option(a)], {"out": None})["out"]
    if not folders:
        raise ConfigError("report of what? Name folders of runs or sweeps: memmeta report outputs/DATE/TIME")
    print(f"report: {write_report(folders, Path(out) if out else _default(folders))}", flush=True)
    return 0


def _is_option(argument: str) -> bool:
    """KEY=VALUE, unless it is a folder that exists: folders may well have `=` in their names."""
    return "=" in argument and not Path(argument).exists()


def _default(folders: list[Path]) -> Path:
    now = datetime.now()
    return folders[0] / "report" if len(folders) == 1 else Path(f"outputs/{now:%Y-%m-%d}/{now:%H-%M-%S}-report")
