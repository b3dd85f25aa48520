"""The head's own benchmark, small: its last line, and that both sides do the same."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import head

ROOT = Path(__file__).parents[2]


def test_its_last_line() -> None:
    command = [sys.executable, "-m", "benchmarks.head", "--cases", "3w1s,2w2s", "--features", "8,5", "--seconds", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    found = json.loads(done.stdout.splitlines()[-1])
    assert list(found["ratio"]) == ["3w1s", "2w2s"]
    assert set(found["rows"]) == {f"{name} d={d}" for name in found["ratio"] for d in (8, 5)}
    for name, row in found["rows"].items():
        assert row["quartiles"][0] <= row["ratio"] <= row["quartiles"][1], name
        assert min(row["old_ms"], row["new_ms"], row["old_peak_mib"], row["new_peak_mib"]) > 0, name
    assert found["ratio"]["3w1s"] == found["rows"]["3w1s d=8"]["ratio"]


def test_old_and_new_agree() -> None:
    for ways, shots, features in ((5, 1, 40), (4, 3, 6)):
        given = head.task(ways, shots, features)
        old, new = head.old(given), head.new(given)
        for name in ("loss", "accuracy", "d_support", "d_query", "smoothness"):
            a, b = getattr(old, name), getattr(new, name)
            assert b.norm() > 1e-3, name
            assert head.distance(b, a) < 1e-4, name
        assert old.inner.steps.tolist() == new.inner.steps.tolist()
        assert old.inexact.tolist() == new.inexact.tolist() == [False]


@pytest.mark.parametrize("kappa", [1e4, 1e8])
def test_residuals_are_as_small_as_before(kappa: float) -> None:
    found = head.residuals(4, 3, 40, kappa, 1e-12)
    for name, (old, new) in found.items():
        assert 0 < new < old, name


@pytest.mark.parametrize(
    ("options", "said"), [(["--cases", "5way"], "'5way' is no task: write 5w1s"), (["--features", "0"], "less than 1")]
)
def test_what_cannot_be_measured_is_said_in_a_line(options: list[str], said: str, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        head.run(options)
    assert end.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
