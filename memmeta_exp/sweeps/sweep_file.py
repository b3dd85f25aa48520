"""A sweep file: a W&B sweep with flat dotted keys and a `command` of Hydra overrides.

The file is checked as the W&B server does when `wandb sweep` uploads it (keys of wandb/sweeps' SweepConfig schema).
Features that need a server, such as distributions and early termination, raise an error that names them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memmeta_exp.config import ConfigError, closest
from memmeta_exp.utils.errors import DataError
from memmeta_exp.utils.reading import parse_yaml, read_text

ARGUMENTS = "${args_no_hyphens}"
KEYS = ("name", "description", "project", "entity", "program", "method", "metric", "parameters", "command")
SERVER_KEYS = (
    "early_terminate", "run_cap", "controller", "scheduler", "metrics", "job", "image_uri", "apiVersion", "kind",
)  # fmt: skip
SEARCHES = ("bayes", "random", "custom")
METRIC_KEYS = ("name", "goal", "target", "impute", "impute_while_running")
MAXIMA = ("val/acc", "memory/peak_mib")  # in W&B's summary these are NAME.max (tracking/wandb_run.py)
PARAMETER_KEYS = ("value", "values", "distribution")
DISTRIBUTIONS = {"value": "constant", "values": "categorical"}
SEARCHED = ("min", "max", "mu", "sigma", "q", "a", "b", "probabilities")
PARAMETER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
KINDS = ("train", "profile")
OWN_FOLDERS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")


@dataclass(frozen=True)
class SweepFile:
    """A parsed sweep file.

    kind: the command of each job, `train` or `profile`. fixed: KEY=VALUE arguments of all jobs. parameters: the values
    of each swept key as command-line text, in the order of the file. command: the `command` of the file.
    """

    path: Path
    kind: str
    fixed: tuple[str, ...]
    parameters: dict[str, tuple[str, ...]]
    command: tuple[str, ...]


def read(path: Path) -> SweepFile:
    """Reads and checks the sweep file `path`. Raises a ConfigError that names the file, the key and the fix."""
    values = _load(path)
    try:
        _check_keys(values)
        _check_method(values, path)
        _check_metric(values.get("metric"))
        parameters = _parameters(values.get("parameters"))
        kind, fixed = _command(values)
        _check_fixed(fixed, parameters)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return SweepFile(path, kind, fixed, parameters, tuple(values["command"]))


def _load(path: Path) -> dict[str, Any]:
    try:
        values = parse_yaml(read_text(path))
    except FileNotFoundError:
        named = path.parent / "sweeps" / f"{path.stem}.yaml"
        if named.is_file():
            raise ConfigError(f"the sweep file {path} does not exist: write memmeta sweep {named}") from None
        near = [str(file) for file in sorted(path.parent.glob("[!.]*.yaml"))]
        raise ConfigError(f"the sweep file {path} does not exist{closest(str(path), near)}") from None
    except DataError as error:
        raise ConfigError(str(error)) from None
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"{path} is not a sweep file: it needs the keys method, parameters and command")
    return values


def _check_keys(values: Mapping[str, Any]) -> None:
    for key in values:
        if key in SERVER_KEYS:
            raise ConfigError(f"{key} needs a W&B server: leave it out, or use wandb sweep and wandb agent")
        if key not in KEYS:
            raise ConfigError(f"unknown key '{key}'{closest(key, KEYS)}")
    for key in ("name", "description", "project", "entity", "program"):
        if key in values and not isinstance(values[key], str):
            raise ConfigError(f"{key} must be a text, not {values[key]!r}")


def _check_method(values: Mapping[str, Any], path: Path) -> None:
    method = values.get("method")
    if method in SEARCHES:
        raise ConfigError(
            f"method: {method} needs a W&B server: use wandb sweep {path} and wandb agent, write method: grid, or "
            "search with memmeta train -m hydra/sweeper=optuna"
        )
    if method != "grid":
        said = "is missing" if method is None else f"'{method}' is unknown"
        raise ConfigError(f"method {said}: write method: grid")


def _check_metric(metric: Any) -> None:
    if metric is None:
        return
    if not isinstance(metric, dict) or not isinstance(metric.get("name"), str):
        raise ConfigError("metric needs a name and a goal: metric: {name: val/acc.max, goal: maximize}")
    for key in metric:
        if key not in METRIC_KEYS:
            raise ConfigError(f"unknown key 'metric.{key}'{closest(str(key), METRIC_KEYS)}")
    if metric.get("goal", "minimize") not in ("minimize", "maximize"):
        raise ConfigError(f"metric.goal '{metric['goal']}' is unknown: write minimize or maximize")
    if metric["name"] in MAXIMA:
        raise ConfigError(f"W&B logs the highest {metric['name']} of a run: write metric.name: {metric['name']}.max")


def _parameters(parameters: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(parameters, dict) or not parameters:
        raise ConfigError("parameters must name the keys to sweep, such as batch_size: {values: [1, 8]}")
    return {str(key): _values(str(key), spec) for key, spec in parameters.items()}


def _values(key: str, spec: Any) -> tuple[str, ...]:
    """The values of one parameter, as `wandb agent` writes them on the command line."""
    if not PARAMETER_NAME.fullmatch(key):
        raise ConfigError(f"parameter '{key}' is not a key: a key has letters, digits, '_', '-' and '.'")
    if key in OWN_FOLDERS:
        raise ConfigError(f"parameter {key}: the sweep sets each job's folder; leave it out")
    if not isinstance(spec, dict):
        raise ConfigError(f"parameter {key}: write {{value: x}} or {{values: [x, y]}}, not {spec!r}")
    if "parameters" in spec:
        inner = spec["parameters"] if isinstance(spec["parameters"], dict) else {}
        flat = f"{key}.{next(iter(inner), 'key')}"
        raise ConfigError(f"parameter {key}: nested blocks are not supported; write flat keys, such as {flat}")
    searched = [name for name in SEARCHED if name in spec]
    if searched or spec.get("distribution") not in (None, *DISTRIBUTIONS.values()):
        what = searched[0] if searched else f"distribution {spec['distribution']}"
        raise ConfigError(f"parameter {key}: a distribution ({what}) needs a W&B server; list the values")
    for name in spec:
        if name not in PARAMETER_KEYS:
            raise ConfigError(f"parameter {key}: unknown key '{name}'{closest(str(name), PARAMETER_KEYS)}")
    if ("value" in spec) == ("values" in spec):
        raise ConfigError(f"parameter {key}: write one of {{value: x}} and {{values: [x, y]}}")
    form = "value" if "value" in spec else "values"
    if spec.get("distribution", DISTRIBUTIONS[form]) != DISTRIBUTIONS[form]:
        raise ConfigError(f"parameter {key}: distribution {spec['distribution']} contradicts {form}; leave it out")
    values = [spec["value"]] if form == "value" else spec["values"]
    if not isinstance(values, list) or not values:
        raise ConfigError(f"parameter {key}: values must be a list with at least one value")
    return tuple(_text(key, value) for value in values)


def _text(key: str, value: Any) -> str:
    """`value` as W&B writes it on a command line: Python's str(). Raises ConfigError for null and mappings."""
    if value is None:
        raise ConfigError(f'parameter {key}: W&B would pass null on as None; write "null", in quotes')
    if isinstance(value, dict):
        raise ConfigError(
            f"parameter {key}: {value} is a block; write flat keys, such as {key}.{next(iter(value), '')}"
        )
    return str(value)


def _command(values: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The memmeta command of the jobs, and their common arguments."""
    command = values.get("command")
    if not isinstance(command, list) or not all(isinstance(part, str) for part in command):
        raise ConfigError(f'command must be a list of strings: command: [memmeta, train, "{ARGUMENTS}"]')
    if command.count(ARGUMENTS) != 1:
        wrong = [part for part in command if part.startswith("${args") and part != ARGUMENTS]
        why = f"{wrong[0]} does not give Hydra overrides" if wrong else "it does not contain the parameters once"
        raise ConfigError(f'command: {why}; write "{ARGUMENTS}" once')
    rest = _without_interpreter([part for part in command if part != ARGUMENTS], values.get("program"))
    kind, arguments = (rest[0] if rest else ""), tuple(rest[1:])
    if kind not in KINDS:
        raise ConfigError(
            f'command must run memmeta train or memmeta profile: command: [memmeta, train, "{ARGUMENTS}"]'
        )
    for argument in arguments:
        if "${" in argument or argument.startswith("-") or not argument.partition("=")[1]:
            raise ConfigError(f"command: '{argument}' is not an override: write KEY=VALUE")
    return kind, arguments


def _without_interpreter(command: list[str], program: Any) -> list[str]:
    """The arguments after `memmeta`, which may be started by name, as a module or by W&B's macros."""
    parts = [str(program) if part == "${program}" else part for part in command]
    parts = [part for part in parts if part not in ("${env}", "/usr/bin/env")]
    if parts and parts[0] in ("${interpreter}", "python", "python3"):
        parts = parts[1:]
        if parts[:1] == ["-m"]:
            parts = parts[1:]
    return parts[1:] if parts and parts[0] in ("memmeta", "memmeta_exp") else []


def _check_fixed(fixed: tuple[str, ...], parameters: Mapping[str, Any]) -> None:
    keys = [argument.partition("=")[0] for argument in fixed]
    for key in keys:
        if key in parameters:
            raise ConfigError(f"{key} is in the command and among the parameters: remove one")
        if keys.count(key) > 1:
            raise ConfigError(f"command: {key} is there twice: remove one")
        if key in OWN_FOLDERS:
            raise ConfigError(f"command: the sweep sets each job's folder; leave {key} out")
