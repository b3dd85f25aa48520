"""From a run folder or a file of weights to a `TrainedModel`."""

import json
from os import PathLike
from pathlib import Path
from typing import Any

from memmeta_exp.backbones import STATS_ITERATIONS, MetaModel, running_weight
from memmeta_exp.config import Config, as_of_today, changed, from_dict, from_yaml
from memmeta_exp.data import ImageTransforms
from memmeta_exp.experiment.builder import dataset_constants, evaluation_pixels, meta_model
from memmeta_exp.experiment.execution import resolve_device
from memmeta_exp.prediction.export import read_exported
from memmeta_exp.prediction.trained_model import TrainedModel, require_rows
from memmeta_exp.training import checkpoint
from memmeta_exp.utils.errors import CheckpointError, ConfigError

SUFFIX = ".safetensors"


def load(source: str | PathLike[str], device: str = "auto") -> TrainedModel:
    """The trained model of a run folder (its best checkpoint), of one of its checkpoints, or of an exported file.

    device: auto, cpu, cuda or cuda:N. Needs no images of the run. Raises ConfigError, and CheckpointError for a damaged
    checkpoint.

        model = memmeta.load("outputs/2026-01-31/12-00-00")
        classifier = model.adapt(images, labels)
    """
    path = Path(source).expanduser()
    if path.suffix == SUFFIX:
        return _exported(path, device)
    if path.is_dir():
        folder, file = path, path / "checkpoints" / checkpoint.BEST
    else:
        folder, file = path.parent.parent, path
    if not path.exists() or not (folder / "config.yaml").is_file():
        raise ConfigError(
            f"{path} is not a trained model: name a run folder, FOLDER/checkpoints/best.pt, or an exported "
            f"{SUFFIX} file"
        )
    config = from_yaml(folder / "config.yaml", {"device": device, "weights": None})
    model = _empty(config)
    iteration = checkpoint.restore(model, file)
    require_statistics(config, file, iteration)
    return TrainedModel(config, model, _pixels(config, checkpoint.load(file).get("normalised_by")), iteration)


def _exported(path: Path, device: str) -> TrainedModel:
    about, weights = read_exported(path)
    try:
        values = as_of_today(json.loads(about["config"]))
        constants, iteration = json.loads(about["normalised_by"]), int(about["iteration"])
    except (KeyError, ValueError, AttributeError):
        raise ConfigError(
            f"{path} is not a file that memmeta export wrote: its metadata has no configuration"
        ) from None
    config = from_dict(changed(values, {"device": device, "weights": None}))
    model = _empty(config)
    try:
        model.load_state_dict({"head_start" if k == "head_start" else f"backbone.{k}": w for k, w in weights.items()})
    except RuntimeError as error:
        reason = " ".join(str(error).split()[:30])
        raise CheckpointError(f"{path} does not hold the weights of its configuration ({reason})") from None
    return TrainedModel(config, model, _pixels(config, constants), iteration)


def _empty(config: Config) -> MetaModel:
    """The model of `config` with its initial values, to be replaced. Raises ConfigError if it classifies no images."""
    if not config.dataset.has_images or not config.dataset.has_classes:
        raise ConfigError(
            f"a run on dataset={config.dataset.name} has no images to adapt to: load one that was trained on images"
        )
    return meta_model(config, resolve_device(config.device))


def _pixels(config: Config, constants: Any) -> ImageTransforms:
    """Normalisation by the stored mean and deviation, or by those of the training images if none are stored."""
    if config.images.normalise == "dataset" and not constants:
        constants = dataset_constants(config.dataset, config.data_root)
    mean, std = constants or ((), ())
    return evaluation_pixels(config, (tuple(mean), tuple(std)))


def restore_with_ways(model: MetaModel, config: Config, weights: Path, own: Config) -> int:
    """Loads the checkpoint `weights` of the run `own` into `model`, that of `config`; returns its iteration. Where
    `config` has other ways, the model takes the rows of phi_0 that there are. Raises ConfigError, CheckpointError."""
    if own.dataset.is_regression or own.ways == config.ways:
        return checkpoint.restore(model, weights)
    trained = meta_model(own, model.head_start.device)
    iteration = checkpoint.restore(trained, weights)
    require_rows(own, len(trained.head_start), config.ways)
    model.load_state_dict(trained.with_ways(len(model.head_start), own.seed).state_dict())
    return iteration


def require_statistics(config: Config, weights: Path, iteration: int) -> None:
    """Raises ConfigError for a checkpoint between validations, whose running statistics are out of date."""
    running = iteration and config.backbone.norm == "running"
    if running and not running_weight(iteration, config.eval_every, config.iterations):
        raise ConfigError(
            f"{weights} is of iteration {iteration}, and backbone.norm=running updates its statistics only in the "
            f"{STATS_ITERATIONS} before a validation: use checkpoint=best, or resume the run"
        )
