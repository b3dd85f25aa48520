"""The configuration of one run: its sections, its scalars, and the checks that tie them together.

Letters follow the paper: B = batch_size, T = iterations.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Union

from memmeta_exp.config.algorithms import BaselineConfig, ProposedConfig, check_baseline
from memmeta_exp.config.facts import channels_and_size
from memmeta_exp.config.heads import LinearHeadConfig, check_head
from memmeta_exp.config.problems import ANALYTIC, check_problem
from memmeta_exp.config.regression import REGRESSION, check_regression
from memmeta_exp.config.sections import SECTIONS as IMAGE_SECTIONS
from memmeta_exp.config.sections import ImagesConfig, MemoryConfig, TrainingConfig
from memmeta_exp.config.validation import PATH, at_least, at_most, one_of
from memmeta_exp.utils.errors import ConfigError

MU_WHERE_NONE = 0.01
# runs that differ in these alone are repetitions
IGNORED_IN_GROUPING = ("seed", "tracking", "progress", "plots", "data_root", "checkpoint_every")
SECTIONS = {group: {**options, **ANALYTIC.get(group, {})} for group, options in IMAGE_SECTIONS.items()}


class TaskShape(NamedTuple):
    """Classes of a task, and support and query images of each."""

    ways: int
    shots: int
    queries: int


@dataclass(frozen=True)
class Config:
    """One run. What its keys mean is said once, beside their values in conf/config.yaml, and listed in docs/keys.md.

    Whether it is valid does not depend on the file system: `check_tasks_fit` says whether the dataset is there and has
    enough classes and images, where they are needed. F, whose gradient norm is the convergence measure, is one function
    for two algorithms where convergence_mu and head_start are the same.
    """

    algorithm: Any
    dataset: Any
    backbone: Any
    optimizer: Any
    tracking: Any
    ways: int = 5
    shots: int = 5
    queries: int = 5
    batch_size: int = 8
    sampling: str = "random"
    iterations: int = 100
    seed: int = 0
    device: str = "auto"
    precision: str = "fp32"
    threads: int | None = None
    workers: Union[int, str] = "auto"  # noqa: UP007 - as below
    tasks_per_pass: Union[int, str] = "auto"  # noqa: UP007 - OmegaConf 2.3 reads unions in this form
    data_root: str | None = field(default=None, metadata=PATH)
    eval_every: int = 50
    checkpoint_every: int | None = None
    val_tasks: int = 100
    test_tasks: int = 600
    test_adaptation: str = "own"
    eval_steps: int = 20
    eval_lr: float = 0.05
    eval_mu: float = 0.1
    convergence_tasks: int = 32
    convergence_gradient: str = "F"
    convergence_mu: float | None = None
    progress: bool = True
    plots: bool = True
    head: Any = field(default_factory=LinearHeadConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    images: ImagesConfig = field(default_factory=ImagesConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        for key in ("shots", "queries", "batch_size", "iterations", "eval_every", "eval_steps", "convergence_tasks"):
            at_least(key, getattr(self, key), 1)
        at_least("ways", self.ways, 2)
        at_least("val_tasks", self.val_tasks, 2)
        at_least("test_tasks", self.test_tasks or None, 2)
        at_least("seed", self.seed, 0)
        at_most("seed", self.seed, 2**63 - 1)
        for key in ("batch_size", "val_tasks", "test_tasks", "convergence_tasks"):
            at_most(key, getattr(self, key), 2**20)
        at_most("threads", self.threads, 1024)
        at_least("threads", self.threads, 1)
        at_least("checkpoint_every", self.checkpoint_every, 1)
        for key in ("eval_lr", "eval_mu", "convergence_mu"):
            at_least(key, getattr(self, key), 0, strict=True)
        precisions = ("fp32", "bf16", "fp64")
        one_of("precision", self.precision, precisions, "fp32, bf16 or fp64; bf16 is the half precision there is")
        one_of("test_adaptation", self.test_adaptation, ("own", "gd", "exact"))
        one_of("convergence_gradient", self.convergence_gradient, ("F", "own"))
        _check_device(self.device)
        for key in ("tasks_per_pass", "workers"):
            _check_number_or_auto(key, getattr(self, key))
        check_baseline(self)
        check_problem(self)
        check_regression(self)
        self._check_strong_convexity()
        self._check_training()
        self._check_memory()
        self._check_attention()
        check_head(self)
        self._check_images()

    def _check_strong_convexity(self) -> None:
        if isinstance(self.algorithm, ProposedConfig) and not self.lower_modulus:
            self.algorithm.check_strong_convexity()

    def _check_memory(self) -> None:
        a, name = self.algorithm, self.algorithm.name
        if not (a.in_feature_space or self.regression) and self.tasks_per_pass not in ("auto", 1):
            raise ConfigError(
                f"tasks_per_pass={self.tasks_per_pass}: {name} takes one task at a time here; leave tasks_per_pass=auto"
            )
        if not a.in_feature_space and self.memory.mode == "half_task":
            raise ConfigError(
                f"memory.mode=half_task is for algorithms in feature space: {name} runs the backbone at every inner "
                "step; leave memory.mode=task"
            )
        if self.memory.checkpoint == "block" and not a.in_feature_space:
            raise ConfigError(
                f"memory.checkpoint=block is for algorithms in feature space: {name} differentiates through weights "
                "that are gone when a block would be run again; leave memory.checkpoint=none or inner_step"
            )
        if self.memory.checkpoint == "inner_step" and (a.in_feature_space or not a.unrolls):
            raise ConfigError(
                f"memory.checkpoint=inner_step is for algorithms that keep a backbone graph of their inner steps: "
                f"{name} as configured keeps none; leave memory.checkpoint=none"
            )

    def _check_attention(self) -> None:
        a, fused = self.algorithm, getattr(self.backbone, "attention", "plain") == "fused"
        first_order = (
            a.in_feature_space or getattr(a, "first_order", False) or getattr(a, "adapted_params", "all") == "head"
        )
        if fused and not first_order:
            raise ConfigError(
                f"backbone.attention=fused with {a.name}, which takes second derivatives of the backbone: the fused "
                "kernel has none; leave backbone.attention=plain"
            )

    def _check_images(self) -> None:
        name = self.dataset.name
        if self.known or self.regression:
            if self.images != ImagesConfig():
                raise ConfigError(f"images.* is for images, and dataset={name} has none: leave it out")
            return
        if self.backbone.name == "timm" and self.images.normalise != "none":
            raise ConfigError(
                f"images.normalise={self.images.normalise} with backbone=timm, which normalises images as its model's "
                "weights expect: leave images.normalise=none"
            )
        if self.images.test_time_flip and not self.algorithm.in_feature_space:
            raise ConfigError(
                f"images.test_time_flip=true is for algorithms in feature space: {self.algorithm.name} as configured runs "
                "the backbone at every inner step; leave images.test_time_flip=false"
            )
        channels, size = channels_and_size(self.dataset)
        if channels == 1 and (self.images.normalise == "imagenet" or self.images.saturation):
            key = "saturation" if self.images.saturation else "normalise"
            value = getattr(self.images, key)
            raise ConfigError(f"images.{key}={value} is for colour images, and {name} is grey: leave it out")
        at_most("images.crop_padding", self.images.crop_padding, size)

    def _check_training(self) -> None:
        if self.known and self.training != TrainingConfig():
            raise ConfigError(
                f"training.* is for tasks of validation and test that differ, and dataset={self.dataset.name} has "
                "none: leave it out"
            )
        a, ways = self.algorithm, self.task("train").ways
        if ways != self.ways and (a.head_start == "learned" or not a.in_feature_space):
            why = (
                "learns a head of as many rows as there are classes"
                if a.head_start == "learned"
                else ("adapts weights that the head is one of")
            )
            raise ConfigError(
                f"training.ways={ways} with ways={self.ways}: {a.name} as configured {why}; leave training.ways=null"
            )

    def task(self, stream: str) -> TaskShape:
        """What a task of `stream` (train, val, test, reference) consists of. F is that of training tasks, but where
        these are no tasks to their algorithm, which only `classifies`, that of tasks as they are tested."""
        t = self.training
        if stream in ("val", "test") or (self.classifies and stream == "reference"):
            return TaskShape(self.ways, self.shots, self.queries)
        return TaskShape(t.ways or self.ways, t.shots or self.shots, t.queries or self.queries)

    @property
    def reference_mu(self) -> float:
        """R's weight in the F whose gradient norm is logged as convergence/grad_norm_sq: without R there is no F."""
        head_only = (
            getattr(self.algorithm, "adapted_params", "head") == "head"
        )  # else mu is R's weight over all weights
        least = 0.0 if self.lower_modulus else MU_WHERE_NONE
        return self.convergence_mu or (self.algorithm.mu if head_only else 0.0) or least

    @property
    def known(self) -> bool:
        """Whether this is a problem on which the truth is known: a finite set of tasks and no images."""
        return self.dataset.name in ANALYTIC["dataset"]

    @property
    def classifies(self) -> bool:
        """Whether training classifies the classes of its split, without tasks."""
        return isinstance(self.algorithm, BaselineConfig)

    @property
    def regression(self) -> bool:
        """Whether tasks are functions to be fitted: no classes, and mean squared error where others have accuracy."""
        return self.dataset.name in REGRESSION

    @property
    def lower_modulus(self) -> float:
        """The constant of strong convexity that g has without R."""
        return getattr(self.dataset, "modulus", 0.0)

    @property
    def run_name(self) -> str:
        """ALGORITHM-DATASET-BACKBONE-5w5s-sSEED."""
        return f"{self._family}-s{self.seed}"

    @property
    def group(self) -> str:
        """The same for every seed of one configuration: the run name without its seed and a digest of the rest."""
        return f"{self._family}-{group_digest(to_dict(self))}"

    @property
    def _family(self) -> str:
        names = (self.algorithm.name, self.dataset.name, getattr(self.backbone, "title", self.backbone.name))
        if self.dataset.name == "quadratic":
            return "-".join(names[:2])
        return "-".join([*names, f"{self.shots}s" if self.regression else f"{self.ways}w{self.shots}s"])


def _check_device(device: str) -> None:
    head, _, index = device.partition(":")
    numbered = head == "cuda" and index.isascii() and index.isdigit()
    if not numbered:
        one_of("device", device, ("auto", "cpu", "cuda"), use="auto, cpu, cuda or cuda:N")


def _check_number_or_auto(key: str, value: int | str) -> None:
    if isinstance(value, str) and value != "auto":
        raise ConfigError(f"{key}={value} is unknown: use auto or a number")
    number = None if isinstance(value, str) else value
    at_least(key, number, 1)
    at_most(key, number, 2**20)


def to_dict(config: Config) -> dict[str, Any]:
    """Plain values, the inverse of `from_dict`."""
    return dataclasses.asdict(config)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections under dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def digest(values: Mapping[str, Any], without: tuple[str, ...] = ()) -> str:
    """Eight hexadecimal digits that name the configuration `values` less the top-level keys in `without`."""
    kept = {key: value for key, value in values.items() if key not in without}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:8]


def group_digest(values: Mapping[str, Any]) -> str:
    """The digest that all repetitions (seeds) of the configuration `values` share."""
    return digest(values, without=IGNORED_IN_GROUPING)
