"""The configuration of one run: its sections, its scalars, and their ranges.

Letters follow the paper: B = batch_size, T = iterations.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Union

from memmeta_exp.config.compatibility import check_together
from memmeta_exp.config.numbers import check_numbers
from memmeta_exp.config.registry import option_class
from memmeta_exp.config.section import Section, option
from memmeta_exp.config.sections import ImagesConfig, MemoryConfig, TrainingConfig
from memmeta_exp.config.validation import at_least, one_of
from memmeta_exp.utils.errors import ConfigError

MU_WHERE_NONE = 0.01
MAX_COUNT = 2**20
# runs that differ in these alone are repetitions
IGNORED_IN_GROUPING = ("seed", "tracking", "progress", "plots", "data_root", "checkpoint_every")


class TaskShape(NamedTuple):
    """Classes of a task, and support and query images of each."""

    ways: int
    shots: int
    queries: int


def _linear_head() -> Any:
    return option_class("head", "linear")()


@dataclass(frozen=True)
class Config(Section):
    """One run.

    Whether it is valid does not depend on the file system: `check_tasks_fit` says whether the dataset is there and has
    enough classes and images, where they are needed. F, whose gradient norm is the convergence measure, is one function
    for two algorithms where convergence_mu and head_start are the same.
    """

    algorithm: Any
    dataset: Any
    backbone: Any
    optimizer: Any
    tracking: Any
    plugins: list[str] = option(
        [], "modules of your own, imported first; what they enter is an option like any other (examples/)"
    )
    ways: int = option(5, "classes of a task", at_least=2)
    shots: int = option(5, "support images of a class; of a sine wave, points", at_least=1)
    queries: int = option(5, "query images of a class; of a sine wave, points", at_least=1)
    batch_size: int = option(8, "B: tasks of an outer iteration", at_least=1, at_most=MAX_COUNT)
    sampling: str = option(
        "random",
        "random: tasks drawn at random; all: every task in every iteration, of finitely many (quadratic, logistic)",
        choices=("random", "all"),
    )
    iterations: int = option(100, "T: outer iterations", at_least=1)
    seed: int = option(
        0,
        "of what is random in a run: initial values, which tasks come, augmentation",
        at_least=0,
        at_most=2**63 - 1,
    )
    device: str = option(
        "auto", "what it runs on: auto (cuda where there is one), cpu, cuda or cuda:N (the N-th GPU, from 0)"
    )
    precision: str = option(
        "fp32",
        "precision of all that is computed (fp32, fp64); bf16: the backbone under autocast, the head in fp32",
        choices=("fp32", "bf16", "fp64"),
        hint="fp32, bf16 or fp64; bf16 is the half precision there is",
    )
    threads: int | None = option(
        None, "CPU threads; null: torch's choice, one a core (without images: 1)", at_least=1, at_most=1024
    )
    workers: Union[int, str] = option(  # noqa: UP007 - OmegaConf 2.3 reads unions in this form
        "auto",
        "tasks that the threads take side by side; auto: as many on CPU, of one thread each; 1 on CUDA and without "
        "images",
        at_least=1,
        at_most=MAX_COUNT,
    )
    tasks_per_pass: Union[int, str] = option(  # noqa: UP007 - as above
        "auto",
        "tasks of a backbone pass; auto: 1 on CPU, batch_size on CUDA and without images",
        at_least=1,
        at_most=MAX_COUNT,
    )
    data_root: str | None = option(None, "folder of datasets on disk; null: $MEMMETA_DATA", path=True)
    weights: str | None = option(
        None,
        "trained weights that theta starts from: a run folder, or a file (safetensors, or a state dict that torch.load "
        "takes with weights_only=True); null: initial values from `seed`",
        path=True,
    )
    eval_every: int = option(
        50, "outer iterations between validations, each of which ends with a checkpoint", at_least=1
    )
    early_stopping: int | None = option(
        None, "training stops after so many validations in a row without a better one; null: never", at_least=1
    )
    checkpoint_every: int | None = option(None, "outer iterations between further checkpoints; null: none", at_least=1)
    val_tasks: int = option(100, "tasks of a validation", at_least=2, at_most=MAX_COUNT)
    test_tasks: int = option(
        600, "tasks of the test; 0: none, for runs among which validation is to choose", at_least=0, at_most=MAX_COUNT
    )
    test_adaptation: str = option(
        "own",
        "how validation and test tasks adapt: own: as the algorithm's do; gd: by eval_steps steps of eval_lr on the "
        "head alone, as in the paper; exact: the head alone, its support loss + eval_mu/2 |phi|^2 minimised, whatever "
        "the algorithm does",
        choices=("own", "gd", "exact"),
    )
    eval_steps: int = option(20, "gradient steps on the head, where test_adaptation is gd", at_least=1)
    eval_lr: float = option(0.05, "the size of these steps, where test_adaptation is gd", above=0)
    eval_mu: float = option(0.1, "weight of mu/2 |phi|^2, where test_adaptation is exact", above=0)
    convergence_tasks: int = option(
        32, "tasks of the fixed batch on which |grad F|^2 is measured", at_least=1, at_most=MAX_COUNT
    )
    convergence_gradient: str = option(
        "F",
        "which gradient norm to log: F (exact head-only objective) or own (the algorithm's meta-gradient)",
        choices=("F", "own"),
    )
    convergence_mu: float | None = option(
        None,
        "R's weight in that F; null: algorithm.mu, or 0.01 where that is 0 or over all weights (on quadratic tasks, "
        "whose g needs no R: algorithm.mu as it is)",
        above=0,
    )
    progress: bool = option(True, "the progress bar")
    plots: bool = option(True, "plots/*.png at the end of a run; a sweep of many short runs goes faster without")
    head: Any = field(default_factory=_linear_head)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    images: ImagesConfig = field(default_factory=ImagesConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def check(self) -> None:
        at_least("test_tasks", self.test_tasks or None, 2)
        check_numbers(flat(to_dict(self)), self.precision)
        _check_device(self.device)
        for key in ("tasks_per_pass", "workers"):
            _check_number_or_auto(key, getattr(self, key))
        check_together(self)

    def task(self, stream: str) -> TaskShape:
        """What a task of `stream` (train, val, test, reference) consists of. F is that of training tasks, but where
        these are no tasks to their algorithm, which only `classifies`, that of tasks as they are tested."""
        t = self.training
        if stream in ("val", "test") or (self.algorithm.classifies and stream == "reference"):
            return TaskShape(self.ways, self.shots, self.queries)
        return TaskShape(t.ways or self.ways, t.shots or self.shots, t.queries or self.queries)

    @property
    def reference_mu(self) -> float:
        """R's weight in the F whose gradient norm is logged as convergence/grad_norm_sq: without R there is no F."""
        head_adapts = self.algorithm.adapted_params == "head"  # else mu is R's weight over all weights
        least = 0.0 if self.lower_modulus else MU_WHERE_NONE
        return self.convergence_mu or (self.algorithm.mu if head_adapts else 0.0) or least

    @property
    def lower_modulus(self) -> float:
        """The constant of strong convexity that g has without R."""
        return self.dataset.modulus

    @property
    def run_name(self) -> str:
        """ALGORITHM-DATASET-BACKBONE-5w5s-sSEED."""
        return f"{self._family}-s{self.seed}"

    @property
    def run_group(self) -> str:
        """The same for every seed of one configuration: the run name without its seed and a digest of the rest."""
        return f"{self._family}-{group_digest(to_dict(self))}"

    @property
    def _family(self) -> str:
        names = [self.algorithm.name, self.dataset.name]
        if self.dataset.has_classes:
            return "-".join([*names, self.backbone.title, f"{self.ways}w{self.shots}s"])
        return "-".join([*names, self.backbone.title, f"{self.shots}s"] if self.dataset.is_regression else names)


def _check_device(device: str) -> None:
    head, _, index = device.partition(":")
    numbered = head == "cuda" and index.isascii() and index.isdigit()
    if not numbered:
        one_of("device", device, ("auto", "cpu", "cuda"), use="auto, cpu, cuda or cuda:N")


def _check_number_or_auto(key: str, value: int | str) -> None:
    if isinstance(value, str) and value != "auto":
        raise ConfigError(f"{key}={value} is unknown: use auto or a number")


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
