"""`memmeta evaluate run=DIR`: the test of a finished run, done again on the episodes it stored."""

from pathlib import Path

import torch

from memmeta_exp import checkpoint
from memmeta_exp.budget import fitted
from memmeta_exp.build import build, resolve_device
from memmeta_exp.commands.arguments import parse
from memmeta_exp.config import Config, ConfigError, from_yaml
from memmeta_exp.data import TaskBatch
from memmeta_exp.evaluation import score_tasks
from memmeta_exp.tracking.run_folder import EpisodeResult, read_test_episodes

HELP = """memmeta evaluate run=DIR [checkpoint=best|last] [device=auto|cpu|cuda|cuda:N] [data_root=DIR]

Tests the model of the run folder DIR with the run's own configuration on the episodes of its test_episodes.csv, and
prints the accuracy with its 95 % interval and how many tasks score as they did. Writes nothing."""


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(HELP)
        return 0
    options = parse(arguments, {"run": None, "checkpoint": "best", "device": None, "data_root": None})
    if options["run"] is None:
        raise ConfigError("evaluate needs a run folder: memmeta evaluate run=outputs/DATE/TIME")
    if options["checkpoint"] not in ("best", "last"):
        raise ConfigError(f"checkpoint={options['checkpoint']} is unknown; choose from best, last")
    folder = Path(options["run"])
    config = read_config(folder, {key: options[key] for key in ("device", "data_root")})
    if config.known:
        raise ConfigError(
            f"{folder} is a run on dataset={config.dataset.name}, which has no test tasks: summary.json has F itself"
        )
    episodes = _stored(folder, config)
    experiment = build(fitted(config, resolve_device(config.device)))
    weights = folder / "checkpoints" / f"{options['checkpoint']}.pt"
    iteration = checkpoint.restore(experiment.model, weights)
    sampler = experiment.samplers["test"]
    device = sampler.image_set.images.device
    classes = torch.tensor([e.classes for e in episodes], device=device)
    items = torch.tensor([e.items for e in episodes], device=device).unflatten(1, (config.ways, -1))
    if bool((items >= sampler.image_set.sizes[classes][..., None]).any()):
        raise ConfigError(f"{folder / 'test_episodes.csv'} is damaged: it names images that {config.run_name} has not")
    score = score_tasks(experiment, TaskBatch(sampler.image_set, classes, items, config.shots, pixels=sampler.pixels))
    same = sum(a == e.accuracy for a, e in zip(score.accuracy, episodes, strict=True))
    print(
        f"test accuracy {score.mean_accuracy:.2%} +- {score.ci95:.2%} (95 %) over {len(episodes)} stored tasks, "
        f"{options['checkpoint']} checkpoint of iteration {iteration}; {same} tasks score as stored"
    )
    return 0


def read_config(folder: Path, changes: dict[str, str | None]) -> Config:
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
