"""The jobs of a sweep: every combination of its values, composed and checked by Hydra."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from memmeta_exp.config import Config, ConfigError, digest, to_dict
from memmeta_exp.config.overrides import draws, quote_paths
from memmeta_exp.sweeps.naming import label, titled, varying
from memmeta_exp.sweeps.sweep_file import OWN_FOLDERS, SweepFile

OPTIONS = ("predict", "steps")  # options of `memmeta profile`, which are not configuration keys
NOT_THE_RESULT = (
    "tracking",
    "progress",
    "verbose",
    "plots",
    "checkpoint_every",
    "data_root",
)  # keys that do not change the identity of a job
MAX_JOBS = 10_000

Choices = list[tuple[str, list[str]]]


@dataclass(frozen=True)
class Job:
    """One job of a sweep.

    id: name of its folder, a function of the configuration. kind: its command, train or profile. overrides: of the
    configuration. options: of the command. values: the values that the sweep sets, by key. label: the values that
    differ between jobs. threads: CPU threads that it asks for, 1 by default. wants_gpu: it uses a GPU if there is one.
    """

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
        """Its name in messages: label and id."""
        return titled(self.label, self.id)

    @property
    def title(self) -> str:
        """The title of its run: label and run name."""
        return titled(self.label, self.id.rpartition("-")[0])

    def command(self, folder: str) -> list[str]:
        """The arguments of memmeta that run it in `folder`."""
        return [self.kind, *self.options, *self.overrides, f"hydra.run.dir={folder}"]


def plan(
    file: SweepFile,
    overrides: Sequence[str],
    choices: Callable[[list[str]], Choices],
    compose: Callable[[list[str]], Config],
    check: Callable[[str, dict[str, str], Config], None],
) -> list[Job]:
    """The jobs of `file` with the user's `overrides`: KEY=V fixes a key, KEY=A,B,C sets its values.

    Combinations with equal configurations are one job. choices: maps overrides to the key and single overrides of each.
    compose: maps overrides to a configuration. check(kind, options, config): raises ConfigError if the job cannot run.
    Raises ConfigError, as they do.
    """
    dimensions = _dimensions(file, overrides, choices)
    count = 1
    for singles in dimensions.values():
        count *= len(singles)
    if count > MAX_JOBS:
        raise ConfigError(f"{file.path}: {count} jobs are more than {MAX_JOBS}; give fewer values")
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
    """The single overrides of every key: those of the file's command first, then its parameters, then the user's.

    Hydra's `glob(...)`, `range(...)` and the like are expanded.
    """
    of_file = [*file.fixed, *(f"{key}={value}" for key, values in file.parameters.items() for value in values)]
    for override in filter(draws, (*of_file, *overrides)):
        raise ConfigError(f"{file.path}: {override}: a sweep cannot draw from an interval; list the values, A,B,C")
    try:
        dimensions = dict(choices([quote_paths(override) for override in file.fixed]))
        for key, values in file.parameters.items():
            found = choices([quote_paths(f"{key}={value}") for value in values])
            dimensions[key] = [single for _, singles in found for single in singles]
    except ConfigError as error:
        raise ConfigError(f"{file.path}: {error}") from None
    for key, singles in choices(list(overrides)):
        if key in OWN_FOLDERS:
            raise ConfigError(f"{key}: the sweep sets each job's folder; set the folder of the sweep with dir=DIR")
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
    """A command-line value as a number, bool or None if it is one, else as text."""
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return {"true": True, "false": False, "null": None}.get(text.lower(), text)
