"""The schema of a run: frozen dataclasses that hold types and checks. YAML under conf/ holds the values.

`from_omegaconf` turns what Hydra composed into a `Config`; everything a user can get wrong in a configuration is a
`ConfigError` from here, in one line that says the key, the rule and the fix, before anything has been created.
Letters follow the paper: mu, K = inner_steps, N = linear_steps, B = batch_size, T = iterations.
"""

import dataclasses
import difflib
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Union

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

SPLITS = ("train", "val", "test")


class ConfigError(ValueError):
    """A configuration that cannot be run; its text is one line for the user."""


def closest(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the known word nearest to `word`, or the choices where none is near."""
    known = sorted(known)
    match = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if match:
        return f"; did you mean '{match[0]}'?"
    return f"; choose from {', '.join(known)}" if len(known) <= 20 else ""


def _one_of(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{key}={value} is unknown{closest(str(value), choices)}")


def _at_least(key: str, value: int | float | None, low: int | float, strict: bool = False) -> None:
    if value is None:
        return
    if not math.isfinite(value) or value < low or (strict and value == low):
        raise ConfigError(f"{key}={value} is out of range: it must be {'above' if strict else 'at least'} {low}")


@dataclass(frozen=True)
class ProposedConfig:
    """The memory-reduced method: phi_i* by `inner_solver`, v_i by `linear_solver`, no inner history kept.

    mu: weight of R(phi) = mu/2 |phi|^2 (of mu/2 |phi - phi_0|^2 where the head's start is learned), 0 only for the
    released settings. inner_lr: step of gd, null for 1/L_g measured from the features. inner_tolerance: bound on
    |d_phi g| that counts as solved; linear_tolerance: the same for |H v - d_phi f| / |d_phi f|; null asks for none.
    """

    name: str = "proposed"
    mu: float = 0.1
    inner_solver: str = "newton"
    inner_steps: int = 20
    inner_lr: float | None = None
    inner_tolerance: float | None = 1e-4
    inner_warm_start: bool = False
    linear_solver: str = "direct"
    linear_steps: int = 20
    linear_tolerance: float | None = 1e-3
    linear_warm_start: bool = False
    head_start: str = "fixed"

    def __post_init__(self) -> None:
        _one_of("algorithm.inner_solver", self.inner_solver, ("gd", "newton"))
        _one_of("algorithm.linear_solver", self.linear_solver, ("cg", "direct"))
        _one_of("algorithm.head_start", self.head_start, ("fixed", "learned"))
        _at_least("algorithm.mu", self.mu, 0)
        _at_least("algorithm.inner_steps", self.inner_steps, 1)
        _at_least("algorithm.linear_steps", self.linear_steps, 1)
        _at_least("algorithm.inner_lr", self.inner_lr, 0, strict=True)
        _at_least("algorithm.inner_tolerance", self.inner_tolerance, 0, strict=True)
        _at_least("algorithm.linear_tolerance", self.linear_tolerance, 0, strict=True)
        if self.inner_solver == "newton" and self.inner_tolerance is None:
            raise ConfigError(
                "algorithm.inner_tolerance=null with algorithm.inner_solver=newton: newton stops by its tolerance; "
                "set it (1e-4 is the default) or use algorithm.inner_solver=gd"
            )
        self._check_strong_convexity()

    def _check_strong_convexity(self) -> None:
        if self.mu > 0:
            return
        for key, solver in (("inner_solver", "newton"), ("linear_solver", "direct")):
            if getattr(self, key) == solver:
                other = "gd" if key == "inner_solver" else "cg"
                raise ConfigError(
                    f"algorithm.mu=0 with algorithm.{key}={solver}: without R the lower level has no unique solution; "
                    f"set algorithm.mu above 0 (0.1 is the default) or algorithm.{key}={other}"
                )
        if self.head_start == "learned":
            raise ConfigError(
                "algorithm.mu=0 with algorithm.head_start=learned: the start is learned through R, which is centred "
                "on it; set algorithm.mu above 0 or algorithm.head_start=fixed"
            )


@dataclass(frozen=True)
class DatasetFacts:
    """What is known of a dataset before it is loaded: classes per split, images per class, image shape."""

    classes: dict[str, int]
    images_per_class: int
    channels: int
    image_size: int


@dataclass(frozen=True)
class GlyphsConfig:
    """Characters of many scripts drawn from the fonts that matplotlib ships; val and test are new scripts."""

    name: str = "glyphs"

    def facts(self) -> DatasetFacts:
        return DatasetFacts({"train": 324, "val": 67, "test": 136}, 40, 1, 28)


@dataclass(frozen=True)
class CifarFsConfig:
    """CIFAR-FS (Bertinetto et al. 2019): CIFAR-100 classes split 64/16/20 at random."""

    name: str = "cifar_fs"

    def facts(self) -> DatasetFacts:
        return DatasetFacts({"train": 64, "val": 16, "test": 20}, 600, 3, 32)


@dataclass(frozen=True)
class Fc100Config:
    """FC100 (Oreshkin et al. 2018): CIFAR-100 classes split 60/20/20 by superclass."""

    name: str = "fc100"

    def facts(self) -> DatasetFacts:
        return DatasetFacts({"train": 60, "val": 20, "test": 20}, 600, 3, 32)


@dataclass(frozen=True)
class SyntheticConfig:
    """Random images with a class-dependent mean: nothing to read from disk, for speed and memory at any size."""

    name: str = "synthetic"
    classes: int = 20
    images_per_class: int = 40
    channels: int = 3
    image_size: int = 32

    def __post_init__(self) -> None:
        for key in ("classes", "images_per_class", "channels"):
            _at_least(f"dataset.{key}", getattr(self, key), 1)
        _at_least("dataset.image_size", self.image_size, 16)

    def facts(self) -> DatasetFacts:
        return DatasetFacts(dict.fromkeys(SPLITS, self.classes), self.images_per_class, self.channels, self.image_size)


@dataclass(frozen=True)
class Conv4Config:
    """Conv4 (Vinyals et al. 2016): 4 x [conv3x3, batch norm, ReLU, max-pool 2], `filters` channels each."""

    name: str = "conv4"
    filters: int = 64

    def __post_init__(self) -> None:
        _at_least("backbone.filters", self.filters, 1)


@dataclass(frozen=True)
class OptimizerConfig:
    """The upper optimiser on theta: torch.optim's adam, adamw or sgd, its rate constant or cosine to 0 over T."""

    name: str = "adam"
    lr: float = 1e-3
    weight_decay: float = 0.0
    momentum: float = 0.0
    schedule: str = "constant"

    def __post_init__(self) -> None:
        _one_of("optimizer.schedule", self.schedule, ("constant", "cosine"))
        _at_least("optimizer.lr", self.lr, 0, strict=True)
        _at_least("optimizer.weight_decay", self.weight_decay, 0)
        _at_least("optimizer.momentum", self.momentum, 0)
        if self.momentum >= 1:
            raise ConfigError(f"optimizer.momentum={self.momentum} is out of range: it must be below 1")
        if self.momentum and self.name != "sgd":
            raise ConfigError(f"optimizer.momentum={self.momentum} is for sgd; with {self.name} leave it 0")


@dataclass(frozen=True)
class TrackingConfig:
    """W&B: online, offline (no account needed) or disabled. The local files are written in every mode."""

    name: str = "wandb"
    mode: str = "offline"
    project: str = "memmeta"
    entity: str | None = None
    tags: list[str] = field(default_factory=list)
    init_timeout_s: float = 6.0

    def __post_init__(self) -> None:
        _one_of("tracking.mode", self.mode, ("online", "offline", "disabled"))
        _at_least("tracking.init_timeout_s", self.init_timeout_s, 0, strict=True)


SECTIONS: dict[str, dict[str, type]] = {
    "algorithm": {"proposed": ProposedConfig},
    "dataset": {"glyphs": GlyphsConfig, "cifar_fs": CifarFsConfig, "fc100": Fc100Config, "synthetic": SyntheticConfig},
    "backbone": {"conv4": Conv4Config},
    "optimizer": dict.fromkeys(("adam", "adamw", "sgd"), OptimizerConfig),
    "tracking": {"wandb": TrackingConfig},
}


@dataclass(frozen=True)
class Config:
    """One run. chunk: tasks per backbone pass ('auto': 1 on CPU, the batch on CUDA); eval_rule: how the head adapts
    to validation and test tasks: `own` (the algorithm's lower level) or `gd` (eval_steps steps of eval_lr, the
    paper's rule); convergence_mu: R's weight in the reference F whose gradient norm is the convergence measure
    (null: the algorithm's mu)."""

    algorithm: Any
    dataset: Any
    backbone: Any
    optimizer: Any
    tracking: Any
    ways: int = 5
    shots: int = 5
    queries: int = 5
    batch_size: int = 8
    iterations: int = 600
    seed: int = 0
    device: str = "auto"
    precision: str = "fp32"
    threads: int | None = None
    chunk: Union[int, str] = "auto"  # noqa: UP007 - OmegaConf 2.3 reads unions in this form
    data_root: str | None = None
    eval_every: int = 100
    val_tasks: int = 100
    test_tasks: int = 600
    eval_rule: str = "own"
    eval_steps: int = 20
    eval_lr: float = 0.05
    convergence_tasks: int = 32
    convergence_mu: float | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        for key in ("shots", "queries", "batch_size", "iterations", "eval_every", "eval_steps", "convergence_tasks"):
            _at_least(key, getattr(self, key), 1)
        _at_least("ways", self.ways, 2)
        _at_least("val_tasks", self.val_tasks, 2)
        _at_least("test_tasks", self.test_tasks, 2)
        _at_least("seed", self.seed, 0)
        _at_least("threads", self.threads, 1)
        _at_least("eval_lr", self.eval_lr, 0, strict=True)
        _at_least("convergence_mu", self.convergence_mu, 0, strict=True)
        _one_of("precision", self.precision, ("fp32", "bf16"))
        _one_of("eval_rule", self.eval_rule, ("own", "gd"))
        _check_device(self.device)
        _check_chunk(self.chunk)
        self._check_episode_fits()
        self._check_reference_exists()

    def _check_episode_fits(self) -> None:
        facts = self.dataset.facts()
        split, classes = min(facts.classes.items(), key=lambda item: item[1])
        if self.ways > classes:
            raise ConfigError(
                f"ways={self.ways} is more than the {classes} classes of {self.dataset.name}'s {split} split; "
                f"set ways to {classes} or fewer"
            )
        if self.shots + self.queries > facts.images_per_class:
            raise ConfigError(
                f"shots={self.shots} + queries={self.queries} is more than the {facts.images_per_class} images of a "
                f"class of {self.dataset.name}; lower one until their sum fits"
            )

    def _check_reference_exists(self) -> None:
        if self.convergence_mu is None and not self.algorithm.mu > 0:
            raise ConfigError(
                "algorithm.mu=0 leaves F without a lower-level solution to measure convergence by; "
                "set convergence_mu above 0 (the paper presets use 0.01)"
            )

    @property
    def reference_mu(self) -> float:
        """R's weight in the F whose gradient norm is logged as convergence/grad_norm_sq."""
        return self.algorithm.mu if self.convergence_mu is None else self.convergence_mu

    @property
    def run_name(self) -> str:
        """ALGORITHM-DATASET-BACKBONE-5w5s-sSEED."""
        return f"{self._family}-s{self.seed}"

    @property
    def group(self) -> str:
        """The same for every seed of one configuration: the run name without its seed and a digest of the rest."""
        return f"{self._family}-{digest(to_dict(self), without=('seed', 'tracking', 'progress', 'data_root'))}"

    @property
    def _family(self) -> str:
        names = (self.algorithm.name, self.dataset.name, self.backbone.name)
        return "-".join([*names, f"{self.ways}w{self.shots}s"])


def _check_device(device: str) -> None:
    head, _, index = device.partition(":")
    if device not in ("auto", "cpu", "cuda") and not (head == "cuda" and index.isdigit()):
        raise ConfigError(f"device={device} is unknown: use auto, cpu, cuda or cuda:N")


def _check_chunk(chunk: int | str) -> None:
    if isinstance(chunk, str) and chunk != "auto":
        raise ConfigError(f"chunk={chunk} is unknown: use auto or a number of tasks")
    if not isinstance(chunk, str):
        _at_least("chunk", chunk, 1)


def _structured(key: str, schema: type, values: Mapping[str, Any]) -> Any:
    """`values` checked against `schema` by OmegaConf: unknown keys and wrong types are one-line errors."""
    known = {f.name for f in dataclasses.fields(schema)}
    for name in values:
        if name not in known:
            path = f"{key}.{name}" if key else str(name)
            raise ConfigError(f"unknown key '{path}'{closest(str(name), known)}")
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), dict(values)))
    except OmegaConfBaseException as error:
        path = ".".join(part for part in (key, error.full_key) if part)
        raise ConfigError(f"{path}: {str(error.msg or error).splitlines()[0]}") from None


def from_dict(values: Mapping[str, Any]) -> Config:
    """The `Config` that a plain dictionary (a resolved config.yaml) describes; ConfigError where it cannot be run."""
    values, sections = dict(values), {}
    for group, schemas in SECTIONS.items():
        section = values.pop(group, None)
        if not isinstance(section, Mapping):
            raise ConfigError(f"{group}={section} is not a section: choose it with {group}={next(iter(schemas))}")
        name = str(section.get("name", next(iter(schemas))))
        if name not in schemas:
            raise ConfigError(f"{group}.name={name} is unknown{closest(name, schemas)}")
        sections[group] = _structured(group, schemas[name], section)
    values.pop("experiment", None)
    known = {f.name: f.type for f in dataclasses.fields(Config) if f.name not in SECTIONS}
    scalars = dataclasses.make_dataclass(
        "Scalars", [(f.name, f.type, f) for f in dataclasses.fields(Config) if f.name in known]
    )
    plain = _structured("", scalars, values)
    return Config(**sections, **{name: getattr(plain, name) for name in known})


def from_omegaconf(cfg: DictConfig) -> Config:
    """The `Config` of what Hydra composed; raises ConfigError."""
    try:
        values = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error.msg or error).splitlines()[0]) from None
    assert isinstance(values, dict)
    return from_dict({str(k): v for k, v in values.items()})


def to_dict(config: Config) -> dict[str, Any]:
    """Plain values, the inverse of `from_dict`."""
    return dataclasses.asdict(config)


def digest(values: Mapping[str, Any], without: tuple[str, ...] = ()) -> str:
    """Eight hexadecimal digits that name the configuration `values` less the top-level keys in `without`."""
    kept = {key: value for key, value in values.items() if key not in without}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:8]
