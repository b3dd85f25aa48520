"""`memmeta report DIR... [out=DIR]`: makes tables, figures and one HTML page of runs and sweeps."""

from datetime import datetime
from pathlib import Path

from memmeta_exp.commands.arguments import folders_and_options
from memmeta_exp.config import ConfigError
from memmeta_exp.reports.report import write_report

HELP = """memmeta report DIR... [out=DIR] [plugins=[MODULE,...]]

Reads run folders, multirun folders, sweep folders and folders of them, in any mix. Writes report.html (one
self-contained file), tables/ (csv, md), figures/ (png, svg) and, for a sweep, study.json. By default out is DIR/report
for a single DIR, else outputs/DATE/TIME-report. Runs that failed or did not finish are listed with the reason.
docs/outputs.md explains every column and figure."""


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(HELP)
        return 0
    if any(argument.startswith("plugins=") for argument in arguments):
        from memmeta_exp.config.compose import without_plugins  # imported late: it loads Hydra, which only this needs

        arguments = without_plugins(arguments)
    folders, options = folders_and_options(arguments, "report", {"out": None})
    out = options["out"]
    if not folders:
        raise ConfigError("report needs folders of runs or sweeps: name them, memmeta report outputs/DATE/TIME")
    print(f"report: {write_report(folders, Path(out) if out else _default(folders))}", flush=True)
    return 0


def _default(folders: list[Path]) -> Path:
    now = datetime.now()
    return folders[0] / "report" if len(folders) == 1 else Path(f"outputs/{now:%Y-%m-%d}/{now:%H-%M-%S}-report")
