"""`memmeta evaluate run=DIR`: the test of a finished run, done again on the episodes it stored."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from memmeta_exp import checkpoint
from memmeta_exp.atomic import replace_text
from memmeta_exp.budget import fitted
from memmeta_exp.build import build, resolve_device
from memmeta_exp.commands.arguments import parse, whole_number
from memmeta_exp.config import Config, ConfigError, from_yaml
from memmeta_exp.data import TaskBatch
from memmeta_exp.evaluation import Score, score_tasks
from memmeta_exp.tracking.run_folder import EpisodeResult, read_test_episodes

HELP = """memmeta evaluate run=DIR [checkpoint=best|last] [device=auto|cpu|cuda|cuda:N] [data_root=DIR]
                 [tasks=N] [split=test|val] [shots=S] [queries=Q] [out=FILE.json]

Tests the model of the run folder DIR with the run's own configuration on the episodes of its test_episodes.csv, and
prints the accuracy with its 95 % interval and how many tasks score as they did. With tasks=N on the first N tasks of
its test (or validation) stream instead, of S shots and Q queries a class where these are given. Writes out=FILE alone.
"""
SHAPE = ("shots", "queries")


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(HELP)
        return 0
    defaults = {"run": None, "checkpoint": "best", "device": None, "data_root": None, "split": None, "out": None}
    options = parse(arguments, {**defaults, "tasks": None, **dict.fromkeys(SHAPE)})
    if options["run"] is None:
        raise ConfigError("evaluate needs a run folder: memmeta evaluate run=outputs/DATE/TIME")
    if options["checkpoint"] not in ("best", "last"):
        raise ConfigError(f"checkpoint={options['checkpoint']} is unknown; choose from best, last")
    folder = Path(options["run"])
    tasks, split = whole_number(options, "tasks", least=2), options["split"] or "test"
    if tasks is None and any(options[key] is not None for key in ("split", *SHAPE)):
        raise ConfigError("split, shots and queries are for new tasks: say how many with tasks=N")
    if split not in ("test", "val"):
        raise ConfigError(f"split={split} is unknown; choose from test, val")
    shape = {key: whole_number(options, key, least=1) for key in SHAPE}
    config = read_config(folder, {key: options[key] for key in ("device", "data_root")} | shape)
    if config.known:
        raise ConfigError(
            f"{folder} is a run on dataset={config.dataset.name}, which has no test tasks: summary.json has F itself"
        )
    episodes = _stored(folder, config) if tasks is None else []
    experiment = build(fitted(config, resolve_device(config.device)))
    weights = folder / "checkpoints" / f"{options['checkpoint']}.pt"
    iteration = checkpoint.restore(experiment.model, weights)
    which = f"{options['checkpoint']} checkpoint of iteration {iteration}"
    if tasks is not None:
        score = score_tasks(experiment, experiment.samplers[split].draw(0, tasks))
        of = f"{tasks} tasks ({config.ways}-way {config.shots}-shot, {config.queries} queries a class), {which}"
        return _say(split, score, of, options["out"])
    sampler = experiment.samplers["test"]
    device = sampler.image_set.images.device
    classes = torch.tensor([e.classes for e in episodes], device=device)
    items = torch.tensor([e.items for e in episodes], device=device).unflatten(1, (config.ways, -1))
    if bool((items >= sampler.image_set.sizes[classes][..., None]).any()):
        raise ConfigError(f"{folder / 'test_episodes.csv'} is damaged: it names images that {config.run_name} has not")
    score = score_tasks(experiment, TaskBatch(sampler.image_set, classes, items, config.shots, pixels=sampler.pixels))
    same = sum(a == e.accuracy for a, e in zip(score.accuracy, episodes, strict=True))
    return _say("test", score, f"{len(episodes)} stored tasks, {which}; {same} tasks score as stored", options["out"])


def _say(split: str, score: Score, of: str, out: str | None) -> int:
    """Prints the accuracy and, where `out` names a file, writes it there."""
    print(f"{split} accuracy {score.mean_accuracy:.2%} +- {score.ci95:.2%} (95 %) over {of}")
    if out is not None:
        values = {
            f"{split}/acc": score.mean_accuracy,
            f"{split}/acc_ci95": score.ci95,
            f"{split}/loss": score.mean_loss,
        }
        values |= {f"{split}/unsolved_fraction": score.unsolved_fraction, "tasks": len(score.accuracy), "of": of}
        try:
            replace_text(Path(out), json.dumps(values, indent=2) + "\n")
        except OSError as error:
            raise ConfigError(f"out={out}: {error.strerror}; name a file that can be written") from None
    return 0


def read_config(folder: Path, changes: Mapping[str, str | int | None]) -> Config:
    """The configuration of the run in `folder`, with the `changes` that are not None; ConfigError without one."""
    file = folder / "config.yaml"
    if not file.is_file():
        raise ConfigError(f"{folder} is no run folder: it has no config.yaml; name one that memmeta train wrote")
    return from_yaml(file, {key: value for key, value in changes.items() if value is not None})


def _stored(folder: Path, config: Config) -> list[EpisodeResult]:
    if not (folder / "test_episodes.csv").is_file():
        raise ConfigError(f"{folder} has no test_episodes.csv: the run did not reach its test; train it to the end")
    try:
        episodes = read_test_episodes(folder)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{folder / 'test_episodes.csv'} is damaged: {error}") from None
    facts, per_class = config.dataset.facts(), config.shots + config.queries
    for e in episodes:
        images = facts.images_per_class if facts.images is None else facts.images["test"]
        indices_fit = all(0 <= c < facts.classes["test"] for c in e.classes) and all(0 <= i < images for i in e.items)
        if len(e.classes) != config.ways or len(e.items) != config.ways * per_class or not indices_fit:
            raise ConfigError(
                f"{folder / 'test_episodes.csv'} is damaged: task {e.task} is no task of {config.run_name}"
            )
    if len(episodes) < 2:
        raise ConfigError(
            f"{folder / 'test_episodes.csv'} is damaged: it holds {len(episodes)} tasks, at least 2 needed"
        )
    return episodes
