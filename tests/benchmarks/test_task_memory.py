"""A small network stands in for the one that is measured."""

import pytest

from benchmarks import task_memory


@pytest.mark.slow
def test_the_peak_does_not_depend_on_the_task() -> None:
    found = task_memory.main(["--model", "test_vit", "--image-size", "160", "--each", "1", "4"])
    few, many = found["rows"]
    assert (few["images"], many["images"]) == (10, 40)
    assert many["predicted_mib"] < 1.05 * few["predicted_mib"]
    assert few["resident_mib"] < 4096
    assert few["maml_mib"] > 5 * few["predicted_mib"]
