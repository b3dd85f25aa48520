"""Reads stored files of older versions under the current names. On a command line an old name is an error."""

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
"""Removed top-level keys that had no effect on results. A stored configuration may have them; they are ignored. On a
command line they are unknown keys."""
RENAMED_METRICS = {
    "lower/wrong_fraction": "hypergrad/inexact_fraction",
    "lower/residual_max": "inner/grad_norm_max",
    "lower/L_g": "inner/L_g",
    "lower/kappa": "inner/kappa",
    "lower/steps": "inner/steps",
    "convergence/wrong_fraction": "convergence/inexact_fraction",
}


def as_of_today(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a config.yaml or checkpoint under the current keys. An old key is kept if its new name is there
    too."""
    values = {key: dict(v) if isinstance(v, Mapping) else v for key, v in stored.items() if key not in REMOVED}
    for old, new in RENAMED.items():
        section, _, old_key = old.rpartition(".")
        new_key = new.rpartition(".")[2]
        within = values.get(section) if section else values
        if isinstance(within, dict) and old_key in within and new_key not in within:
            within[new_key] = within.pop(old_key)
    return values


def overrides_of_today(overrides: Iterable[str]) -> list[str]:
    """The KEY=VALUE lines of an overrides.yaml under the current keys."""
    pairs = (override.partition("=") for override in overrides)
    return [f"{RENAMED.get(key, key)}{equals}{value}" for key, equals, value in pairs if key not in REMOVED]


def metrics_of_today(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of metrics.jsonl, or the numbers of a summary.json, under the current metric names."""
    return {RENAMED_METRICS.get(key, key): value for key, value in row.items()}


def progress_of_today(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The progress that a checkpoint stores, under the current names."""
    values = {key: metrics_of_today(v) if isinstance(v, Mapping) else v for key, v in saved.items()}
    if "wrong_sum" in values:
        values["inexact_sum"] = values.pop("wrong_sum")
    return values


def name_of_today(word: str) -> str | None:
    """The current name of the old key `word`, with its section if `word` has one; None if `word` is no old key."""
    without_section = {old.rpartition(".")[2]: new.rpartition(".")[2] for old, new in RENAMED.items()}
    return RENAMED.get(word) or without_section.get(word)
