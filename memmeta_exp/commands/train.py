"""`memmeta train [overrides]`: the only module that imports Hydra.

Everything a user can get wrong is found by composing the configuration, for every job of a multirun, before Hydra's
own machinery starts: by then nothing has been created.
"""

import itertools
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from memmeta_exp import runner
from memmeta_exp.build import resolve_device
from memmeta_exp.config import SECTIONS, Config, ConfigError, closest, from_omegaconf
from memmeta_exp.data import require
from memmeta_exp.tracking.run_folder import claim

MAX_CHECKED_JOBS = 256  # of a multirun, before it starts; composing one takes about 50 ms


def main(arguments: list[str]) -> int:
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions reach us whole instead of being printed and turned into exit(1)
    parser = get_args_parser()
    parser.error = _refuse
    flags = [a for a in arguments if a.startswith("-")]
    known = set(parser._option_string_actions)
    for flag in flags:
        if flag.partition("=")[0] not in known:
            raise ConfigError(f"unknown option '{flag}'{closest(flag, [k for k in known if k.startswith('--')])}")
    parsed = parser.parse_intermixed_args(arguments)
    options = [a for a in arguments if a not in parsed.overrides]
    arguments = [*options, *parsed.overrides]  # Hydra's own parser wants its flags first
    if parsed.config_path or parsed.config_name or parsed.config_dir:
        raise ConfigError("--config-path, --config-name and --config-dir are fixed; give keys as overrides: KEY=VALUE")
    if any(getattr(parsed, flag) for flag in ("help", "hydra_help", "cfg", "info", "shell_completion")):
        return _hydra(arguments)
    for job in _jobs(parsed.overrides, parsed.multirun):
        _check(job)
    return _hydra([*arguments, *_claimed(parsed.overrides, parsed.multirun)])


def _refuse(message: str) -> NoReturn:
    raise ConfigError(message)


def conf_dir() -> Path:
    """The conf/ folder: beside the package in a wheel, beside the package's folder in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / "conf", package.parent / "conf"):
        if (candidate / "config.yaml").is_file():
            return candidate
    raise ConfigError(f"no conf/config.yaml at {package} or above: the installation is incomplete; reinstall memmeta")


def composed(overrides: list[str]) -> DictConfig:
    """What Hydra composes from `overrides`; ConfigError, in one line, where it cannot."""
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return compose("config", overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_one_line(error, overrides)) from None


def _hydra(arguments: list[str]) -> int:
    """Hands the command line to Hydra, which calls `_job` in this process or through a launcher."""
    GlobalHydra.instance().clear()
    before, sys.argv = sys.argv, ["memmeta train", *arguments]
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(_job)()
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_one_line(error, arguments)) from None
    except SystemExit as end:  # how Hydra ends --help and its kin
        return int(end.code or 0)
    finally:
        sys.argv = before
    return 0


def _job(cfg: DictConfig) -> str:
    """One run, in the folder that Hydra made for it."""
    config = from_omegaconf(cfg)
    _check(config)
    settings = HydraConfig.get()
    return str(runner.run(config, Path(settings.runtime.output_dir), list(settings.overrides.task)))


def _check(config: Config) -> None:
    """What a configuration needs of this machine, found out without creating or loading anything."""
    resolve_device(config.device)
    require(config.dataset, config.data_root)


def _jobs(overrides: list[str], multirun: bool) -> list[Config]:
    """The configuration of every job: one, or all combinations of a multirun's values."""
    if not multirun:
        return [from_omegaconf(composed(overrides))]
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise ConfigError(_one_line(error, overrides)) from None
    choices = [
        [f"{o.get_key_element()}={value}" for value in o.sweep_string_iterator()] if o.is_sweep_override() else [line]
        for o, line in zip(parsed, overrides, strict=True)
    ]
    jobs = itertools.islice(itertools.product(*choices), MAX_CHECKED_JOBS)
    return [from_omegaconf(composed(list(job))) for job in jobs]


def _claimed(overrides: list[str], multirun: bool) -> list[str]:
    """The override that names this command's own folder, made here and now so that no other command has it; none
    where the user names one, which must then not hold a run already."""
    key = "hydra.sweep.dir" if multirun else "hydra.run.dir"
    named = [o.partition("=")[2] for o in overrides if o.partition("=")[0] == key]
    if named:
        if not multirun and (Path(named[-1]) / "status.json").exists():
            raise ConfigError(f"{named[-1]} already holds a run; name another hydra.run.dir, or remove it first")
        return []
    now = datetime.now()
    try:
        return [f"{key}={claim(Path('outputs') / now.strftime('%Y-%m-%d') / now.strftime('%H-%M-%S'))}"]
    except OSError as error:
        raise ConfigError(
            f"no run folder can be made under {Path('outputs').resolve()}: {error.strerror}; run from a folder that "
            "you can write to, or set hydra.run.dir"
        ) from None


def _one_line(error: Exception, overrides: list[str]) -> str:
    """Hydra's and OmegaConf's complaints with a suggestion where a name is misspelt."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, MissingConfigException) and "/" in (error.missing_cfg_file or ""):
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        group = group.partition("/")[0] if group.startswith("experiment") else group
        return f"unknown {group} '{_after_group(str(error.missing_cfg_file), group)}'{closest(option, _options(group))}"
    if isinstance(error, OverrideParseException):
        return f"cannot read '{error.override}': {lines[-2] if len(lines) > 2 else lines[0]}; write KEY=VALUE"
    if isinstance(error, ConfigCompositionException) and lines and lines[0].startswith("Could not override"):
        key = lines[0].split("'")[1]
        return f"unknown key '{key}'{closest(key, _keys())}"
    return lines[0] if lines else type(error).__name__


def _after_group(path: str, group: str) -> str:
    return path.removeprefix(f"{group}/")


def _options(group: str) -> list[str]:
    """The options of a config group, nested ones as paths."""
    base = conf_dir() / group
    return [str(file.relative_to(base).with_suffix("")) for file in base.rglob("*.yaml")]


def _keys() -> list[str]:
    """Every key and group of every option of the default configuration, dotted."""
    keys: set[str] = set(SECTIONS) | {"experiment"}
    for group in SECTIONS:
        for option in _options(group):
            keys |= _flat(OmegaConf.to_container(OmegaConf.load(conf_dir() / group / f"{option}.yaml")), f"{group}.")
    return sorted(keys | {k for k in _flat(OmegaConf.to_container(composed([])), "") if k})


def _flat(values: Any, prefix: str) -> set[str]:
    found: set[str] = set()
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}"}
    return found
