"""Groups runs that differ only in their seed into configurations, and labels these by the keys in which they differ."""

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
MOST_NAMED = 3  # if at most so many method keys differ, labels name them even where they are not needed


@dataclass(frozen=True)
class Configuration:
    """The finished runs of one configuration. differing: its values of the keys in which configurations of the report
    differ. label: as few of them as are needed to distinguish it."""

    label: str
    runs: tuple[Run, ...]
    differing: dict[str, Any]

    @property
    def config(self) -> dict[str, Any]:
        """The nested values of its first run; the other runs differ only in IGNORED_IN_GROUPING."""
        return self.runs[0].config

    @property
    def algorithm(self) -> str:
        return name_of(self.config, "algorithm")


def name_of(config: dict[str, Any], section: str) -> str:
    """The chosen option of `section`; "" if it has none."""
    return str(section_of(config, section).get("name", ""))


def algorithm_label(name: str) -> str:
    """The name of an algorithm in tables and figures: the label of its class, or `name` if it has none."""
    known: Any = options("algorithm").get(name)
    return (known.label if known else "") or name


def section_of(config: dict[str, Any], section: str) -> dict[str, Any]:
    """The keys and values of `section`; empty if there is no such section."""
    found = config.get(section)
    return found if isinstance(found, dict) else {}


def configurations(runs: Sequence[Run], apart: Callable[[Run], Hashable] = lambda run: None) -> list[Configuration]:
    """The finished `runs` grouped by configuration, ordered by dataset, algorithm and differing values. apart: a
    further key by which runs are separated."""
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
    """The sort key: dataset and its keys, then algorithms in the order of registration, then the other keys. Numbers
    are sorted by size."""
    names = list(options("algorithm"))
    rank = names.index(configuration.algorithm) if configuration.algorithm in names else len(names)
    data, rest = [], []
    for key, value in configuration.differing.items():
        comparable = (0, value, "") if isinstance(value, (int, float)) else (1, 0, str(value))
        (data if key.startswith("dataset") else rest).append(comparable)
    return (name_of(configuration.config, "dataset"), data, rank, rest)


class _Absent:
    """Stands for the value of a key that a configuration does not have."""

    def __repr__(self) -> str:
        return "absent"


_ABSENT = _Absent()


def _telling_keys(groups: list[list[Run]]) -> list[str]:
    """The keys that the command lines set differently, if these distinguish all configurations; else the keys in which
    the resolved configurations differ."""
    varying = [key for key in _override_keys(groups) if len({repr(_value(group[0], key)) for group in groups}) > 1]
    if len({tuple(repr(_value(group[0], key)) for key in varying) for group in groups}) == len(groups):
        return varying
    return _config_keys([group[0] for group in groups])


def _enough(keys: list[str], groups: list[list[Run]]) -> list[str]:
    """Drops `keys` that are not needed to distinguish all configurations: first those of BOOKKEEPING, last the paper's
    letters. Keeps sections, and method keys if there are at most MOST_NAMED."""

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
    """Every key that the command lines set, to the same value for all seeds of a configuration."""
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
    """Sections whose chosen option differs, and keys that differ between runs with the same option in their section. So
    defaults of an algorithm do not count as differences between algorithms."""
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
    """The value of `key` in `run`: from the configuration, the chosen option of a group, or from the command line for a
    key that the configuration does not store (an experiment)."""
    if key in SECTIONS:
        return name_of(run.config, key) or _ABSENT
    values = flat(run.config)
    if key in values:
        return values[key]
    if key.split(".")[0] in SECTIONS:
        return _ABSENT
    return run.overrides.get(key, "default")


def _labels(groups: list[list[Run]], keys: list[str]) -> list[str]:
    """One label per group with the values of `keys`. Values that follow from the option of their section are left out
    if the labels differ without them."""
    firsts = [group[0] for group in groups]
    full = [_label(run, keys) for run in firsts]
    brief = [_label(run, [key for key in keys if _own(key, run, firsts)]) for run in firsts]
    return brief if len(set(brief)) == len(set(full)) else full


def _own(key: str, run: Run, others: list[Run]) -> bool:
    """Whether `run` and another run with the same option in the section of `key` differ in `key`."""
    section, _, rest = key.partition(".")
    if not rest:
        return True
    alike = [other for other in others if name_of(other.config, section) == name_of(run.config, section)]
    return len({repr(_value(other, key)) for other in alike}) > 1


def _label(run: Run, keys: list[str]) -> str:
    pretrained = section_of(run.config, "algorithm").get("inner_steps") == 0  # no inner step in training
    names = {"algorithm": PRETRAINED} if pretrained else {}
    parts = [names.get(key) or short(key, value) for key in keys if (value := _value(run, key)) is not _ABSENT]
    if not parts:
        algorithm = names.get("algorithm") or algorithm_label(name_of(run.config, "algorithm")) or "run"
        return f"{algorithm} on {name_of(run.config, 'dataset')}"
    return ", ".join(parts)


def short(key: str, value: Any) -> str:
    """A key and its value as text of a label: K=5, ANIL, cifar_fs, mu=0.1."""
    if key == "algorithm":
        return algorithm_label(str(value))
    if key in SECTIONS:
        return str(value)
    shown = f"{value:g}" if isinstance(value, float) else "null" if value is None else str(value)
    return f"{LETTERS.get(key, key.rpartition('.')[2])}={shown}"
