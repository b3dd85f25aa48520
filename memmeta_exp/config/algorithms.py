"""The algorithms' sections of a configuration, one dataclass a family.

Letters follow the paper: mu, K = inner_steps, N = linear_steps.
"""

from dataclasses import dataclass
from typing import Any

from memmeta_exp.config.validation import at_least, at_most, one_of
from memmeta_exp.utils.errors import ConfigError


class HeadWithoutHistory:
    """What the algorithms have in common whose head alone adapts, and not by steps that are differentiated through."""

    @property
    def in_feature_space(self) -> bool:
        """Always: the head alone adapts."""
        return True

    @property
    def unrolls(self) -> bool:
        """Never: no inner history is kept."""
        return False


@dataclass(frozen=True)
class ProposedConfig(HeadWithoutHistory):
    """The memory-reduced method: phi_i* by `inner_solver`, v_i by `linear_solver`, no inner history kept.

    mu: weight of R(phi) = mu/2 |phi|^2 (of mu/2 |phi - phi_0|^2 unless head_start is fixed), 0 only for the released
    settings. inner_solver: `newton` (to inner_tolerance) or `gd` (gradient descent). inner_steps: K of gd; at most this
    many of newton. inner_lr: step of gd; null: 1/L_g, measured from each task's features. inner_tolerance: bound on
    |d_phi g|, where both stop; null: none, gd takes all K steps. inner_warm_start: each slot of the batch starts from
    its last phi (Algorithm 1 as printed). linear_solver: `direct` (a factorisation) or `cg` (conjugate gradients).
    linear_steps: N of cg, at most. linear_tolerance: bound on |H v - d_phi f| / |d_phi f|, where cg stops; null: none.
    linear_warm_start: cg starts from the slot's last v (Algorithm 1 as printed). head_start: phi_0, `fixed` (random,
    frozen), `learned` (meta-learned, R centred on it) or `prototype` (the class means of each task, R centred on them).
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
        one_of("algorithm.inner_solver", self.inner_solver, ("gd", "newton"))
        one_of("algorithm.linear_solver", self.linear_solver, ("cg", "direct"))
        one_of("algorithm.head_start", self.head_start, ("fixed", "learned", "prototype"))
        at_least("algorithm.mu", self.mu, 0)
        at_least("algorithm.inner_steps", self.inner_steps, 1)
        at_least("algorithm.linear_steps", self.linear_steps, 1)
        at_least("algorithm.inner_lr", self.inner_lr, 0, strict=True)
        at_least("algorithm.inner_tolerance", self.inner_tolerance, 0, strict=True)
        at_least("algorithm.linear_tolerance", self.linear_tolerance, 0, strict=True)
        if self.inner_solver == "newton" and self.inner_tolerance is None:
            raise ConfigError(
                "algorithm.inner_tolerance=null with algorithm.inner_solver=newton: newton stops by its tolerance; "
                "set it (1e-4 is the default) or use algorithm.inner_solver=gd"
            )
        self._check_learned_start()

    def check_strong_convexity(self) -> None:
        """ConfigError where a solver needs the strong convexity that g has by R alone."""
        if self.mu > 0:
            return
        for key, solver in (("inner_solver", "newton"), ("linear_solver", "direct")):
            if getattr(self, key) == solver:
                other = "gd" if key == "inner_solver" else "cg"
                raise ConfigError(
                    f"algorithm.mu=0 with algorithm.{key}={solver}: without R the lower level has no solution in "
                    f"general; set algorithm.mu above 0 (0.1 is the default) or algorithm.{key}={other}"
                )

    def _check_learned_start(self) -> None:
        if self.head_start == "learned" and self.mu == 0:
            raise ConfigError(
                "algorithm.mu=0 with algorithm.head_start=learned: the start is learned through R, which is centred "
                "on it; set algorithm.mu above 0 or algorithm.head_start=fixed"
            )


@dataclass(frozen=True)
class BaselineConfig(HeadWithoutHistory):
    """Baseline (Chen et al. 2019), without a meta-gradient: training classifies all images of its tasks among all
    classes of the training split; a new task's head is that of `proposed`, by Newton's method.

    classifier: of training, `linear` (Baseline) or `cosine` (Baseline++). scale: of the cosines. power: new tasks see
    the features z as z^power (of a negative one 0), scaled to length sqrt(d) (Tukey's ladder of powers, Yang et al.
    2021); 1: as they are, and unscaled; the F whose gradient is measured sees them so always. mu: weight of R(phi) =
    mu/2 |phi|^2 in g, for new tasks and in that F. inner_steps: of newton, at most. inner_tolerance: bound on
    |d_phi g|, where it stops.
    """

    name: str = "baseline"
    classifier: str = "linear"
    scale: float = 10.0
    power: float = 1.0
    mu: float = 0.1
    inner_steps: int = 20
    inner_tolerance: float = 1e-4

    def __post_init__(self) -> None:
        one_of("algorithm.classifier", self.classifier, ("cosine", "linear"))
        at_least("algorithm.scale", self.scale, 0, strict=True)
        at_least("algorithm.power", self.power, 0, strict=True)
        at_most("algorithm.power", self.power, 1)
        at_least("algorithm.mu", self.mu, 0, strict=True)
        at_least("algorithm.inner_steps", self.inner_steps, 1)
        at_least("algorithm.inner_tolerance", self.inner_tolerance, 0, strict=True)

    @property
    def head_start(self) -> str:
        """Always fixed, and of no consequence: Newton begins where R is least."""
        return "fixed"


@dataclass(frozen=True)
class UnrolledConfig:
    """Differentiation through K = inner_steps gradient steps of size inner_lr: MAML, FOMAML, ANIL, ITD-BiO.

    adapts: the parameters that take the steps, `all` or the `head`; mu: weight of R(phi) = mu/2 |phi|^2 in g, phi what
    adapts; inner_steps: K, gradient steps; 0: training on all tasks at once, where all weights adapt and there are no
    classes (dataset=sinusoid); inner_lr: their size; head_start: the head's start is `learned` (MAML, ANIL), `fixed`
    (ITD-BiO: random, frozen) or, with features=once, `prototype` (from the class means); first_order: treat the inner
    gradients as constants (FOMAML); features: where the head alone adapts, compute them `once`, or `recompute` them
    with a graph at every inner step, as the released ANIL and ITD-BiO do, to the same result.
    """

    name: str = "anil"
    adapted_params: str = "head"
    mu: float = 0.0
    inner_steps: int = 10
    inner_lr: float = 0.1
    head_start: str = "learned"
    first_order: bool = False
    features: str = "once"

    def __post_init__(self) -> None:
        one_of("algorithm.adapted_params", self.adapted_params, ("all", "head"))
        one_of("algorithm.features", self.features, ("once", "recompute"))
        one_of("algorithm.head_start", self.head_start, ("fixed", "learned", "prototype"))
        at_least("algorithm.mu", self.mu, 0)
        at_least("algorithm.inner_steps", self.inner_steps, 0 if self.adapted_params == "all" else 1)
        at_least("algorithm.inner_lr", self.inner_lr, 0, strict=True)
        if self.adapted_params == "all" and self.features == "once":
            raise ConfigError(
                "algorithm.features=once with algorithm.adapted_params=all: the features change as the backbone adapts; set "
                "algorithm.features=recompute, or algorithm.adapted_params=head"
            )

    @property
    def in_feature_space(self) -> bool:
        """Whether the lower level sees features alone."""
        return self.features == "once"

    @property
    def unrolls(self) -> bool:
        """Whether a graph of the inner steps is kept."""
        return not self.first_order


@dataclass(frozen=True)
class ImamlConfig:
    """iMAML (Rajeswaran et al. 2019): all weights adapt, g = cross-entropy + lam/2 |phi - theta|^2.

    phi by gradient steps from theta; the meta-gradient (I + H/lam)^-1 d_phi f, H the Hessian of the support loss, by
    conjugate gradients.

    lam: lambda; the solve needs it above H's most negative eigenvalue, in magnitude (hypergrad/inexact_fraction tells).
    inner_steps: K, gradient steps. inner_lr: their size. linear_steps: N of conjugate gradients, at most.
    linear_tolerance: bound on the relative residual, where they stop; null: none. damping: added to lam in the linear
    system. head_start: `learned`, or `fixed`: the head starts from, and is held to, one frozen random point.
    """

    name: str = "imaml"
    lam: float = 2.0
    inner_steps: int = 16
    inner_lr: float = 0.1
    linear_steps: int = 5
    linear_tolerance: float | None = None
    damping: float = 0.0
    head_start: str = "learned"

    def __post_init__(self) -> None:
        one_of("algorithm.head_start", self.head_start, ("fixed", "learned"))
        at_least("algorithm.lam", self.lam, 0, strict=True)
        at_least("algorithm.inner_steps", self.inner_steps, 1)
        at_least("algorithm.inner_lr", self.inner_lr, 0, strict=True)
        at_least("algorithm.linear_steps", self.linear_steps, 1)
        at_least("algorithm.linear_tolerance", self.linear_tolerance, 0, strict=True)
        at_least("algorithm.damping", self.damping, 0)

    @property
    def mu(self) -> float:
        """R's weight on the head alone: none, for lam holds all weights to theta."""
        return 0.0

    @property
    def in_feature_space(self) -> bool:
        """Never: the backbone adapts."""
        return False

    @property
    def unrolls(self) -> bool:
        """Never: the meta-gradient is implicit."""
        return False


def check_baseline(config: Any) -> None:
    """ConfigError where algorithm=baseline has no classes to tell apart, or no head for new tasks."""
    if not config.classifies:
        return
    if config.known or config.regression:
        raise ConfigError(
            f"algorithm=baseline classifies the images of a training split, and dataset={config.dataset.name} has "
            "none: choose another algorithm"
        )
    if config.head.name == "cosine":
        raise ConfigError(
            "head=cosine with algorithm=baseline has no Hessian to factorise, and its new tasks' heads are found by "
            "Newton's method: set head=linear or head=ridge"
        )
