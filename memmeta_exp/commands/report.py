"""`memmeta report DIR... [out=DIR]`: tables, figures and one page of what runs and sweeps left."""

from datetime import datetime
from pathlib import Path

from memmeta_exp.commands.arguments import folders_and_options
from memmeta_exp.config import ConfigError
from memmeta_exp.reports.report import write_report

HELP = """memmeta report DIR... [out=DIR] [plugins=[MODULE,...]]

Reads any mix of run folders, multirun folders, sweep folders and folders of them, and writes report.html (one file,
opens anywhere), tables/ (csv, md), figures/ (png, svg) and, for a sweep, study.json to out: DIR/report where there is
one DIR, else outputs/DATE/TIME-report. A run that failed or never ended is listed with its reason. docs/reports.md
says what every column and figure means."""


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(HELP)
        return 0
    if any(argument.startswith("plugins=") for argument in arguments):
        from memmeta_exp.config.compose import without_plugins  # loads Hydra, which a report needs for nothing else

        arguments = without_plugins(arguments)
    folders, options = folders_and_options(arguments, "report", {"out": None})
    out = options["out"]
    if not folders:
        raise ConfigError("report of what? Name folders of runs or sweeps: memmeta report outputs/DATE/TIME")
    print(f"report: {write_report(folders, Path(out) if out else _default(folders))}", flush=True)
    return 0


def _default(folders: list[Path]) -> Path:
    now = datetime.now()
    return folders[0] / "report" if len(folders) == 1 else Path(f"outputs/{now:%Y-%m-%d}/{now:%H-%M-%S}-report")
