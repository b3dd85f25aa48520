"""`memmeta train run=DIR [KEY=VALUE]`: repeats the run in DIR from its start, in a new folder."""

from pathlib import Path
from typing import Any

from memmeta_exp.commands.output_dir import kept_if_done
from memmeta_exp.commands.resume import asked_config, existing_run
from memmeta_exp.distributed.process_group import SINGLE_PROCESS, Ranks
from memmeta_exp.tracking import given_title
from memmeta_exp.tracking.run_folder import RunFolder
from memmeta_exp.training import runner

KEY = "run"
FOLDER = "hydra.run.dir"


def repeat(source: Path, overrides: list[str], check: Any, ranks: Ranks = SINGLE_PROCESS) -> int:
    """Trains the configuration of the run in `source` in a new folder, hydra.run.dir or outputs/DATE/TIME; returns the
    exit code. Raises ConfigError for overrides that change what is computed."""
    others = [override for override in overrides if override.partition("=")[0].lstrip("+") != FOLDER]
    config = asked_config(existing_run(source), others, KEY)
    check(config)
    with kept_if_done(FOLDER, overrides) as folder:
        stored = RunFolder(source).read_overrides()
        runner.run(config, folder, [*stored, *others], ranks, given_title())
    return 0
