"""Composes command-line overrides into checked configurations, and turns each Hydra error into one line."""

import dataclasses
import itertools
from collections.abc import Iterable
from functools import cache
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import ConfigCompositionException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf

from memmeta_exp.config import GROUPS, Config, closest, from_omegaconf, option_class, options, plug_in, to_dict
from memmeta_exp.config.common_names import advice
from memmeta_exp.config.overrides import conf_dir, parser, quote_paths, text_of
from memmeta_exp.config.plugins import modules_of
from memmeta_exp.config.section import default_of
from memmeta_exp.utils.errors import ConfigError
from memmeta_exp.utils.path_keys import is_path_key

TABLES = ("protocol", "settings", "experiment")  # groups with one file conf/GROUP.yaml, one block per option
MAX_SUGGESTED = 4  # keys of one name in different groups
MAX_CHECKED_JOBS = 256  # jobs of a multirun checked before it starts (about 50 ms each); the rest when they start


def offer_plugins(overrides: Iterable[str]) -> None:
    """Imports the modules that `plugins=` among `overrides` names, and adds their components to Hydra's groups.

    Raises ConfigError as `plug_in` and `store_options` do.
    """
    for override in overrides:
        if override.lstrip("+").startswith("plugins="):
            plug_in(_modules_in(override))
    store_options()


def without_plugins(arguments: list[str]) -> list[str]:
    """Imports the modules of `plugins=`, and returns the other `arguments`; for commands that do not use Hydra."""
    offer_plugins(arguments)
    return [argument for argument in arguments if not argument.startswith("plugins=")]


def _modules_in(override: str) -> list[str]:
    """No modules if Hydra cannot parse the override; composing it reports the error later."""
    try:
        parsed = parser().parse_override(override)
    except OverrideParseException:
        return []
    values = parsed.sweep_iterator() if parsed.is_sweep_override() else [parsed.value()]
    return [module for value in values for module in modules_of(value)]


def _open_to_keys(values: dict[str, Any]) -> DictConfig:
    """`values` as Hydra composes them: the command line may add keys to a key that holds a mapping."""
    node = OmegaConf.create(values)
    for key, value in values.items():
        if isinstance(value, dict):
            OmegaConf.set_struct(node[key], False)
    return node


def composed(overrides: list[str]) -> DictConfig:
    """Imports the plug-ins of `overrides` and composes them with Hydra. Raises a one-line ConfigError if that fails."""
    offer_plugins(overrides)
    for override in overrides:
        group, _, rest = override.partition(".name=")
        if group in GROUPS and rest:
            raise ConfigError(f"'{override}' changes the name only, not the {group}: write {group}={rest}")
        group, _, rest = override.partition("=")
        if group in GROUPS and rest in ("", "null") and override != group:
            raise ConfigError(f"{group}={rest} chooses nothing; choose from {', '.join(sorted(group_options(group)))}")
        if group == "settings":
            raise ConfigError(f"{override}: the settings follow from protocol and algorithm; choose with protocol=NAME")
    lines = [quote_paths(override) for override in overrides]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return compose("config", lines)
    except Exception as error:  # noqa: BLE001 - Hydra raises many types, and all of its input is the user's
        raise ConfigError(one_line(error)) from None


def jobs(overrides: list[str], multirun: bool) -> list[Config]:
    """The configuration of every job: one, or all combinations of a multirun's values."""
    if not multirun:
        return [from_omegaconf(composed(overrides))]
    combinations = itertools.product(*(values for _, values in choices(overrides)))
    return [from_omegaconf(composed(list(job))) for job in itertools.islice(combinations, MAX_CHECKED_JOBS)]


def choices(overrides: list[str]) -> list[tuple[str, list[str]]]:
    """The key of each override, with the single overrides it expands to.

    An override with several values (a multirun) gives one each; interval(A,B) gives its two ends. Paths have no quotes.
    """
    lines = [quote_paths(override, multirun=True) for override in overrides]
    try:
        parsed = parser().parse_overrides(lines)
        return [(o.get_key_element(), _singles(o, line)) for o, line in zip(parsed, lines, strict=True)]
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001 - as in `composed`
        raise ConfigError(one_line(error)) from None


def _singles(override: Override, line: str) -> list[str]:
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [f"{key}={text_of(line)}"] if is_path_key(key) else [line]
    value = override.value()
    values = [value.start, value.end] if isinstance(value, IntervalSweep) else override.sweep_string_iterator()
    singles = [f"{key}={value}" for value in values]
    if not singles:
        group = key.lstrip("+")
        known = group_options(group) if group in GROUPS else []
        nested = ", and those in folders by their names (glob finds none of them)" if group == "experiment" else ""
        raise ConfigError(f"{line} stands for no value: name at least one{nested}{closest('', known)}")
    return [f"{key}={text_of(single)}" for single in singles] if is_path_key(key) else singles


def values_of(overrides: list[str]) -> dict[str, Any]:
    """The checked value that each override sets in the default configuration, by dotted key or group.

    Raises ConfigError for an override that the default configuration does not accept.
    """
    values = OmegaConf.create(to_dict(from_omegaconf(composed(overrides))))
    parsed = parser().parse_overrides([quote_paths(override) for override in overrides])
    found = {o.key_or_group: OmegaConf.select(values, o.key_or_group) for o in parsed}
    return {key: OmegaConf.to_container(value) if OmegaConf.is_list(value) else value for key, value in found.items()}


def one_line(error: Exception) -> str:
    """An error of Hydra or OmegaConf as one line, with a suggestion for a misspelt name."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" ^")]
    if isinstance(error, MissingConfigException) and "/" in (error.missing_cfg_file or ""):
        return _unknown_option(str(error.missing_cfg_file))
    if isinstance(error, OverrideParseException):
        reason = lines[1] if len(lines) > 1 else lines[0]
        key, equals, value = str(error.override).partition("=")
        quoted = f"KEY=VALUE, with quotes around special characters: {key}='{value}'" if equals else "KEY=VALUE"
        return f"cannot read '{error.override}': {reason}; write {quoted}"
    if isinstance(error, ConfigCompositionException) and lines and lines[0].startswith("Could not override"):
        return _unknown_key(lines[0].split("'")[1], lines[-1].partition("=")[2])
    if lines and lines[0].startswith("Ambiguous value"):
        return f"{lines[0].rstrip('.')}: several values need the flag -m (a multirun), or quotes if they are one value"
    return f"these overrides do not compose: {lines[0] if lines else type(error).__name__}; see memmeta train --help"


def unknown_flag(argument: str, known: Iterable[str]) -> str:
    """The error line for `argument`, which starts with a dash and is not one of the flags `known`."""
    key = argument.partition("=")[0].strip("-").replace("-", "_")
    if key in _keys():
        return f"'{argument}' is a key, not a flag: write {key}=VALUE"
    near = closest(argument, [flag for flag in known if flag.startswith("--")])
    return f"unknown option '{argument}'{near}"


def _unknown_option(path: str) -> str:
    """path: the GROUP/OPTION that Hydra did not find; a group may itself be nested (hydra/launcher)."""
    group, _, option = path.partition("/")
    if group not in (*GROUPS, *TABLES):
        return f"unknown option '{path}'; see memmeta train --help"
    return f"unknown {group} '{option}'{closest(option, group_options(group))}"


def _unknown_key(key: str, value: str) -> str:
    keys = _keys()
    if key not in keys and (instead := advice(key, value)):
        return f"unknown key '{key}': {instead}"
    if key in keys:
        group = key.partition(".")[0]
        return f"the chosen {group} has no key '{key}', though another has; see memmeta keys {key}"
    same_name = sorted(known for known in keys if known.rpartition(".")[2] == key)
    if 0 < len(same_name) <= MAX_SUGGESTED:
        return f"unknown key '{key}'; did you mean {' or '.join(same_name)}?"
    return f"unknown key '{key}'{closest(key, keys)}"


def store_options() -> None:
    """Adds to Hydra's ConfigStore the options that have no file conf/GROUP/OPTION.yaml.

    These are the blocks of conf/GROUP.yaml, and components with the default values of their dataclasses. Raises
    ConfigError if a component has the name of a file.
    """
    _store_tables()
    for group in GROUPS:
        for name in _without_file(group):
            if name in _files(group):
                raise ConfigError(
                    f"{group}={name} is defined twice, by a plug-in and by conf/{group}/{name}.yaml: rename one"
                )
            ConfigStore.instance().store(group=group, name=name, node=_open_to_keys(_as_file(group, name)))


@cache
def _store_tables() -> None:
    """A block of conf/GROUP.yaml acts as a file conf/GROUP/OPTION.yaml with `# @package _global_`."""
    for group in TABLES:
        for option, values in _read(group).items():
            folder, _, name = f"{group}/{option}".rpartition("/")
            ConfigStore.instance().store(group=folder, name=name, node=values, package="_global_")


def _as_file(group: str, name: str) -> dict[str, Any]:
    """What a file conf/GROUP/NAME.yaml would hold. A dataset may also choose a backbone and a head."""
    component = option_class(group, name)
    wanted = {key: getattr(component, key) for key in ("backbone", "head")} if group == "dataset" else {}
    chosen = [{f"override /{key}@_global_.{key}": option} for key, option in wanted.items() if option is not None]
    return {"defaults": [*chosen, "_self_"], **group_values(f"{group}/{name}")}


def _without_file(group: str) -> set[str]:
    """The components of `group` without a file in conf/GROUP."""
    return set(options(group)) - {group_values(f"{group}/{file}")["name"] for file in _files(group)}


@cache
def _files(group: str) -> tuple[str, ...]:
    """The files of conf/GROUP without their suffix, nested ones as relative paths."""
    base = conf_dir() / group
    return tuple(sorted(str(file.relative_to(base).with_suffix("")) for file in base.rglob("*.yaml")))


def group_options(group: str) -> list[str]:
    """All options of `group`: files of conf/GROUP, blocks of conf/GROUP.yaml, and components without a file."""
    others = _without_file(group) if group in GROUPS else _read(group) if group in TABLES else ()
    return sorted({*_files(group), *others})


def group_values(file: str) -> dict[str, Any]:
    """The values of conf/FILE.yaml; if there is no such file, the defaults of the dataclass of `file`, GROUP/OPTION."""
    if (conf_dir() / f"{file}.yaml").is_file():
        return dict(_read(file))
    group, _, name = file.partition("/")
    return {field.name: default_of(field) for field in dataclasses.fields(option_class(group, name))}


@cache
def _read(file: str) -> dict[str, Any]:
    values = OmegaConf.to_container(OmegaConf.load(conf_dir() / f"{file}.yaml"))
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _keys() -> frozenset[str]:
    """Every key of the default configuration and of every option of every group, dotted, and the groups."""
    keys: set[str] = set(GROUPS) | {"experiment"}
    for group in GROUPS:
        for option in group_options(group):
            keys |= _flat(group_values(f"{group}/{option}"), f"{group}.")
    keys |= _flat(OmegaConf.to_container(composed([])), "")
    return frozenset(key for key in keys if not key.endswith((".name", ".defaults")))


def _flat(values: Any, prefix: str) -> set[str]:
    found: set[str] = set()
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if value and isinstance(value, dict) else {f"{prefix}{key}"}
    return found
