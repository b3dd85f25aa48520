"""What an option of each Hydra group says of itself: the base classes of its configuration.

Other rooms and the checks across sections ask these attributes and never which class an option is, so that a component
of a user's own module counts like any other. A component has to have the methods that are abstract here.
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

    head_only: no inner step runs the backbone, so the algorithm sees images through features alone. unrolls: it
    differentiates through its inner steps. adapted_params: which parameters adapt to a task, `head` or `all`.
    head_start: phi_0, `fixed`, `learned` or `prototype`. mu: weight of R on the head. classifies: training has no
    tasks; it classifies the classes of the training split. first_order: it takes no second derivative of the backbone.
    descent_step: inner step size to check against 1/L_g; None where there is nothing to check. color, marker:
    matplotlib's, of its lines in figures; empty: the next of the palette that is free.
    """

    group: ClassVar[str] = "algorithm"
    color: ClassVar[str] = ""
    marker: ClassVar[str] = ""
    # plain attributes: an option makes a key of one by declaring a field, or derives it by a property
    head_only = True
    unrolls = False
    adapted_params = "head"
    head_start = "fixed"
    mu = 0.0
    classifies = False
    first_order = True
    descent_step = None

    def check_with(self, config: Any) -> None:
        """ConfigError where the algorithm does not go together with the rest of `config`, a `Config`."""

    @abstractmethod
    def build(self, model: Any, execution: Any, memory: Any, losses: Any) -> Any:
        """The `Learner` that this section describes, on a `MetaModel`, for tasks whose f and g are `losses`."""
        raise NotImplementedError


@dataclass(frozen=True)
class DatasetConfig(Component):
    """Base of `dataset=`.

    has_images: tasks are of images. has_classes: a task is drawn from classes. is_regression: tasks have no classes,
    and the metric is the squared error. has_finite_tasks: all tasks are at hand, and F itself can be measured.
    knows_smoothness: L_F is known. modulus: the constant of strong convexity that g has without R. backbone: the one
    backbone it goes with, None: any for images. head: the one head it goes with, None: any that classifies. Choosing
    the dataset chooses both.
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
        """What is known before loading."""
        raise NotImplementedError

    @abstractmethod
    def load(self, split: str, data_root: str | None) -> Any:
        """The `ImageSet` of one split; DataError where it cannot be had."""
        raise NotImplementedError

    def require(self, data_root: str | None) -> None:
        """DataError where the files or the library that `load` needs are missing. Reads no image."""

    def store(self, data_root: str | None) -> Any:
        """The `memmeta_exp.data.store.Store` of converted images that `load` reads; None where there is none."""
        return None


@dataclass(frozen=True)
class BackboneConfig(Component):
    """Base of `backbone=`.

    norm: which statistics its batch norm uses, `none` where it has none. dataset: the one dataset it is for, None: any
    with images. normalises: it normalises images itself. title: its name in the names of runs.
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
        """The `Backbone`, initial values drawn from `generator`. Not materialised, it reads no weights."""
        raise NotImplementedError


@dataclass(frozen=True)
class HeadConfig(Component):
    """Base of `head=`. is_regression: for tasks without classes. convex: g is convex in phi, so that it can be solved
    to a tolerance. cosine: the scale of the cosines that are its outputs, None where they are W z + b."""

    group: ClassVar[str] = "head"
    is_regression: ClassVar[bool] = False
    convex: ClassVar[bool] = True

    @property
    def cosine(self) -> float | None:
        return None

    @abstractmethod
    def losses(self) -> Any:
        """The `Losses`, f and g of features, that this section describes."""
        raise NotImplementedError


@dataclass(frozen=True)
class OptimizerBase(Component):
    """Base of `optimizer=`. plain_gradient: a step is lr times the gradient, so that 1/L_F is a step size."""

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
