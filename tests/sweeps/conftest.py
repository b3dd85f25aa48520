"""Sweeps whose jobs cost nothing."""

import json
import sys
from pathlib import Path

import pandas
import pytest

from memmeta_exp.sweeps import launch
from tests.commands.conftest import memmeta  # noqa: F401 - a fixture

STAND_IN = Path(__file__).with_name("stand_in.py")
FILE = """
method: grid
parameters:
  seed: {values: [0, 1, 2]}
command: [memmeta, train, dataset=synthetic, tracking=disabled, "${args_no_hyphens}"]
"""


@pytest.fixture
def stand_in(monkeypatch):
    """Makes the children of launchers stand-ins that do what is said of their seed."""

    def deeds(**by_seed: str) -> None:
        monkeypatch.setattr(launch, "PROGRAM", (sys.executable, "-S", str(STAND_IN)))
        monkeypatch.setenv("STAND_IN", json.dumps({key.removeprefix("seed"): deed for key, deed in by_seed.items()}))

    deeds()
    return deeds


@pytest.fixture
def sweep(memmeta, tmp_path, monkeypatch):  # noqa: F811 - the fixture
    """Calls `memmeta sweep mine.yaml dir=out ...` with reports that are a line; returns the result and the table."""
    (tmp_path / "mine.yaml").write_text(FILE)
    monkeypatch.setattr("memmeta_exp.reports.report.write_report", lambda folders, out: out / "report.html")

    def call(*arguments: str):
        result = memmeta("sweep", "mine.yaml", "dir=out", *arguments)
        file = tmp_path / "out" / "results.csv"
        return result, pandas.read_csv(file) if file.exists() else None

    return call
