"""Fixtures of the tests of algorithms; `problems.py` has the problems."""

import pytest

from memmeta_exp.data import SinusoidTasks, TaskBatch
from tests.algorithms.problems import image_tasks, sine_tasks


@pytest.fixture
def batch() -> TaskBatch:
    return image_tasks()


@pytest.fixture
def waves() -> SinusoidTasks:
    return sine_tasks()
