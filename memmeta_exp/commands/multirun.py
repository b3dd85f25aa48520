"""The results table at the end of `memmeta train -m`."""

import itertools
import shlex
from collections.abc import Iterator
from pathlib import Path

from memmeta_exp.config.compose import choices
from memmeta_exp.config.overrides import text_of
from memmeta_exp.sweeps import results_table
from memmeta_exp.sweeps.grid import plain
from memmeta_exp.sweeps.naming import bare
from memmeta_exp.sweeps.sweep_folder import job_status
from memmeta_exp.tracking.console import print_jobs
from memmeta_exp.tracking.run_folder import RunFolder, holds_run

NAMED_OTHERWISE = ("hydra/sweeper", "hydra.sweep.subdir")  # if set, job folders are not named by their grid number


def swept(overrides: list[str]) -> list[str]:
    """The keys with several values, as written on the command line."""
    return [key for key, values in choices(overrides) if len(values) > 1]


def write_results_table(folder: Path, overrides: list[str]) -> None:
    """Writes results.csv and results.parquet of the multirun in `folder`; prints the table and these paths."""
    keys = [bare(key) for key in swept(overrides)]
    entries = []
    for name, said in _jobs(folder, overrides):
        values = {key: plain(said[key]) for key in keys if key in said}
        entries.append(results_table.entry(name, folder / name, job_status(folder / name), values))
    results_table.write_entries(folder, entries)
    print_jobs(str(folder), [entry.row for entry in entries], ["job", *keys])
    print(f"results: {folder / 'results.csv'}")
    reader = f"memmeta report {shlex.quote(str(folder))}"
    print(f"multirun: {folder}; {reader} makes its tables, figures and page", flush=True)


def _jobs(folder: Path, overrides: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields each job's folder and its overrides by key: all jobs of a grid, or the started jobs of a search.

    The overrides of a started job are read from its folder: Hydra may shuffle a grid differently each time.
    """
    if not any(override.partition("=")[0] in NAMED_OTHERWISE for override in overrides):
        combinations = itertools.product(*(values for _, values in choices(overrides)))
        for number, combination in enumerate(combinations):
            begun = RunFolder(folder / str(number)).read_overrides() if holds_run(folder / str(number)) else []
            yield str(number), _said(begun or combination)
        return
    begun = [path for path in folder.iterdir() if holds_run(path)]
    for path in sorted(begun, key=lambda path: (len(path.name), path.name)):
        yield path.name, _said(RunFolder(path).read_overrides())


def _said(overrides: tuple[str, ...] | list[str]) -> dict[str, str]:
    return {bare(override.partition("=")[0]): text_of(override) for override in overrides}
