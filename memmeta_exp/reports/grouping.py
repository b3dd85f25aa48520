"""Runs that differ in their seed alone are one configuration; what tells configurations apart names them."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from memmeta_exp.config import IGNORED_IN_GROUPING, flat, group_digest, options
from memmeta_exp.reports.runs import Run

PRETRAINED = "pretrained"
LETTERS = {  # as in the paper
    "algorithm.inner_steps": "K",
    "algorithm.linear_steps": "N",
    "batch_size": "B",
    "iterations": "T",
    "optimizer.lr": "lr",
}
SECTIONS = ("algorithm", "dataset", "backbone", "head", "optimizer", "tracking", "memory")

BOOKKEEPING = (
    "eval_every", "val_tasks", "test_tasks", "convergence_tasks", "convergence_every", "device", "threads", "workers",
    "tasks_per_pass",
)  # fmt: skip
METHOD = ("algorithm", "training", "images", "optimizer", "head", "backbone")
MOST_NAMED = 3  # keys of the method that a label names whether it takes them or not


@dataclass(frozen=True)
class Configuration:
    """The finished runs of one configuration. differing: its values of the keys that tell configurations of the report
    apart; label: as many of them as it takes."""

    label: str
    runs: tuple[Run, ...]
    differing: dict[str, Any]

    @property
    def config(self) -> dict[str, Any]:
        """Nested values of the first of its runs: the others differ in the seed."""
        return self.runs[0].config

    @property
    def algorithm(self) -> str:
        return name_of(self.config, "algorithm")


def name_of(config: dict[str, Any], section: str) -> str:
    """The chosen option of `section`, "" where it has none."""
    return str(section_of(config, section).get("name", ""))


def algorithm_label(name: str) -> str:
    """What tables and figures call the algorithm `name`: the label of its class, `name` itself where it has none."""
    known: Any = options("algorithm").get(name)
    return (known.label if known else "") or name


def section_of(config: dict[str, Any], section: str) -> dict[str, Any]:
    """The keys of `section`; none where there is no such section."""
    found = config.get(section)
    return found if isinstance(found, dict) else {}


def configurations(runs: Sequence[Run], apart: Callable[[Run], Hashable] = lambda run: None) -> list[Configuration]:
    """The finished among `runs` by configuration, by dataset, algorithm and the values that differ. apart: what else
    separates runs."""
    groups: dict[Hashable, list[Run]] = {}
    for run in runs:
        if run.finished:
            groups.setdefault((group_digest(run.config), apart(run)), []).append(run)
    members = list(groups.values())
    keys = _telling_keys(members)
    labels = _labels(members, _enough(keys, members))
    found = []
    for label, group in zip(labels, members, strict=True):
        differing = {key: value for key in keys if (value := _value(group[0], key)) is not _ABSENT}
        found.append(Configuration(label, tuple(group), differing))
    return sorted(found, key=_order)


def _order(configuration: Configuration) -> tuple[Any, ...]:
    """By dataset and its keys, then algorithms as they were entered, then the other keys; numbers by size."""
    names = list(options("algorithm"))
    rank = names.index(configuration.algorithm) if configuration.algorithm in names else len(names)
    data, rest = [], []
    for key, value in configuration.differing.items():
        comparable = (0, value, "") if isinstance(value, (int, float)) else (1, 0, str(value))
        (data if key.startswith("dataset") else rest).append(comparable)
    return (name_of(configuration.config, "dataset"), data, rank, rest)


class _Absent:
    """No such key in a configuration."""

    def __repr__(self) -> str:
        return "absent"


_ABSENT = _Absent()


def _telling_keys(groups: list[list[Run]]) -> list[str]:
    """What the command lines set apart, where that is enough to tell all configurations; else what the resolved
    configurations differ in."""
    varying = [key for key in _override_keys(groups) if len({repr(_value(group[0], key)) for group in groups}) > 1]
    if len({tuple(repr(_value(group[0], key)) for key in varying) for group in groups}) == len(groups):
        return varying
    return _config_keys([group[0] for group in groups])


def _enough(keys: list[str], groups: list[list[Run]]) -> list[str]:
    """`keys` less those without which the others still tell all apart: first those of BOOKKEEPING, the paper's letters
    last. Sections stay, and what changes the method in few ways."""

    def distinct(kept: list[str]) -> int:
        return len({tuple(repr(_value(group[0], key)) for key in kept) for group in groups})

    kept, wanted = list(keys), distinct(keys)
    method = [key for key in keys if key.partition(".")[0] in METHOD]
    stay = (*SECTIONS, *(method if len(method) <= MOST_NAMED else ()))
    for key in sorted(keys, key=lambda key: (key in LETTERS, key not in BOOKKEEPING, -keys.index(key))):
        others = [other for other in kept if other != key]
        if key not in stay and distinct(others) == wanted:
            kept = others
    return kept


def _override_keys(groups: list[list[Run]]) -> list[str]:
    """Every key that a command line sets to the same for all seeds of a configuration."""
    keys: dict[str, None] = {}
    for group in groups:
        for key in [key for run in group for key in run.overrides]:
            if key.split(".")[0] not in (*IGNORED_IN_GROUPING, "hydra", "steps", "predict", "plugins"):
                keys[key] = None
    return [
        key
        for key in _sections_first(sorted(keys))
        if all(len({repr(_value(run, key)) for run in group}) == 1 for group in groups)
    ]


def _config_keys(runs: list[Run]) -> list[str]:
    """The names of sections where they differ, and every other key that differs between configurations whose section
    has the same name: what merely comes with an algorithm does not tell two algorithms apart."""
    keys: dict[str, dict[str, set[str]]] = {}
    for run in runs:
        for key, value in flat(run.config).items():
            section, _, rest = key.partition(".")
            if section not in IGNORED_IN_GROUPING:
                name = name_of(run.config, section) if rest and rest != "name" else ""
                keys.setdefault(key, {}).setdefault(name, set()).add(repr(value))
    varying = [key for key, names in keys.items() if any(len(values) > 1 for values in names.values())]
    return _sections_first([key.removesuffix(".name") for key in varying])


def _sections_first(keys: list[str]) -> list[str]:
    return sorted(keys, key=lambda key: SECTIONS.index(key) if key in SECTIONS else len(SECTIONS))


def _value(run: Run, key: str) -> Any:
    """What `key` is in `run`: its value in the configuration, the option of a group, or what the command line gave to a
    key that the configuration does not keep (an experiment)."""
    if key in SECTIONS:
        return name_of(run.config, key) or _ABSENT
    values = flat(run.config)
    if key in values:
        return values[key]
    if key.split(".")[0] in SECTIONS:
        return _ABSENT
    return run.overrides.get(key, "default")


def _labels(groups: list[list[Run]], keys: list[str]) -> list[str]:
    """A line each of the values of `keys`, less those that merely come with the name of their section where the lines
    differ without them."""
    firsts = [group[0] for group in groups]
    full = [_label(run, keys) for run in firsts]
    brief = [_label(run, [key for key in keys if _own(key, run, firsts)]) for run in firsts]
    return brief if len(set(brief)) == len(set(full)) else full


def _own(key: str, run: Run, others: list[Run]) -> bool:
    """Whether runs whose section of `key` has the same name differ in it."""
    section, _, rest = key.partition(".")
    if not rest:
        return True
    alike = [other for other in others if name_of(other.config, section) == name_of(run.config, section)]
    return len({repr(_value(other, key)) for other in alike}) > 1


def _label(run: Run, keys: list[str]) -> str:
    pretrained = section_of(run.config, "algorithm").get("inner_steps") == 0  # no step in training, whatever its name
    names = {"algorithm": PRETRAINED} if pretrained else {}
    parts = [names.get(key) or short(key, value) for key in keys if (value := _value(run, key)) is not _ABSENT]
    if not parts:
        algorithm = names.get("algorithm") or algorithm_label(name_of(run.config, "algorithm")) or "run"
        return f"{algorithm} on {name_of(run.config, 'dataset')}"
    return ", ".join(parts)


def short(key: str, value: Any) -> str:
    """K=5, ANIL, cifar_fs, mu=0.1: a key and its value as a label says them."""
    if key == "algorithm":
        return algorithm_label(str(value))
    if key in SECTIONS:
        return str(value)
    shown = f"{value:g}" if isinstance(value, float) else "null" if value is None else str(value)
    return f"{LETTERS.get(key, key.rpartition('.')[2])}={shown}"
