"""From a `Config` to the live objects of a run: data, meta-model and learners, on a device."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from memmeta_exp.algorithms import Adapt, Execution, Learner, build_algorithm
from memmeta_exp.algorithms.proposed import exact_adaptation, exact_reference, gradient_descent_adaptation
from memmeta_exp.backbones import MetaModel, apply_memory_options, build_model, image_layout
from memmeta_exp.config import Config, channels_and_size, check_tasks_fit
from memmeta_exp.data import (
    UNCHANGED,
    EpisodeSampler,
    ImageSet,
    ImageTransforms,
    SinusoidSampler,
    channel_statistics,
    load_split,
)
from memmeta_exp.data.episodes import STREAMS
from memmeta_exp.distributed.process_group import SINGLE_PROCESS, Ranks
from memmeta_exp.experiment.analytic_problems import ExactObjective, analytic_problem
from memmeta_exp.experiment.execution import resolve_device, resolve_execution
from memmeta_exp.experiment.start_weights import start_from
from memmeta_exp.utils.malloc import keep_freed_memory

DTYPES = {"fp32": torch.float32, "bf16": torch.float32, "fp64": torch.float64}  # of parameters: bf16 is autocast
DATA_SHARE = 0.5  # share of a GPU's free memory for the training split; a larger split stays in host memory
Constants = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Experiment:
    """Everything that a run computes with.

    reference: the learner that measures |grad F|^2 on sampled tasks. objective: F over all tasks of an analytic
    problem. One of the two is None. adapt: the test-time adaptation, None for the algorithm's own. samplers: one for
    each stream of tasks. ranks: the processes that share the tasks.
    """

    config: Config
    device: torch.device
    model: MetaModel
    learner: Learner
    reference: Learner | None
    adapt: Adapt | None
    samplers: dict[str, Any]
    objective: ExactObjective | None = None
    ranks: Ranks = SINGLE_PROCESS

    @property
    def learners(self) -> list[Learner]:
        """All learners that step or measure."""
        others = self.objective.learners if self.objective else [self.reference]
        return [self.learner, *(learner for learner in others if learner is not None)]

    @property
    def smoothness(self) -> float | None:
        """L_F where it is known."""
        return self.objective.smoothness if self.objective else None


def build(config: Config, device: torch.device | None = None, of_dataset: Constants | None = None) -> Experiment:
    """The experiment of `config`. Its initial values are a function of the configuration alone.

    device: None for the one that `config.device` means. of_dataset: mean and deviation for images.normalise=dataset,
    None for those of the dataset's own training images. Raises ConfigError and DataError.
    """
    check_tasks_fit(config)
    torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32: the default would round convolutions to 10-bit mantissas
    device = device or resolve_device(config.device)
    execution = resolve_execution(config, device)
    keep_freed_memory()
    torch.set_num_threads(execution.threads_each)
    if config.dataset.has_finite_tasks:
        return _analytic(config, device, execution)
    samplers = _drawn(config, device) if config.dataset.is_regression else _samplers(config, device, of_dataset)
    return _experiment(config, device, execution, samplers)


def build_on_meta(config: Config) -> Experiment:
    """The experiment as on a GPU, but of meta tensors: shapes without values. Nothing is read or computed.

    It has the training stream alone.
    """
    facts, meta = config.dataset.facts(), torch.device("meta")
    execution = resolve_execution(config, meta)
    if config.dataset.is_regression:
        return _experiment(config, meta, execution, _drawn(config, meta))
    names = tuple(map(str, range(facts.classes["train"])))
    tensor = torch.empty(facts.shape("train"), dtype=torch.uint8, device=meta)
    images = ImageSet(tensor, names, _alike(facts.images["train"], len(names)) if "train" in facts.images else None)
    anything = tuple([0.5] * facts.channels)  # the values change no shape
    return _experiment(config, meta, execution, {"train": _episodes(config, (anything, anything))(images, "train")})


def _alike(images: int, classes: int) -> tuple[int, ...]:
    """Numbers of images of `classes` classes of about equal size, which add up to `images`."""
    each, rest = divmod(images, classes)
    return tuple(each + (i < rest) for i in range(classes))


def _experiment(config: Config, device: torch.device, execution: Execution, samplers: Mapping[str, Any]) -> Experiment:
    model = meta_model(config, device, config.dataset.facts().classes["train"] if config.algorithm.classifies else None)
    apply_memory_options(model.backbone, config.memory)
    losses = config.head.losses()
    own = partial(build_algorithm, config.algorithm, model, execution, config.memory, losses)
    return Experiment(
        config=config,
        device=device,
        model=model,
        learner=own(),
        reference=own()
        if config.convergence_gradient == "own"
        else exact_reference(model, config.reference_mu, config.algorithm.head_start, execution, losses=losses),
        adapt=configured_adaptation(config),
        samplers=dict(samplers),
    )


def meta_model(config: Config, device: torch.device, classes: int | None = None) -> MetaModel:
    """The meta-model of `config` on `device`, with its initial values, or those of `config.weights`. It reads no
    images. classes: see `MetaModel`."""
    channels, size = channels_and_size(config.dataset)
    learned = config.algorithm.head_start == "learned"
    # rows of phi_0: as many as the largest task has classes, or one for regression
    rows = 1 if config.dataset.is_regression else max(config.ways, config.task("reference").ways)
    real = device.type != "meta"
    model = build_model(config.backbone, channels, size, rows, learned, config.seed, real, classes)
    model.cosine = config.head.cosine
    if real and config.weights:
        start_from(model.backbone, config.weights)
    model = model.to(device=device, dtype=DTYPES[config.precision])
    return model.to(memory_format=image_layout(device))  # pyright: ignore[reportCallIssue] - torch's own overload


def configured_adaptation(config: Config) -> Adapt | None:
    """The adaptation to validation and test tasks; None for the algorithm's own."""
    if config.test_adaptation == "exact":
        return exact_adaptation(config.eval_mu)
    return gradient_descent_adaptation(config.eval_steps, config.eval_lr) if config.test_adaptation == "gd" else None


def _analytic(config: Config, device: torch.device, execution: Execution) -> Experiment:
    """The experiment on an analytic problem."""
    problem = analytic_problem(config, device, DTYPES[config.precision])
    own = partial(build_algorithm, config.algorithm, problem.model, execution, config.memory, problem.losses)
    return Experiment(
        config=config,
        device=device,
        model=problem.model,
        learner=own(),
        reference=None,
        adapt=None,
        samplers={"train": problem.sampler},
        objective=problem.objective(config, execution, own() if config.convergence_gradient == "own" else None),
    )


IMAGENET: Constants = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # as torchvision's models publish them


def evaluation_pixels(config: Config, of_dataset: Constants) -> ImageTransforms:
    """The transforms of images in validation and test. of_dataset: as in `_episodes`."""
    c = config.images
    mean, std = {"none": ((), ()), "imagenet": IMAGENET, "dataset": of_dataset}[c.normalise]
    return replace(UNCHANGED, mean=mean, std=std, mirrored=c.test_time_flip)


def _episodes(config: Config, of_dataset: Constants) -> Callable[[ImageSet, str], EpisodeSampler]:
    """Samplers of a stream; of_dataset: mean and deviation of the training images, where they are asked for."""
    c, evaluated = config.images, evaluation_pixels(config, of_dataset)
    mean, std, plain = evaluated.mean, evaluated.std, replace(evaluated, mirrored=False)
    training = ImageTransforms(c.crop_padding, c.flip, c.brightness, c.contrast, c.saturation, mean, std)

    def episodes(images: ImageSet, stream: str) -> EpisodeSampler:
        pixels = {"train": training, "reference": plain}.get(stream, evaluated)
        return EpisodeSampler(images, stream, config.seed, *config.task(stream), pixels)

    return episodes


def dataset_constants(dataset: Any, data_root: str | None, training: ImageSet | None = None) -> Constants:
    """Mean and deviation of a dataset's training images. training: these images, None to read them."""
    training = load_split(dataset, "train", data_root) if training is None else training
    mean, std = channel_statistics(dataset, training, data_root)
    return tuple(mean), tuple(std)


def _samplers(config: Config, device: torch.device, of_dataset: Constants | None = None) -> dict[str, EpisodeSampler]:
    """One sampler for each stream; "reference" draws the fixed tasks of training classes that measure convergence.

    Only training images go to the device. Others are needed rarely, and would count in every iteration's peak memory.
    """
    splits = {split: load_split(config.dataset, split, config.data_root) for split in ("train", "val", "test")}
    if config.images.normalise == "dataset" and of_dataset is None:
        of_dataset = dataset_constants(config.dataset, config.data_root, splits["train"])
    splits["train"] = _on_device(splits["train"], device)
    episode = _episodes(config, of_dataset or ((), ()))
    return {stream: episode(splits.get(stream, splits["train"]), stream) for stream in (*splits, "reference")}


def _drawn(config: Config, device: torch.device) -> dict[str, SinusoidSampler]:
    """One sampler for each stream, of tasks that are generated and not stored."""
    dtype = DTYPES[config.precision]
    shapes = {stream: config.task(stream)[1:] for stream in STREAMS}  # without ways
    return {stream: SinusoidSampler(stream, config.seed, *shape, device, dtype) for stream, shape in shapes.items()}


def _on_device(image_set: ImageSet, device: torch.device) -> ImageSet:
    if device.type == "cuda" and image_set.images.nbytes > DATA_SHARE * torch.cuda.mem_get_info(device)[0]:
        return image_set
    return image_set.to(device)
