"""`memmeta train [overrides]`: checks the command line, then lets Hydra run the job or jobs.

The configuration of every job is composed and checked before anything is created. If the named run folder already holds
the same run, the command resumes it. `memmeta train resume=DIR` resumes a run without Hydra.
"""

import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

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
from memmeta_exp.commands.repeat import KEY as RUN
from memmeta_exp.commands.repeat import repeat
from memmeta_exp.commands.resume import KEY as RESUME
from memmeta_exp.commands.resume import resume, split_folder
from memmeta_exp.commands.search import maximised, objective, require_a_search, require_extras
from memmeta_exp.config import Config, channels_and_size, check_tasks_fit, from_omegaconf, to_dict
from memmeta_exp.config.compose import jobs, offer_plugins, one_line, unknown_flag
from memmeta_exp.config.overrides import conf_dir, quote_paths, text_of
from memmeta_exp.distributed.launch_env import rank_info, stop_with_launcher
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
from memmeta_exp.training.worker import run_worker
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
MULTIRUN = "multirun.yaml"  # Hydra writes it to the folder of a multirun
FIXED = ("config_path", "config_name", "config_dir", "experimental_rerun")

logger = logging.getLogger("memmeta")


def main(arguments: list[str]) -> int:
    """Runs the command; returns the exit code. Raises MemmetaError.

    With several ranks, rank 0 reads the command and writes files; the worker ranks follow its messages.
    """
    here = rank_info()
    if here is None:
        return _main(arguments, SINGLE_PROCESS)
    stop_with_launcher()
    ranks = Group.join(here)
    code = _lead(arguments, ranks) if here.rank == 0 else run_worker(ranks, check)
    ranks.leave()
    return code


def _lead(arguments: list[str], ranks: Group) -> int:
    """Runs the command on rank 0, and sends the other ranks how it ended."""
    try:
        code = _main(arguments, ranks)
        ranks.send({"code": code})
        return code
    except RunInterrupted as stopped:
        ranks.send({"code": stopped.exit_code})
        raise
    except (RankLost, RankFailed):  # the other ranks know already
        raise
    except (KeyboardInterrupt, Stopped):  # leave at once; the other ranks notice the loss
        ranks.report_loss()
        raise
    except BaseException as error:
        ranks.fail(error)
        raise


def _main(arguments: list[str], ranks: Ranks) -> int:
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises exceptions instead of printing them and calling exit(1)
    parser = get_args_parser()
    parser.error = _refuse
    known = set(parser._option_string_actions)
    for argument in arguments:
        if argument.startswith("-") and argument.partition("=")[0] not in known:
            raise ConfigError(unknown_flag(argument, known))
    parsed = parser.parse_intermixed_args(arguments)
    for flag in FIXED:
        if getattr(parsed, flag):
            raise ConfigError(f"memmeta does not take --{flag.replace('_', '-')}: give overrides, KEY=VALUE")
    if (parsed.resolve or parsed.package) and not parsed.cfg:
        raise ConfigError("--resolve and --package need --cfg: memmeta train --cfg job --resolve")
    _require_one_deed(parsed)
    flags = [a for a in arguments if a not in parsed.overrides]
    for key, action in ((RESUME, resume), (RUN, repeat)):
        named, others = split_folder(parsed.overrides, key)
        if named is not None and flags:
            raise ConfigError(f"{flags[0]} with {key}=: it is for one run; for a multirun, repeat its command")
        if named is not None:
            return action(Path(named), others, lambda config: _check_all(config, ranks), ranks)
    if any(getattr(parsed, flag) for flag in INFORMATION):
        offer_plugins(parsed.overrides)
        return _hydra([*parsed.overrides, *flags], ranks)
    if parsed.multirun and ranks.size > 1:
        raise ConfigError(
            f"-m on {ranks.size} ranks: torchrun distributes one run over ranks; leave out -m, or start the multirun "
            "without torchrun"
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


def _require_one_deed(parsed: Any) -> None:
    """ConfigError for two flags of Hydra's that each say what to do."""
    given = [flag for flag in ("run", "multirun", "cfg", "info", "shell_completion") if getattr(parsed, flag)]
    if len(given) > 1:
        raise ConfigError(f"--{given[0]} and --{given[1]} do not go together: leave one out")


def _multirun(overrides: list[str], flags: list[str]) -> int:
    """Runs every job, then writes the results table, also if an error ended the multirun."""
    folder = named_folder("hydra.sweep.dir", overrides) or ""
    known = "${" not in folder

    def launch() -> int:
        return _hydra([*overrides, *flags], SINGLE_PROCESS, multirun.swept(overrides))

    try:
        code = stopped_together(launch) if has_workers(overrides) else launch()
    except Exception:
        if known:
            with suppress(OSError):  # it would hide the first error
                multirun.write_results_table(Path(folder), overrides)
        raise
    if known:
        multirun.write_results_table(Path(folder), overrides)
    return code


def _refuse(message: str) -> NoReturn:
    raise ConfigError(message)


def tracked(overrides: list[str]) -> list[str]:
    """`overrides` with tracking as WANDB_MODE says, or online if a W&B agent runs the command, since it cannot see an
    offline run. Overrides of tracking take precedence."""
    sweep = os.environ.get("WANDB_SWEEP_ID")
    said = any(o.lstrip("+").partition("=")[0] in ("tracking", "tracking.mode") for o in overrides)
    asked = os.environ.get("WANDB_MODE", "online" if sweep else "")
    mode = {"run": "online", "dryrun": "offline"}.get(asked, asked)
    if said or mode not in ("online", "offline", "disabled"):
        return overrides
    if sweep and mode == "online":
        logger.info("part of the W&B sweep %s, so tracked online (set tracking=offline to prevent this)", sweep)
    return [*overrides, f"tracking={mode}"]


def _check_all(config: Config, ranks: Ranks) -> None:
    """Runs `check` on every rank, and checks that the configuration suits the number of ranks."""
    if config.batch_size < ranks.size:
        raise ConfigError(
            f"batch_size={config.batch_size} on {ranks.size} ranks leaves ranks without a task: use at most "
            f"{config.batch_size} ranks, or a larger batch_size"
        )
    ranks.send({"config": to_dict(config)})
    placed = ranks.with_device(config)
    check(placed)
    ranks.require_same("the kind of device", resolve_device(placed.device).type)


def check(config: Config) -> None:
    """Raises MemmetaError if this machine cannot run `config`: device, dataset files, libraries, memory budget. Creates
    and loads nothing."""
    device = resolve_device(config.device)
    check_tasks_fit(config)
    config.dataset.require(config.data_root)
    if config.dataset.has_finite_tasks:  # analytic problems read no files and need little memory
        return
    backbones.require(config.backbone, *channels_and_size(config.dataset), config.memory)
    fit_to_budget(config, device)


def _folder(overrides: list[str], multirun: bool, found: list[Config]) -> list[str]:
    """Makes this command's folder; returns the override that names it, empty if the user's overrides do.

    Raises ConfigError if a named folder holds another run or multirun; the same one is resumed.
    """
    key = "hydra.sweep.dir" if multirun else "hydra.run.dir"
    named = named_folder(key, overrides)
    if named is None:
        return [f"{key}={made_folder(key, overrides)}"]
    if "${" in named:  # Hydra resolves the interpolation later
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
    """Carries the error of a job through Hydra, which prints a line of its own for an Exception.

    Only for Hydra's basic launcher and sweeper; others expect an Exception from a failed job."""

    def __init__(self, error: MemmetaError | OSError) -> None:
        super().__init__(str(error))
        self.error = error


def _hydra(arguments: list[str], ranks: Ranks, swept: Sequence[str] = ()) -> int:
    """Calls Hydra's entry point, which calls `_job` in this process or through a launcher. swept: the keys of a
    multirun with several values. Returns the exit code."""

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
    except SystemExit as end:  # Hydra ends --help and similar flags with it
        return int(end.code or 0)
    finally:
        sys.argv = before
    return 0


def _job(cfg: DictConfig, ranks: Ranks = SINGLE_PROCESS, swept: Sequence[str] = ()) -> float:
    """Runs one job in the folder that Hydra made for it. Returns its `objective`."""
    settings, asked = HydraConfig.get(), request_to_worker()
    try:
        if asked.signum is not None:
            raise MultirunInterrupted(asked.signum)
        config = from_omegaconf(cfg, settings.runtime.cwd)
        check(ranks.with_device(config))
        path, overrides = Path(settings.runtime.output_dir), list(settings.overrides.task)
        values = label({o.partition("=")[0]: text_of(o) for o in overrides}, swept)
        if values:
            logger.info("%s, in %s", values, path)
        title = titled(values, config.run_name) if values else given_title()
        summary = runner.run(config, path, overrides, ranks, title)
        return objective(read_json(summary, Summary))
    except Stopped as stopped:
        if asked.signum is None:
            raise
        raise MultirunInterrupted(stopped.signum) from None  # for what is no Exception joblib kills the other jobs
    except (MemmetaError, OSError) as error:
        if all(settings.runtime.choices.get(f"hydra/{part}") == "basic" for part in ("launcher", "sweeper")):
            raise _Ended(error) from error
        raise error.with_traceback(None) from None
