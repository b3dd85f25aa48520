"""The jobs of a sweep: every combination of its values, each with the configuration that Hydra composes for it."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from memmeta_exp.config import Config, ConfigError, digest, to_dict
from memmeta_exp.config.overrides import draws, quote_paths
from memmeta_exp.sweeps.naming import label, titled, varying
from memmeta_exp.sweeps.sweep_file import OWN_FOLDERS, SweepFile

OPTIONS = ("predict", "steps")  # of `memmeta profile`, which are no keys of a configuration
NOT_THE_RESULT = (
    "tracking",
    "progress",
    "verbose",
    "plots",
    "checkpoint_every",
    "data_root",
)  # what may change without a job being another one
MAX_JOBS = 10_000

Choices = list[tuple[str, list[str]]]


@dataclass(frozen=True)
class Job:
    """id: its folder's name, a function of the configuration alone; overrides: of the configuration; options: of the
    command; values: what the sweep sets, by key; label: those of them that tell it from the other jobs; threads: CPU
    threads that it asks for, 1 where it asks for none; wants_gpu: whether it would use one."""

    id: str
    kind: str
    overrides: tuple[str, ...]
    options: tuple[str, ...]
    values: dict[str, Any]
    label: str = ""
    threads: int = 1
    wants_gpu: bool = True

    @property
    def name(self) -> str:
        """What a line calls it: its label, and its id, which its files go by."""
        return titled(self.label, self.id)

    @property
    def title(self) -> str:
        """Of its run: its label, and the name of the run."""
        return titled(self.label, self.id.rpartition("-")[0])

    def command(self, folder: str) -> list[str]:
        """The command line that runs it in `folder`, after the name of the program."""
        return [self.kind, *self.options, *self.overrides, f"hydra.run.dir={folder}"]


def plan(
    file: SweepFile,
    overrides: Sequence[str],
    choices: Callable[[list[str]], Choices],
    compose: Callable[[list[str]], Config],
    check: Callable[[str, dict[str, str], Config], None],
) -> list[Job]:
    """The jobs of `file` with the user's `overrides`: KEY=V fixes a key, KEY=A,B,C gives its values. Combinations that
    are one configuration are one job.

    choices: from overrides to the key and single overrides of each; compose: to a configuration; check: of a kind of
    command, its options and a configuration, whether it can run. They raise ConfigError, as this does.
    """
    dimensions = _dimensions(file, overrides, choices)
    count = 1
    for singles in dimensions.values():
        count *= len(singles)
    if count > MAX_JOBS:
        raise ConfigError(
            f"{file.path}: these are {count} jobs; give fewer values, so that there are {MAX_JOBS} at most"
        )
    swept = {*file.parameters, *(o.partition("=")[0] for o in overrides)}
    jobs: dict[str, Job] = {}
    for combination in itertools.product(*dimensions.values()):
        job = _job(file, list(combination), swept, compose, check)
        jobs.setdefault(job.id, job)
    keys = varying([job.values for job in jobs.values()])
    return [replace(job, label=label(job.values, keys)) for job in jobs.values()]


def _dimensions(
    file: SweepFile, overrides: Sequence[str], choices: Callable[[list[str]], Choices]
) -> dict[str, list[str]]:
    """The single overrides of every key, in the order of the command, the file, and the user. Where one of them is
    Hydra's `glob(...)`, `range(...)` or the like, all that it stands for."""
    of_file = [*file.fixed, *(f"{key}={value}" for key, values in file.parameters.items() for value in values)]
    for override in filter(draws, (*of_file, *overrides)):
        raise ConfigError(f"{file.path}: {override}: a sweep draws nothing; list the values, A,B,C")
    try:
        dimensions = dict(choices([quote_paths(override) for override in file.fixed]))
        for key, values in file.parameters.items():
            found = choices([quote_paths(f"{key}={value}") for value in values])
            dimensions[key] = [single for _, singles in found for single in singles]
    except ConfigError as error:
        raise ConfigError(f"{file.path}: {error}") from None
    for key, singles in choices(list(overrides)):
        if key in OWN_FOLDERS:
            raise ConfigError(f"{key}: the sweep names each job's folder itself; choose the sweep's with dir=DIR")
        dimensions[key] = singles
    return dimensions


def _job(
    file: SweepFile,
    combination: list[str],
    swept: set[str],
    compose: Callable[[list[str]], Config],
    check: Callable[[str, dict[str, str], Config], None],
) -> Job:
    own = [o for o in combination if o.partition("=")[0] in OPTIONS and file.kind == "profile"]
    overrides = [o for o in combination if o not in own]
    options = {key: value for key, _, value in (o.partition("=") for o in own)}
    try:
        config = compose(overrides)
        check(file.kind, options, config)
    except ConfigError as error:
        raise ConfigError(f"{file.path}: {error} (the job {' '.join(combination)})") from None
    values = {key: plain(value) for key, _, value in (o.partition("=") for o in combination) if key in swept}
    named = {"command": file.kind, "options": options, **to_dict(config)}
    return Job(
        id=f"{config.run_name}-{digest(named, without=NOT_THE_RESULT)}",
        kind=file.kind,
        overrides=tuple(overrides),
        options=tuple(own),
        values=values,
        threads=config.threads or 1,
        wants_gpu=config.device != "cpu" and options.get("predict") != "cuda",
    )


def plain(text: str) -> Any:
    """A value of the command line as a table holds it: a number or a truth value where it is one."""
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return {"true": True, "false": False, "null": None}.get(text.lower(), text)
