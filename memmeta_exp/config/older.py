"""Names that older versions wrote, read as those of today. On a command line an old one is refused with the new one."""

from collections.abc import Iterable, Mapping
from typing import Any

RENAMED = {
    "chunk": "tasks_per_pass",
    "eval_rule": "test_adaptation",
    "convergence_of": "convergence_gradient",
    "images.mirrored": "images.test_time_flip",
    "backbone.batch_share": "backbone.task_stats_weight",
    "algorithm.adapts": "algorithm.adapted_params",
}
REMOVED = frozenset({"cuda_graph"})
"""Top-level keys that are gone and that changed no number of a run: what a stored configuration says of them is left
out. On a command line they are unknown, as any other key that there is not."""
RENAMED_METRICS = {
    "lower/wrong_fraction": "hypergrad/inexact_fraction",
    "lower/residual_max": "inner/grad_norm_max",
    "lower/L_g": "inner/L_g",
    "lower/kappa": "inner/kappa",
    "lower/steps": "inner/steps",
    "convergence/wrong_fraction": "convergence/inexact_fraction",
}


def as_of_today(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The keys and values of a config.yaml or checkpoint, in the keys of today. One that has the old name of a key and
    the new one is left as it is."""
    values = {key: dict(v) if isinstance(v, Mapping) else v for key, v in stored.items() if key not in REMOVED}
    for old, new in RENAMED.items():
        section, _, old_key = old.rpartition(".")
        new_key = new.rpartition(".")[2]
        within = values.get(section) if section else values
        if isinstance(within, dict) and old_key in within and new_key not in within:
            within[new_key] = within.pop(old_key)
    return values


def overrides_of_today(overrides: Iterable[str]) -> list[str]:
    """KEY=VALUE lines of an overrides.yaml, in the keys of today."""
    pairs = (override.partition("=") for override in overrides)
    return [f"{RENAMED.get(key, key)}{equals}{value}" for key, equals, value in pairs if key not in REMOVED]


def metrics_of_today(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of metrics.jsonl or the numbers of a summary.json, under the names of today."""
    return {RENAMED_METRICS.get(key, key): value for key, value in row.items()}


def progress_of_today(saved: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of a run's progress, under the names of today."""
    values = {key: metrics_of_today(v) if isinstance(v, Mapping) else v for key, v in saved.items()}
    if "wrong_sum" in values:
        values["inexact_sum"] = values.pop("wrong_sum")
    return values


def name_of_today(word: str) -> str | None:
    """What a key of an older version is called, with or without its section as `word` has it; None where it is none."""
    without_section = {old.rpartition(".")[2]: new.rpartition(".")[2] for old, new in RENAMED.items()}
    return RENAMED.get(word) or without_section.get(word)
