"""`memmeta profile [overrides]`: measures a training iteration, or predicts its memory on a GPU."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from memmeta_exp.algorithms import Execution
from memmeta_exp.commands.arguments import parse
from memmeta_exp.commands.output_dir import kept_if_done, named_folder
from memmeta_exp.commands.train import check, tracked
from memmeta_exp.config import Config, ConfigError, to_dict
from memmeta_exp.config.compose import jobs, unknown_flag
from memmeta_exp.experiment.execution import resolve_execution
from memmeta_exp.experiment.profile import profile
from memmeta_exp.memory.budget import build_within_budget, fit_to_budget
from memmeta_exp.memory.predict import check_predictable, predict
from memmeta_exp.tracking import given_title, track_profile
from memmeta_exp.tracking.console import print_prediction, print_profile
from memmeta_exp.tracking.run_folder import RunFolder
from memmeta_exp.training.runner import translate_error

HELP = """memmeta profile [steps=5] [GROUP=OPTION] [KEY=VALUE] ...
memmeta profile predict=cuda|auto [GROUP=OPTION] [KEY=VALUE] ...

The first form times `steps` whole training iterations, then as many split into phases, then measures the memory of one
more. It prints the time and peak memory of each phase. The second form runs nothing: it predicts the peak memory of an
iteration on a GPU, on any machine and without data. predict=auto measures if there is a GPU, and predicts otherwise.
Both write profile.json, config.yaml and env.json to outputs/DATE/TIME (or to hydra.run.dir=DIR). docs/memory.md
explains the numbers."""
STEPS = 5
MOST_STEPS = 10_000
OWN = ("steps", "predict")
PREDICT = ("auto", "cuda")
FOLDER = "hydra.run.dir"


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(HELP)
        return 0
    for argument in arguments:
        if argument in ("-m", "--multirun"):
            raise ConfigError(f"{argument}: profile takes one configuration; give each key one value")
        if argument.startswith("-"):
            raise ConfigError(unknown_flag(argument, ("--help",)))
    own = parse([a for a in arguments if a.partition("=")[0] in OWN], dict.fromkeys(OWN))
    overrides = tracked([a for a in arguments if a.partition("=")[0] not in OWN])
    if "${" in (named_folder(FOLDER, overrides) or ""):
        raise ConfigError(f"{FOLDER} with an interpolation is for memmeta train: name a folder, or leave it out")
    (config,) = jobs(overrides, multirun=False)
    options = {key: value for key, value in own.items() if value is not None}
    check_job(options, config)
    with kept_if_done(FOLDER, overrides) as path:
        run_job(options, config, path, given_title())
    return 0


def check_job(options: Mapping[str, str], config: Config, here: bool = True) -> None:
    """Raises ConfigError if `run_job` cannot run the job. here: also check what it needs of this machine."""
    predict = options.get("predict")
    if predict not in (None, *PREDICT):
        raise ConfigError(f"predict={predict} is unknown; choose from {', '.join(PREDICT)}")
    if predict == "cuda" and "steps" in options:
        raise ConfigError(f"steps={options['steps']} with predict=cuda: a prediction times nothing; leave steps out")
    _steps(options.get("steps"))
    if _is_predicted(predict, config):
        check_predictable(config)
    elif here:
        check(config)


def run_job(options: Mapping[str, str], config: Config, path: Path, title: str | None = None) -> None:
    """Measures or predicts, as the `options` of the command say, and writes to the folder `path`. title: a display name
    that replaces the run's name."""
    if _is_predicted(options.get("predict"), config):
        _predicted(config, path, title)
    else:
        _measured(config, path, _steps(options.get("steps")), title)


def _is_predicted(predict: str | None, config: Config) -> bool:
    return predict == "cuda" or (predict == "auto" and (config.device == "cpu" or not torch.cuda.is_available()))


def _steps(value: str | None) -> int:
    if value is None:
        return STEPS
    if not (value.isascii() and value.isdigit() and 1 <= int(value) <= MOST_STEPS):
        raise ConfigError(f"steps={value} is out of range: it must be a number of iterations from 1 to {MOST_STEPS}")
    return int(value)


def _measured(config: Config, path: Path, steps: int, title: str | None) -> None:
    try:
        experiment = build_within_budget(config)
        found = profile(experiment, steps).to_dict()
    except (RuntimeError, MemoryError) as error:
        raise translate_error(error, config) from None
    how = _passes(config, experiment.learner.execution)
    print_profile(_named(title or config.run_name, how), found)
    _write(config, path, {"steps": steps, **how, **found}, str(experiment.device), title)


def _predicted(config: Config, path: Path, title: str | None) -> None:
    cuda = torch.device("cuda")
    config = fit_to_budget(config, cuda)
    found, how = predict(config).to_dict(), _passes(config, resolve_execution(config, cuda))
    print_prediction(_named(title or config.run_name, how), found)
    _write(config, path, {**how, **found}, "cpu", title)


def _passes(config: Config, execution: Execution) -> dict[str, Any]:
    """What decides the peak beside the network and the task."""
    tasks = execution.tasks_per_pass if config.algorithm.head_only else 1
    memory = {f"memory.{key}": getattr(config.memory, key) for key in ("mode", "checkpoint")}
    return {"tasks_per_pass": tasks, **memory}


def _named(name: str, how: dict[str, Any]) -> str:
    return f"{name}, {', '.join(f'{key}={value}' for key, value in how.items())}"


def _write(config: Config, path: Path, found: dict[str, object], device: str, title: str | None) -> None:
    folder = RunFolder(path)
    folder.write_config(to_dict(config))
    folder.write_env({"device": device})
    track_profile(config, folder, found, title)
    folder.set_status("finished", title=title)
    print(f"profile: {path / 'profile.json'}", flush=True)
