"""The formula that benchmarks/gradients.py holds the package's gradient against, and how the two part."""

from argparse import Namespace

from benchmarks.gradients import apart, by_formula, cosine, experiment, gradient

TINY = Namespace(dataset="synthetic", data_root=None, seed=0, tasks=2)


def test_the_formula_is_the_released_hypergradient() -> None:
    """After few steps to rounding; another number of steps is another gradient."""
    of = experiment(TINY, "proposed", "fp64", "algorithm.linear_steps=3", "backbone.filters=4")
    found, residual = gradient(of)
    assert residual > 0.01
    assert apart(by_formula(of, 3), found) < 1e-10
    assert apart(by_formula(of, 4), found) > 1e-3
    assert cosine(found, -2 * found) < -1 + 1e-12
