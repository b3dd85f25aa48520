"""`memmeta train [overrides]`: hands a command line that has been found sound to Hydra, which runs the job or jobs.

Everything a user can get wrong is looked for first, by composing the configuration of every job: until then nothing
has been created. A command whose folder holds the same run already goes on with it; so does `memmeta train resume=DIR`,
which needs no Hydra.
"""

import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from memmeta_exp import backbones
from memmeta_exp.commands import multirun
from memmeta_exp.commands.output_dir import made_folder, named_folder
from memmeta_exp.commands.resume import resume, split_resume
from memmeta_exp.commands.search import maximised, objective, require_a_search, require_extras
from memmeta_exp.config import Config, channels_and_size, check_tasks_fit, from_omegaconf, to_dict
from memmeta_exp.config.compose import jobs, offer_plugins, one_line, unknown_flag
from memmeta_exp.config.overrides import conf_dir, quote_paths, text_of
from memmeta_exp.distributed.launch_env import place
from memmeta_exp.distributed.process_group import SINGLE_PROCESS, Group, Ranks
from memmeta_exp.experiment.execution import resolve_device
from memmeta_exp.experiment.start_weights import weights_file
from memmeta_exp.memory.budget import fit_to_budget
from memmeta_exp.sweeps.naming import label, titled
from memmeta_exp.sweeps.workers import has_workers, stopped_together
from memmeta_exp.tracking import given_title
from memmeta_exp.tracking.expected import Summary
from memmeta_exp.tracking.run_folder import holds_run
from memmeta_exp.training import runner
from memmeta_exp.training.resume import earlier_run
from memmeta_exp.training.worker import follow
from memmeta_exp.utils.errors import (
    ConfigError,
    MemmetaError,
    MultirunInterrupted,
    RankFailed,
    RankLost,
    RunInterrupted,
)
from memmeta_exp.utils.reading import read_json
from memmeta_exp.utils.signals import Stopped, request_to_worker

INFORMATION = ("help", "hydra_help", "cfg", "info", "shell_completion")  # flags that print and train nothing
MULTIRUN = "multirun.yaml"  # what Hydra leaves in a multirun's folder
FIXED = ("config_path", "config_name", "config_dir", "experimental_rerun")

logger = logging.getLogger("memmeta")


def main(arguments: list[str]) -> int:
    """Runs the command; returns the exit code. Raises MemmetaError. Of several ranks, rank 0 reads the command and
    writes; the others do what it sends them."""
    here = place()
    if here is None:
        return _main(arguments, SINGLE_PROCESS)
    ranks = Group.joined(here)
    code = _lead(arguments, ranks) if here.rank == 0 else follow(ranks, check)
    ranks.leave()
    return code


def _lead(arguments: list[str], ranks: Group) -> int:
    """The command, and to the other ranks how it ended."""
    try:
        code = _main(arguments, ranks)
        ranks.send({"code": code})
        return code
    except RunInterrupted as stopped:
        ranks.send({"code": stopped.exit_code})
        raise
    except (RankLost, RankFailed):  # all know
        raise
    except (KeyboardInterrupt, Stopped):  # at once: the others notice
        ranks.report_loss()
        raise
    except BaseException as error:
        ranks.fail(error)
        raise


def _main(arguments: list[str], ranks: Ranks) -> int:
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions reach us whole instead of being printed and turned into exit(1)
    parser = get_args_parser()
    parser.error = _refuse
    known = set(parser._option_string_actions)
    for argument in arguments:
        if argument.startswith("-") and argument.partition("=")[0] not in known:
            raise ConfigError(unknown_flag(argument, known))
    parsed = parser.parse_intermixed_args(arguments)
    for flag in FIXED:
        if getattr(parsed, flag):
            raise ConfigError(f"--{flag.replace('_', '-')} is not for memmeta: give overrides, KEY=VALUE")
    if (parsed.resolve or parsed.package) and not parsed.cfg:
        raise ConfigError("--resolve and --package go with --cfg: memmeta train --cfg job --resolve")
    flags = [a for a in arguments if a not in parsed.overrides]
    named, others = split_resume(parsed.overrides)
    if named is not None and flags:
        raise ConfigError(f"{flags[0]} with resume=: resume goes on with one run; give a multirun's own command again")
    if named is not None:
        return resume(Path(named), others, lambda config: _check_all(config, ranks), ranks)
    if any(getattr(parsed, flag) for flag in INFORMATION):
        offer_plugins(parsed.overrides)
        return _hydra([*parsed.overrides, *flags], ranks)
    if parsed.multirun and ranks.size > 1:
        raise ConfigError(
            f"a multirun on {ranks.size} ranks: torchrun shares one run over ranks; leave out -m, or start the "
            "multirun without torchrun"
        )
    require_extras(parsed.overrides)
    require_a_search(parsed.overrides)
    overrides = maximised(tracked(parsed.overrides))
    found = jobs(overrides, parsed.multirun)
    for job in found:
        if job.weights:
            weights_file(job.weights)
    for job in found:
        _check_all(job, ranks)
    overrides = [*overrides, *_folder(overrides, parsed.multirun, found)]
    return _multirun(overrides, flags) if parsed.multirun else _hydra([*overrides, *flags], ranks)


def _multirun(overrides: list[str], flags: list[str]) -> int:
    """Every job, then the table over those that there are, also where one ended the multirun."""
    folder = named_folder("hydra.sweep.dir", overrides) or ""
    known = "${" not in folder

    def launch() -> int:
        return _hydra([*overrides, *flags], SINGLE_PROCESS, multirun.swept(overrides))

    try:
        code = stopped_together(launch) if has_workers(overrides) else launch()
    except Exception:
        if known:
            with suppress(OSError):  # which would hide the error
                multirun.write_results_table(Path(folder), overrides)
        raise
    if known:
        multirun.write_results_table(Path(folder), overrides)
    return code


def _refuse(message: str) -> NoReturn:
    raise ConfigError(message)


def tracked(overrides: list[str]) -> list[str]:
    """`overrides`, with tracking=online where a W&B agent runs the command, which would see nothing of an offline run,
    and neither the overrides nor WANDB_MODE say otherwise."""
    sweep = os.environ.get("WANDB_SWEEP_ID")
    said = any(o.lstrip("+").partition("=")[0] in ("tracking", "tracking.mode") for o in overrides)
    if not sweep or said or os.environ.get("WANDB_MODE", "online") not in ("online", "run"):
        return overrides
    logger.info("part of the W&B sweep %s, so tracked online (tracking=offline: not)", sweep)
    return [*overrides, "tracking=online"]


def _check_all(config: Config, ranks: Ranks) -> None:
    """`check` on every rank, and what several need beside."""
    if config.batch_size < ranks.size:
        raise ConfigError(
            f"batch_size={config.batch_size} on {ranks.size} ranks leaves ranks without a task: use at most "
            f"{config.batch_size} ranks, or a larger batch_size"
        )
    ranks.send({"config": to_dict(config)})
    placed = ranks.placed(config)
    check(placed)
    ranks.require_same("the kind of device", resolve_device(placed.device).type)


def check(config: Config) -> None:
    """What a configuration needs of this machine, found out without creating or loading anything."""
    device = resolve_device(config.device)
    check_tasks_fit(config)
    config.dataset.require(config.data_root)
    if config.dataset.has_finite_tasks:  # nothing is read, and what is made is small
        return
    block = config.memory.checkpoint == "block"
    backbones.require(config.backbone, *channels_and_size(config.dataset), block)
    fit_to_budget(config, device)


def _folder(overrides: list[str], multirun: bool, found: list[Config]) -> list[str]:
    """The override that names this command's own folder; none where the user names it, which may hold the same run or
    multirun already."""
    key = "hydra.sweep.dir" if multirun else "hydra.run.dir"
    named = named_folder(key, overrides)
    if named is None:
        return [f"{key}={made_folder(key, overrides)}"]
    if "${" in named:  # an interpolation is Hydra's to resolve
        return []
    folder = Path(named)
    if named and (holds_run(folder) if not multirun else (folder / MULTIRUN).is_file()):
        for at, config in enumerate(found):
            earlier = earlier_run(folder / str(at) if multirun else folder)
            if earlier is not None:
                earlier.require_same(config)
    else:
        made_folder(key, overrides)
    return []


class _Ended(BaseException):
    """Carries the one-line error of a job past Hydra, which would print a line of its own for an Exception.

    Only for Hydra's basic launcher and sweeper: others expect an Exception where one job of many fails."""

    def __init__(self, error: MemmetaError | OSError) -> None:
        super().__init__(str(error))
        self.error = error


def _hydra(arguments: list[str], ranks: Ranks, swept: Sequence[str] = ()) -> int:
    """Hydra's own entry point, which calls `_job` in this process or through a launcher. swept: the keys of a multirun
    that have several values."""

    def alone(cfg: DictConfig) -> float:
        return _job(cfg, swept=swept)

    def on_ranks(cfg: DictConfig) -> float:
        return _job(cfg, ranks)

    job = alone if ranks.size == 1 else on_ranks  # launchers pickle it
    GlobalHydra.instance().clear()
    several = {"-m", "--multirun"} & set(arguments)
    before, sys.argv = sys.argv, ["memmeta train", *(quote_paths(a, multirun=bool(several)) for a in arguments)]
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(job)()
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(one_line(error)) from None
    except _Ended as ended:
        raise ended.error from None
    except SystemExit as end:  # how Hydra ends --help and its kin
        return int(end.code or 0)
    finally:
        sys.argv = before
    return 0


def _job(cfg: DictConfig, ranks: Ranks = SINGLE_PROCESS, swept: Sequence[str] = ()) -> float:
    """One run, in the folder that Hydra made for it. Returns the `objective`."""
    settings, asked = HydraConfig.get(), request_to_worker()
    try:
        if asked.signum is not None:
            raise MultirunInterrupted(asked.signum)
        config = from_omegaconf(cfg, settings.runtime.cwd)
        check(ranks.placed(config))
        path, overrides = Path(settings.runtime.output_dir), list(settings.overrides.task)
        values = label({o.partition("=")[0]: text_of(o) for o in overrides}, swept)
        if values:
            logger.info("%s, in %s", values, path)
        title = titled(values, config.run_name) if values else given_title()
        summary = runner.run(config, path, overrides, ranks, title)
        return objective(read_json(summary, Summary))
    except (MemmetaError, OSError) as error:
        if all(settings.runtime.choices.get(f"hydra/{part}") == "basic" for part in ("launcher", "sweeper")):
            raise _Ended(error) from error
        raise error.with_traceback(None) from None
