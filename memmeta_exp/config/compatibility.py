"""Checks across sections. They read the capability attributes of components (components.py), never their class."""

from dataclasses import fields
from typing import Any

from memmeta_exp.config.facts import channels_and_size
from memmeta_exp.config.sections import ImagesConfig, TrainingConfig
from memmeta_exp.config.validation import at_most
from memmeta_exp.utils.errors import ConfigError


def check_together(config: Any) -> None:
    """Raises ConfigError if two sections of `config`, a `Config`, contradict each other."""
    config.algorithm.check_with(config)
    _check_backbone(config)
    _check_weights(config)
    _check_sampling(config)
    _check_head_lr(config)
    if config.dataset.has_finite_tasks:
        _check_no_images(config)
    _check_regression(config)
    _check_training(config)
    _check_memory(config)
    _check_attention(config)
    _check_head(config)
    _check_images(config)


def _check_backbone(config: Any) -> None:
    dataset, backbone = config.dataset, config.backbone
    if dataset.backbone is not None and backbone.name != dataset.backbone:
        raise ConfigError(
            f"dataset={dataset.name} has no images for backbone={backbone.name}: set backbone={dataset.backbone}"
        )
    if dataset.backbone is None and backbone.dataset is not None:
        raise ConfigError(
            f"backbone={backbone.name} is for dataset={backbone.dataset}, not for images: set backbone=conv4"
        )


def _check_weights(config: Any) -> None:
    if config.weights is None:
        return
    if not config.dataset.has_images:
        raise ConfigError(f"weights={config.weights} is for networks on images: leave it out here")
    if getattr(config.backbone, "weights", None) or getattr(config.backbone, "pretrained", False):
        raise ConfigError(
            f"weights={config.weights} beside the backbone's own weights are two sources: leave one of them out"
        )


def _check_sampling(config: Any) -> None:
    dataset, optimizer = config.dataset, config.optimizer
    if config.sampling == "all" and not dataset.has_finite_tasks:
        raise ConfigError(
            f"sampling=all needs a finite set of tasks, and dataset={dataset.name} has none: use quadratic or logistic"
        )
    if config.sampling == "all" and config.batch_size != dataset.tasks:
        raise ConfigError(
            f"sampling=all takes all {dataset.tasks} tasks per iteration, not batch_size={config.batch_size}: "
            f"set batch_size={dataset.tasks}"
        )
    if optimizer.lr is None and not (dataset.knows_smoothness and optimizer.plain_gradient):
        raise ConfigError(
            "optimizer.lr=null is 1/L_F, the step of optimizer=sgd where F's smoothness is known (dataset=quadratic); "
            f"not with optimizer={optimizer.name} dataset={dataset.name}: set optimizer.lr"
        )


def _check_head_lr(config: Any) -> None:
    head_lr, a = getattr(config.optimizer, "head_lr", None), config.algorithm
    if head_lr is not None and not (a.head_start == "learned" or a.classifies):
        raise ConfigError(
            f"optimizer.head_lr={head_lr} is for a learned head start: {a.name} as configured has none; set "
            "algorithm.head_start=learned, or leave optimizer.head_lr=null"
        )


def _check_no_images(config: Any) -> None:
    name = config.dataset.name
    if config.precision == "bf16":
        raise ConfigError(f"precision=bf16 is for networks: dataset={name} takes precision=fp32 or fp64")
    if config.test_adaptation != "own":
        raise ConfigError(
            f"test_adaptation={config.test_adaptation} is for accuracy on held-out tasks, and dataset={name} has none: "
            "leave test_adaptation=own"
        )
    if config.memory.checkpoint == "block":
        raise ConfigError(f"memory.checkpoint=block is for networks: leave it none with dataset={name}")
    if config.memory.budget_mib is not None:
        raise ConfigError(f"memory.budget_mib is for networks: leave it null with dataset={name}")
    if config.training != TrainingConfig():
        raise ConfigError(
            f"training.* makes training tasks differ from those of validation and test, and dataset={name} has none of "
            "these: leave it out"
        )


def _check_regression(config: Any) -> None:
    dataset, head = config.dataset, config.head
    if not dataset.is_regression:
        if head.is_regression:
            raise ConfigError(
                f"head={head.name} is for dataset=sinusoid, and {dataset.name} has classes: set head=linear"
            )
        return
    if not head.is_regression:
        raise ConfigError(f"head={head.name} classifies, and dataset={dataset.name} is regression: set head=regression")
    if config.algorithm.head_start == "prototype":
        raise ConfigError(
            f"algorithm.head_start=prototype is the means of classes, and dataset={dataset.name} has none: set "
            "algorithm.head_start to fixed or learned"
        )
    default = next(f.default for f in fields(config) if f.name == "ways")
    for key, ways, unset in (("ways", config.ways, default), ("training.ways", config.training.ways, None)):
        if ways != unset:
            raise ConfigError(
                f"{key}={ways} is a number of classes, and dataset={dataset.name} has none: leave {key} out"
            )


def _check_training(config: Any) -> None:
    a, ways = config.algorithm, config.task("train").ways
    if ways != config.ways and (a.head_start == "learned" or not a.head_only):
        why = (
            "learns a head with one row per class"
            if a.head_start == "learned"
            else "adapts all weights, including the head"
        )
        raise ConfigError(
            f"training.ways={ways} with ways={config.ways}: {a.name} as configured {why}; leave training.ways=null"
        )


def _check_memory(config: Any) -> None:
    a, name = config.algorithm, config.algorithm.name
    if not (a.head_only or config.dataset.is_regression) and config.tasks_per_pass not in ("auto", 1):
        raise ConfigError(
            f"tasks_per_pass={config.tasks_per_pass}: {name} takes one task at a time here; leave tasks_per_pass=auto"
        )
    mode = config.memory.mode
    if not a.head_only and mode != "task":
        raise ConfigError(
            f"memory.mode={mode} is for head-only algorithms: {name} runs the backbone at every inner step; leave "
            "memory.mode=task"
        )
    default = next(f.default for f in fields(config.memory) if f.name == "images_per_pass")
    images = config.memory.images_per_pass
    if images != default and mode != "images" and config.memory.budget_mib is None:
        raise ConfigError(
            f"memory.images_per_pass={images} is for memory.mode=images, and memory.mode={mode}: set "
            f"memory.mode=images, or leave memory.images_per_pass={default}"
        )
    if mode == "images" and not config.dataset.has_images:
        raise ConfigError(
            f"memory.mode=images: dataset={config.dataset.name} has no images to take a few at a time; leave "
            "memory.mode=task"
        )
    if mode == "images" and config.workers not in ("auto", 1):
        raise ConfigError(
            f"workers={config.workers} with memory.mode=images: each worker would keep a gradient of theta for every "
            "pass; leave workers=auto"
        )
    if config.memory.checkpoint == "block" and not a.head_only:
        raise ConfigError(
            f"memory.checkpoint=block is for head-only algorithms: {name} adapts the backbone, whose weights have "
            "changed when a block is recomputed; leave memory.checkpoint=none or inner_step"
        )
    if config.memory.checkpoint == "inner_step" and (a.head_only or not a.unrolls):
        raise ConfigError(
            f"memory.checkpoint=inner_step is for algorithms that keep a backbone graph of their inner steps: {name} "
            "as configured keeps none; leave memory.checkpoint=none"
        )


def _check_attention(config: Any) -> None:
    a, fused = config.algorithm, getattr(config.backbone, "attention", "plain") == "fused"
    if fused and not (a.head_only or a.first_order or a.adapted_params == "head"):
        raise ConfigError(
            f"backbone.attention=fused with {a.name}, which takes second derivatives of the backbone: the fused kernel "
            "has none; leave backbone.attention=plain"
        )


def _check_head(config: Any) -> None:
    head, a = config.head, config.algorithm
    if a.head_start == "prototype" and not a.head_only:
        raise ConfigError(
            f"algorithm.head_start=prototype is for head-only algorithms: {a.name} as configured adapts or runs the "
            "backbone in its inner steps; set algorithm.head_start to fixed or learned"
        )
    if config.dataset.has_finite_tasks and (head.name != "linear" or a.head_start == "prototype"):
        raise ConfigError(
            f"dataset={config.dataset.name} has its own lower level: leave head=linear and algorithm.head_start fixed "
            "or learned"
        )
    if head.convex:
        return
    not_convex = "its lower level is not convex, so no solver can find phi* to a checked tolerance"
    if config.test_adaptation == "exact":
        raise ConfigError(f"head={head.name} with test_adaptation=exact: {not_convex}; set test_adaptation=own or gd")
    if config.convergence_gradient == "F":
        raise ConfigError(f"head={head.name} with convergence_gradient=F: {not_convex}; set convergence_gradient=own")


def _check_images(config: Any) -> None:
    dataset, images = config.dataset, config.images
    if not dataset.has_images:
        if images != ImagesConfig():
            raise ConfigError(f"images.* is for images, and dataset={dataset.name} has none: leave it out")
        return
    if config.backbone.normalises and images.normalise != "none":
        raise ConfigError(
            f"images.normalise={images.normalise} with backbone={config.backbone.name}, which normalises images as its "
            "model's weights expect: leave images.normalise=none"
        )
    if images.test_time_flip and not config.algorithm.head_only:
        raise ConfigError(
            f"images.test_time_flip=true is for head-only algorithms: {config.algorithm.name} as configured runs the "
            "backbone at every inner step; leave images.test_time_flip=false"
        )
    channels, size = channels_and_size(dataset)
    if channels == 1 and (images.normalise == "imagenet" or images.saturation):
        key = "saturation" if images.saturation else "normalise"
        raise ConfigError(
            f"images.{key}={getattr(images, key)} is for colour images, and {dataset.name} is grey: leave it out"
        )
    at_most("images.crop_padding", images.crop_padding, size)
