"""The base class of the options of each Hydra group: capability attributes, and the methods an option must define.

Other packages and the checks across sections read these attributes and never test the class of an option, so a
component from a user's own module works like a built-in one. A component must define the methods that are abstract
here.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from memmeta_exp.config.facts import DatasetFacts
from memmeta_exp.config.section import Component


@dataclass(frozen=True)
class AlgorithmConfig(Component):
    """Base of `algorithm=`.

    head_only: no inner step runs the backbone, so the inner loop needs features alone.
    unrolls: it differentiates through its inner steps.
    adapted_params: which parameters adapt to a task, `head` or `all`.
    head_start: phi_0, `fixed`, `learned` or `prototype`.
    mu: weight of the regulariser R on the head.
    classifies: training has no tasks; it classifies the classes of the training split.
    first_order: it takes no second derivative of the backbone.
    descent_step: inner step size to check against 1/L_g; None if there is nothing to check.
    color, marker: of its lines in figures, as matplotlib names them; empty: the next unused ones of the palette.
    """

    group: ClassVar[str] = "algorithm"
    color: ClassVar[str] = ""
    marker: ClassVar[str] = ""
    # plain attributes: an option overrides one with a dataclass field (a configuration key) or a property
    head_only = True
    unrolls = False
    adapted_params = "head"
    head_start = "fixed"
    mu = 0.0
    classifies = False
    first_order = True
    descent_step = None

    def check_with(self, config: Any) -> None:
        """Raises ConfigError if the rest of `config`, a `Config`, does not suit the algorithm."""

    @abstractmethod
    def build(self, model: Any, execution: Any, memory: Any, losses: Any) -> Any:
        """Returns the `Learner` of this section. model: a `MetaModel`. losses: the `Losses` f and g of its tasks."""
        raise NotImplementedError


@dataclass(frozen=True)
class DatasetConfig(Component):
    """Base of `dataset=`.

    has_images: tasks consist of images.
    has_classes: a task is drawn from classes.
    is_regression: tasks have no classes, and the metric is the squared error.
    has_finite_tasks: the set of tasks is finite, so F itself can be computed.
    knows_smoothness: L_F is known.
    modulus: the strong-convexity constant of g without R.
    backbone: the only backbone it works with; None: any backbone for images. Choosing the dataset chooses it.
    head: the only head it works with; None: any head for classes. Choosing the dataset chooses it.
    """

    group: ClassVar[str] = "dataset"
    has_images: ClassVar[bool] = True
    has_classes: ClassVar[bool] = True
    is_regression: ClassVar[bool] = False
    has_finite_tasks: ClassVar[bool] = False
    knows_smoothness: ClassVar[bool] = False
    modulus: ClassVar[float] = 0.0
    backbone: ClassVar[str | None] = None
    head: ClassVar[str | None] = None

    @abstractmethod
    def facts(self) -> DatasetFacts:
        """Class counts, image counts and image shape, known before loading."""
        raise NotImplementedError

    @abstractmethod
    def load(self, split: str, data_root: str | None) -> Any:
        """Returns the `ImageSet` of `split`. Raises DataError if its files are missing or damaged."""
        raise NotImplementedError

    def require(self, data_root: str | None) -> None:
        """Raises DataError if the files or the library that `load` needs are missing. Reads no image."""

    def store(self, data_root: str | None) -> Any:
        """The `memmeta_exp.data.store.Store` of converted images that `load` reads; None if there is none."""
        return None


@dataclass(frozen=True)
class BackboneConfig(Component):
    """Base of `backbone=`.

    norm: which statistics its batch norm uses; `none` if it has no batch norm.
    dataset: the only dataset it works with; None: any dataset with images.
    normalises: it normalises images itself.
    title: its name in run names.
    """

    group: ClassVar[str] = "backbone"
    dataset: ClassVar[str | None] = None
    normalises: ClassVar[bool] = False
    norm = "none"

    @property
    def title(self) -> str:
        return self.name

    @abstractmethod
    def build(self, channels: int, image_size: int, generator: Any, materialise: bool = True) -> Any:
        """Returns the `Backbone`, initialised from `generator`. materialise=False: reads no weight file."""
        raise NotImplementedError


@dataclass(frozen=True)
class HeadConfig(Component):
    """Base of `head=`.

    is_regression: for tasks without classes.
    convex: g is convex in phi, so it can be solved to a tolerance.
    cosine: the scale s of outputs s cos(w_c, z); None if the outputs are W z + b.
    """

    group: ClassVar[str] = "head"
    is_regression: ClassVar[bool] = False
    convex: ClassVar[bool] = True

    @property
    def cosine(self) -> float | None:
        return None

    @abstractmethod
    def losses(self) -> Any:
        """Returns the `Losses` of this section: f and g as functions of features."""
        raise NotImplementedError


@dataclass(frozen=True)
class OptimizerBase(Component):
    """Base of `optimizer=`. plain_gradient: a step is lr times the gradient, so lr = 1/L_F is a valid choice."""

    group: ClassVar[str] = "optimizer"
    plain_gradient: ClassVar[bool] = False

    @abstractmethod
    def build(self, parameters: Any, lr: float) -> Any:
        """The torch.optim.Optimizer over `parameters`."""
        raise NotImplementedError


@dataclass(frozen=True)
class TrackingBase(Component):
    """Base of `tracking=`."""

    group: ClassVar[str] = "tracking"
