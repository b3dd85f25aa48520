"""The configuration of one run: its sections, its top-level keys, and their ranges.

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
# runs that differ in these keys only are repetitions of one configuration
IGNORED_IN_GROUPING = (
    "seed", "tracking", "progress", "verbose", "plots", "data_root", "checkpoint_every", "checkpoint_at", "device",
    "threads", "workers",
)  # fmt: skip


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

    Its checks do not read the file system; `check_tasks_fit` checks that the dataset has enough classes and images. The
    convergence measure |grad F|^2 is comparable between two algorithms if convergence_mu and head_start are the same.
    """

    algorithm: Any
    dataset: Any
    backbone: Any
    optimizer: Any
    tracking: Any
    plugins: list[str] = option(
        [], "modules of your own, imported first; the components they register are options like any other (examples/)"
    )
    ways: int = option(5, "classes of a task", at_least=2)
    shots: int = option(5, "support images per class (sinusoid: support points)", at_least=1)
    queries: int = option(5, "query images per class (sinusoid: query points)", at_least=1)
    batch_size: int = option(8, "B: tasks per outer iteration", at_least=1, at_most=MAX_COUNT)
    sampling: str = option(
        "random",
        "random: tasks drawn at random; all: every task in every iteration (quadratic and logistic only)",
        choices=("random", "all"),
    )
    iterations: int = option(100, "T: outer iterations", at_least=1)
    seed: int = option(
        0,
        "seed of initial weights, task sampling and augmentation",
        at_least=0,
        at_most=2**63 - 1,
    )
    device: str = option(
        "auto", "device of the run: auto (cuda if there is a GPU), cpu, cuda or cuda:N (the N-th GPU, from 0)"
    )
    precision: str = option(
        "fp32",
        "precision of all computation (fp32, fp64); bf16: the backbone under autocast, the head in fp32",
        choices=("fp32", "bf16", "fp64"),
        hint="fp32, bf16 or fp64; bf16 is the only half precision",
    )
    threads: int | None = option(
        None, "CPU threads; null: torch's choice, one per core (without images: 1)", at_least=1, at_most=1024
    )
    workers: Union[int, str] = option(  # noqa: UP007 - OmegaConf 2.3 reads unions in this form
        "auto",
        "tasks processed in parallel; auto: on CPU one per thread; on CUDA, and without images, 1",
        at_least=1,
        at_most=MAX_COUNT,
    )
    tasks_per_pass: Union[int, str] = option(  # noqa: UP007 - as above
        "auto",
        "tasks per backbone pass; auto: on CPU 1; on CUDA as many as have 2^20 pixels together; without images "
        "batch_size",
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
        50, "outer iterations between validations; a checkpoint is saved after each validation", at_least=1
    )
    early_stopping: int | None = option(
        None, "validations in a row without a better one after which training stops; null: never", at_least=1
    )
    checkpoint_every: int | None = option(
        None, "outer iterations between additional checkpoints; null: none", at_least=1
    )
    checkpoint_at: list[int] = option(
        [],
        "iterations whose weights are kept, in checkpoints/iteration-N.pt; memmeta evaluate iteration=N loads them",
        at_least=1,
    )
    val_tasks: int = option(100, "tasks per validation", at_least=2, at_most=MAX_COUNT)
    test_tasks: int = option(
        600,
        "tasks of the final test; 0: no test, for example in a hyperparameter search",
        at_least=0,
        at_most=MAX_COUNT,
    )
    test_adaptation: str = option(
        "own",
        "adaptation to validation and test tasks: own: the algorithm's own; gd: eval_steps gradient steps of size "
        "eval_lr on the head, as in the paper; exact: the head that minimises the support loss + eval_mu/2 |phi|^2",
        choices=("own", "gd", "exact"),
    )
    eval_steps: int = option(20, "gradient steps on the head, if test_adaptation is gd", at_least=1)
    eval_lr: float = option(0.05, "size of these steps, if test_adaptation is gd", above=0)
    eval_mu: float = option(0.1, "weight of mu/2 |phi|^2, if test_adaptation is exact", above=0)
    convergence_tasks: int = option(
        32, "tasks of the fixed batch on which |grad F|^2 is measured", at_least=1, at_most=MAX_COUNT
    )
    convergence_every: int | None = option(
        None,
        "outer iterations between measurements of |grad F|^2, besides those of validations; null: no others on images "
        "and sine waves, 1 where all tasks are at hand (quadratic, logistic)",
        at_least=1,
    )
    convergence_gradient: str = option(
        "F",
        "which gradient norm to log: F (exact head-only objective) or own (the algorithm's meta-gradient)",
        choices=("F", "own"),
    )
    convergence_mu: float | None = option(
        None,
        "weight of R in that F; null: algorithm.mu, or 0.01 if that is 0 or regularises all weights (quadratic tasks "
        "need no R: algorithm.mu as it is)",
        above=0,
    )
    progress: bool = option(True, "show a progress bar")
    verbose: bool = option(False, "list every written file at the end of a run")
    plots: bool = option(True, "draw plots/*.png at the end of a run; false makes sweeps of short runs faster")
    head: Any = field(default_factory=_linear_head)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    images: ImagesConfig = field(default_factory=ImagesConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def check(self) -> None:
        at_least("test_tasks", self.test_tasks or None, 2)
        check_numbers(flat(to_dict(self)), self.precision)
        _check_device(self.device)
        _check_iterations("checkpoint_at", self.checkpoint_at, self)
        for key in ("tasks_per_pass", "workers"):
            _check_number_or_auto(key, getattr(self, key))
        check_together(self)

    def task(self, stream: str) -> TaskShape:
        """The shape of a task of `stream`: train, val, test or reference.

        Reference tasks, on which F is measured, have the shape of training tasks. If the algorithm `classifies`, it has
        no training tasks, and they have the shape of test tasks.
        """
        t = self.training
        if stream in ("val", "test") or (self.algorithm.classifies and stream == "reference"):
            return TaskShape(self.ways, self.shots, self.queries)
        return TaskShape(t.ways or self.ways, t.shots or self.shots, t.queries or self.queries)

    @property
    def reference_mu(self) -> float:
        """Weight of R in the F whose gradient norm is logged as convergence/grad_norm_sq. F needs a strongly convex g,
        so it is above 0 unless g is strongly convex without R."""
        head_adapts = self.algorithm.adapted_params == "head"  # else mu weighs R over all weights
        least = 0.0 if self.lower_modulus else MU_WHERE_NONE
        return self.convergence_mu or (self.algorithm.mu if head_adapts else 0.0) or least

    @property
    def measures_every(self) -> int | None:
        """Iterations between measurements of |grad F|^2 besides those of validations; None: no others."""
        return self.convergence_every or (1 if self.dataset.has_finite_tasks else None)

    @property
    def lower_modulus(self) -> float:
        """The strong-convexity constant of g without R."""
        return self.dataset.modulus

    @property
    def run_name(self) -> str:
        """ALGORITHM-DATASET-BACKBONE-5w5s-sSEED."""
        return f"{self._family}-s{self.seed}"

    @property
    def run_group(self) -> str:
        """One name for all seeds of a configuration: the run name without its seed, and `group_digest`."""
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


def _check_iterations(key: str, asked: list[int], config: Config) -> None:
    for t in asked:
        if t > config.iterations:
            raise ConfigError(f"{key} holds {t}, and iterations={config.iterations}: leave it out or raise iterations")
        if config.backbone.norm == "running" and t % config.eval_every and t != config.iterations:
            raise ConfigError(
                f"{key} holds {t}, and backbone.norm=running gathers its statistics before validations: take "
                f"multiples of eval_every={config.eval_every}"
            )


def _check_number_or_auto(key: str, value: int | str) -> None:
    if isinstance(value, str) and value != "auto":
        raise ConfigError(f"{key}={value} is unknown: use auto or a number")


def to_dict(config: Config) -> dict[str, Any]:
    """`config` as a nested dictionary of plain values, the inverse of `from_dict`."""
    return dataclasses.asdict(config)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested `values` as one dictionary with dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def digest(values: Mapping[str, Any], without: tuple[str, ...] = ()) -> str:
    """Eight hexadecimal digits that identify the configuration `values` without the top-level keys in `without`."""
    kept = {key: value for key, value in values.items() if key not in without}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:8]


def group_digest(values: Mapping[str, Any]) -> str:
    """The digest of `values` without IGNORED_IN_GROUPING: equal for all repetitions (seeds) of a configuration."""
    return digest(values, without=IGNORED_IN_GROUPING)
