"""Every algorithm's meta-gradient against four references that do not use its code, in float64.

closed form   algebra: quadratic tasks, the normal equations, or the formula written out in plain torch
by hand       numbers worked in the case's docstring
differences   central differences of the loss that `evaluate` reports (of the training loss, for baseline)
limit         where two algorithms, or two ways to compute one, have to agree

The table is made from the registry: every registered algorithm needs a case of each of the four.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from memmeta_exp.config import options
from tests.algorithms.gradients import by_hand, closed_forms, differences, limits
from tests.algorithms.gradients.cases import CASES, REFERENCES, Compared

MODULES = (closed_forms, by_hand, differences, limits)  # whose cases are entered where they are imported


def table() -> Iterator[Any]:
    for algorithm in options("algorithm"):
        for reference in REFERENCES:
            cases = CASES.get((algorithm, reference)) or {"none": partial(missing, algorithm, reference)}
            for name, check in cases.items():
                marks = [pytest.mark.slow] if name.endswith("slow") else []
                yield pytest.param(check, id=f"{algorithm}-{reference}-{name}", marks=marks)


def missing(algorithm: str, reference: str) -> Compared:
    pytest.fail(f"algorithm={algorithm} has no case of '{reference}': enter one with @case")


@pytest.mark.parametrize("check", list(table()))
def test_gradient(check: Callable[[], Compared]) -> None:
    found, reference, tolerance = check()
    assert reference.abs().max() > 1e-3, "a reference of zeros says nothing"
    assert (found - reference).abs().max() <= tolerance * reference.abs().max()


def test_every_case_is_of_an_algorithm() -> None:
    assert set(CASES) == {(algorithm, reference) for algorithm in options("algorithm") for reference in REFERENCES}
