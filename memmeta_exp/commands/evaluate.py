"""`memmeta evaluate run=DIR`: tests a run again on its stored episodes, or on new ones."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from memmeta_exp.commands.arguments import parse, whole_number
from memmeta_exp.commands.cross_dataset import on_other_dataset, split_dataset, split_paths
from memmeta_exp.commands.details import write_details
from memmeta_exp.config import Config, ConfigError, from_dict, from_yaml, to_dict
from memmeta_exp.config.compose import without_plugins
from memmeta_exp.data import SinusoidTasks, TaskBatch
from memmeta_exp.experiment.builder import Experiment, dataset_constants
from memmeta_exp.experiment.evaluation import Score, score_tasks
from memmeta_exp.memory.budget import build_within_budget
from memmeta_exp.prediction.load import require_statistics, restore_with_ways
from memmeta_exp.tracking.run_folder import EpisodeResult, Result, SinusoidResult, read_test_episodes
from memmeta_exp.training import checkpoint
from memmeta_exp.training.state import image_digests, require_images
from memmeta_exp.utils.atomic_io import replace_text
from memmeta_exp.utils.errors import DataError

HELP = """memmeta evaluate run=DIR [checkpoint=best|last | iteration=N] [device=auto|cpu|cuda|cuda:N] [threads=N]
                 [data_root=DIR] [dataset.path=DIR] [dataset.split_file=FILE] [backbone.weights=FILE]
                 [tasks=N] [split=test|val] [ways=W] [shots=S] [queries=Q] [out=FILE.json] [details=DIR]
                 [test_adaptation=own|gd|exact] [eval_steps=K] [eval_lr=LR] [eval_mu=MU] [mu=MU]
                 [task_stats_weight=S]
                 [dataset=OTHER [dataset.KEY=VALUE] ...] [plugins=[MODULE,...]]

Tests the model of the run folder DIR on the tasks of its test_episodes.csv, with the run's own configuration. Prints
the accuracy (sinusoid: the mean squared error), its 95 % interval, and how many tasks score as stored.

iteration=N           the weights that checkpoint_at=[N] kept
tasks=N               the first N tasks of the run's test stream instead (split=val: of its validation stream)
ways=W                classes of these tasks
shots=S, queries=Q    support and query images per class of these tasks
dataset=OTHER         tasks of another dataset with the same image size and channels (cross-domain test);
                      by default as many as the run's test has
test_adaptation       own: the algorithm's adaptation; gd: K steps of size LR on the head; exact: the head that
                      minimises the support loss + eval_mu/2 |phi|^2
mu=MU                 the algorithm's own adaptation with another weight of R (algorithm.mu)
details=DIR           accuracy by class, confusion matrix and calibration, as CSV and pictures in DIR
task_stats_weight=S   weight of each task's own batch-norm statistics, for runs with backbone.norm=running

device and threads are the run's own by default. So are data_root, dataset.path, dataset.split_file and
backbone.weights; set them if files have moved. It writes out=FILE and details=DIR only.
"""
SHAPE = ("ways", "shots", "queries")
TAKES = {"gd": ("eval_steps", "eval_lr"), "exact": ("eval_mu",)}  # keys that only this test_adaptation uses
ADAPTATION = ("test_adaptation", *TAKES["gd"], *TAKES["exact"])
OWN = {"mu": "algorithm", "task_stats_weight": "backbone"}  # numbers that may replace the run's own, and their sections
CHOSEN = ("run", "checkpoint", "iteration", "device", "threads", "data_root", "tasks", "split")
OPTIONS = (*CHOSEN, *SHAPE, *ADAPTATION, *OWN, "out", "details")
CLOSE = 1e-4  # relative tolerance: squared errors round differently on other processors


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(HELP)
        return 0
    moved, others = split_paths(without_plugins(arguments))
    dataset, others = split_dataset(others)
    options = parse(others, dict.fromkeys(OPTIONS))
    _require_sound(options, bool(dataset))
    folder = Path(str(options["run"]))
    weights = checkpoint.chosen(folder, options["checkpoint"], whole_number(options, "iteration", least=1))
    tasks, split = whole_number(options, "tasks", least=2), options["split"] or "test"
    shape = {key: whole_number(options, key, least=2 if key == "ways" else 1) for key in SHAPE}
    machine = {"device": options["device"], "data_root": options["data_root"], **moved}
    machine |= {"threads": whole_number(options, "threads", least=1)}
    config = read_config(folder, machine | ({} if dataset else shape))
    if config.dataset.has_finite_tasks:
        raise ConfigError(
            f"{folder} is a run on dataset={config.dataset.name}, which has no test tasks: read F in its summary.json"
        )
    its_own, as_stored = config.dataset, _adaptation_text(config)
    if options["details"] is not None and config.dataset.is_regression:
        raise ConfigError(f"details={options['details']}: dataset={config.dataset.name} has no classes; leave it out")
    adaptation = {key: options[key] for key in ADAPTATION if options[key] is not None}
    if adaptation:
        config = read_config(folder, machine | adaptation | ({} if dataset else shape))
    for of, keys in TAKES.items():
        if config.test_adaptation != of and adaptation.keys() & set(keys):
            given = " and ".join(key for key in keys if key in adaptation)
            raise ConfigError(f"{given} is for test_adaptation={of} only: set it, or leave {given} out")
    changed = {key: text for key in OWN if (text := options[key]) is not None}
    for key, text in changed.items():
        config = _with(config, key, text)
    if dataset:
        config, tasks = on_other_dataset(config, dataset, shape), tasks or _as_many(config, folder)
    episodes = _episodes(folder, config) if tasks is None else []
    experiment = _built(config, its_own, weights)
    if moved and not dataset:
        _require_its_images(experiment, weights.with_name(checkpoint.LAST))
    iteration = restore_with_ways(experiment.model, config, weights, read_config(folder, machine))
    require_statistics(config, weights, iteration)
    which = f"{'kept' if options['iteration'] else weights.stem} checkpoint of iteration {iteration}"
    if adaptation:
        which += f", adapted by {_adaptation_text(config)}"
    which += "".join(f", {key} = {float(text):g}" for key, text in changed.items())
    tasks_of: Any = _waves_of if config.dataset.is_regression else _images_of
    drawn = tasks_of(experiment, episodes, folder) if tasks is None else experiment.samplers[split].draw(0, tasks)
    score = score_tasks(experiment, drawn)
    if options["details"] is not None:
        write_details(Path(options["details"]), experiment, drawn)
    if tasks is not None:
        where = f" of {config.dataset.name}" if dataset else ""
        return _print_score(config, split, score, f"{tasks} tasks{where} ({_shape(config)}), {which}", options["out"])
    of = f"{len(episodes)} stored tasks, {which}"
    if _adaptation_text(config) == as_stored and not changed:
        of += f"; {_unchanged_count(score, episodes)} tasks score as stored"
    return _print_score(config, "test", score, of, options["out"])


def _require_sound(options: Mapping[str, str | None], other_dataset: bool) -> None:
    """ConfigError where options are unknown or do not go together."""
    if options["run"] is None:
        raise ConfigError("evaluate needs a run folder: memmeta evaluate run=outputs/DATE/TIME")
    new = [key for key in ("split", *SHAPE) if options[key] is not None]
    if new and options["tasks"] is None and not other_dataset:
        raise ConfigError("split, ways, shots and queries are for new tasks: set their number with tasks=N")
    if options["split"] not in (None, "test", "val"):
        raise ConfigError(f"split={options['split']} is unknown; choose from test, val")


def _built(config: Config, its_own: Any, weights: Path) -> Experiment:
    """Builds the experiment of `config`, without the classifier that only training uses.

    Images are normalised by the constants of `its_own`, the dataset that the checkpoint `weights` was trained on. On
    another dataset, these are read from `weights`; if it has none, they are computed from the images of `its_own`.
    """
    of_dataset = None
    if config.images.normalise == "dataset" and config.dataset != its_own:
        stored = checkpoint.load(weights).get("normalised_by")
        of_dataset = (tuple(stored[0]), tuple(stored[1])) if stored else dataset_constants(its_own, config.data_root)
    experiment = build_within_budget(config, of_dataset)
    experiment.model.classifier = None  # used in training only, for the classes of its training split
    return experiment


def _require_its_images(experiment: Experiment, newest: Path) -> None:
    """Raises DataError if the images differ from the run's, whose digests the checkpoint `newest` has."""
    if newest.is_file():
        require_images(image_digests(experiment), checkpoint.load(newest).get("images", {}))


def _with(config: Config, key: str, text: str) -> Config:
    """`config` with the key `key` of OWN set to the number in `text`. Raises ConfigError if `text` is no finite number,
    or the run's configuration has no such key."""
    values, section = to_dict(config), OWN[key]
    if key == "mu" and config.test_adaptation != "own":
        why = "has no R: leave one of them out" if config.test_adaptation == "gd" else "has its own: set eval_mu"
        raise ConfigError(
            f"mu is for the algorithm's own adaptation, and test_adaptation={config.test_adaptation} {why}"
        )
    if key not in values[section]:
        name = values[section]["name"]
        raise ConfigError(f"{key}={text}: {name} has no {section}.{key}; leave it out")
    try:
        number = float(text)
    except ValueError:
        raise ConfigError(f"{key}={text} is not a number: give one in the range of {section}.{key}") from None
    if not math.isfinite(number):
        raise ConfigError(f"{key}={text} is not finite: give a number in the range of {section}.{key}")
    return from_dict({**values, section: {**values[section], key: number}})


def _as_many(config: Config, folder: Path) -> int:
    """The number of tasks of the run's own test."""
    if not config.test_tasks:
        raise ConfigError(f"{folder} has test_tasks=0: set the number of tasks with tasks=N")
    return config.test_tasks


def _shape(config: Config) -> str:
    if config.dataset.is_regression:
        return f"{config.shots}-shot, {config.queries} queries"
    return f"{config.ways}-way {config.shots}-shot, {config.queries} queries a class"


def _adaptation_text(config: Config) -> str:
    if config.test_adaptation == "own":
        return "the algorithm's own adaptation"
    if config.test_adaptation == "exact":
        return f"the exact head, mu = {config.eval_mu:g}"
    return f"{config.eval_steps} steps of {config.eval_lr:g} on the head"


def _print_score(config: Config, split: str, score: Score, of: str, out: str | None) -> int:
    """Prints the accuracy or error, and writes it to the JSON file `out`, if given. of: describes the tasks."""
    mean, half_width = score.interval
    if score.unsolved_fraction:
        of += f"; the head missed its tolerance on {score.unsolved_fraction:.1%} of them"
    if score.accuracy is None:
        print(f"{split} mean squared error {mean:.5g} +- {half_width:.2g} (95 %) over {of}")
    else:
        print(f"{split} accuracy {mean:.2%} +- {half_width:.2%} (95 %) over {of}")
    if out is not None:
        key = f"{split}/mse" if score.accuracy is None else f"{split}/acc"
        values = {key: mean, f"{key}_ci95": half_width, f"{split}/loss": score.mean_loss}
        values |= {f"{split}/unsolved_fraction": score.unsolved_fraction, "tasks": len(score.loss)}
        values |= {"dataset": config.dataset.name, "of": of}
        try:
            replace_text(Path(out), json.dumps(values, indent=2) + "\n")
        except OSError as error:
            raise ConfigError(f"out={out} cannot be written ({error.strerror}): name another file") from None
    return 0


def _unchanged_count(score: Score, episodes: Sequence[Any]) -> int:
    """The number of tasks with their stored score."""
    if score.accuracy is None:
        pairs = zip(score.loss, (e.mse for e in episodes), strict=True)
        return sum(math.isclose(a, b, rel_tol=CLOSE) for a, b in pairs)
    return sum(a == e.accuracy for a, e in zip(score.accuracy, episodes, strict=True))


def _images_of(experiment: Experiment, episodes: list[EpisodeResult], folder: Path) -> TaskBatch:
    """The image tasks stored in `episodes`."""
    config, sampler = experiment.config, experiment.samplers["test"]
    device = sampler.image_set.images.device
    classes = torch.tensor([e.classes for e in episodes], device=device)
    items = torch.tensor([e.items for e in episodes], device=device).unflatten(1, (config.ways, -1))
    if bool((items >= sampler.image_set.sizes[classes][..., None]).any()):
        raise ConfigError(
            f"{folder / 'test_episodes.csv'} is damaged, or the dataset has changed: it names images that "
            f"{config.run_name} does not have"
        )
    return TaskBatch(sampler.image_set, classes, items, config.shots, pixels=sampler.pixels)


def _waves_of(experiment: Experiment, episodes: list[SinusoidResult], _: Path) -> SinusoidTasks:
    """The sine-wave tasks stored in `episodes`."""

    def numbers(name: str) -> torch.Tensor:
        return torch.tensor([getattr(e, name) for e in episodes], dtype=torch.float64, device=experiment.device)

    shots, dtype = experiment.config.shots, experiment.samplers["test"].dtype
    return SinusoidTasks(numbers("amplitude"), numbers("phase"), numbers("x"), shots, dtype)


def read_config(folder: Path, changes: Mapping[str, str | int | None]) -> Config:
    """The configuration of the run in `folder`, with those `changes` that are not None. Raises ConfigError."""
    file = folder / "config.yaml"
    if not file.is_file():
        raise ConfigError(f"{folder} is not a run folder, it has no config.yaml: name one that memmeta train wrote")
    return from_yaml(file, {"weights": None} | {k: v for k, v in changes.items() if v is not None})


def _episodes(folder: Path, config: Config) -> list[Any]:
    """The rows of the run's test_episodes.csv, one per task, checked against `config`."""
    if not (folder / "test_episodes.csv").is_file():
        why, instead = "the run did not reach its test", "train it to the end"
        if not config.test_tasks:
            why, instead = "the run has test_tasks=0", "set the number of tasks with tasks=N"
        raise ConfigError(f"{folder} has no test_episodes.csv: {why}; {instead}")
    episodes = _waves(folder, config) if config.dataset.is_regression else _stored(folder, config)
    if len(episodes) < 2:
        raise ConfigError(
            f"{folder / 'test_episodes.csv'} is damaged: it holds {len(episodes)} tasks, and at least 2 are needed"
        )
    return episodes


def _stored(folder: Path, config: Config) -> list[EpisodeResult]:
    episodes = _read(folder, EpisodeResult)
    facts, per_class = config.dataset.facts(), config.shots + config.queries
    for e in episodes:
        images = facts.images.get("test", facts.smallest("test"))  # an upper bound of the images of a class
        indices_fit = all(0 <= c < facts.classes["test"] for c in e.classes) and all(0 <= i < images for i in e.items)
        if len(e.classes) != config.ways or len(e.items) != config.ways * per_class or not indices_fit:
            raise ConfigError(
                f"{folder / 'test_episodes.csv'} is damaged, or the dataset has changed: task {e.task} does not fit "
                f"{config.run_name}"
            )
    return episodes


def _waves(folder: Path, config: Config) -> list[SinusoidResult]:
    episodes = _read(folder, SinusoidResult)
    for e in episodes:
        if len(e.x) != config.shots + config.queries or not all(map(math.isfinite, (e.amplitude, e.phase, *e.x))):
            raise ConfigError(
                f"{folder / 'test_episodes.csv'} is damaged: task {e.task} does not fit {config.run_name}"
            )
    return episodes


def _read(folder: Path, kind: type[Result]) -> list[Result]:
    try:
        return read_test_episodes(folder, kind)
    except DataError as error:
        raise ConfigError(str(error)) from None
