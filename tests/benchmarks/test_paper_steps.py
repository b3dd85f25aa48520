"""The seconds of a task by the paper's settings: that every algorithm is timed, in turn."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import paper_steps


@pytest.mark.slow
def test_every_algorithm_is_timed(tmp_path: Path) -> None:
    threads, out = torch.get_num_threads(), tmp_path / "steps.json"
    asked = ["--rounds", "2", "--tasks", "1", "--precision", "fp32", "--out", str(out)]
    try:
        assert paper_steps.main([*asked, "--algorithms", "proposed,maml,imaml"]) == 0
    finally:
        torch.set_num_threads(threads)
    found = json.loads(out.read_text())
    assert list(found["seconds_a_task"]) == ["proposed", "maml", "imaml"]
    for name, median in found["seconds_a_task"].items():
        low, high = found["quartiles"][name]
        assert 0 < low <= median <= high
    assert found["threads"] == 1
