"""`memmeta report` as a command, on folders that real runs left."""

import subprocess
import sys

import pytest

from memmeta_exp.reports import report
from tests.commands.conftest import TINY
from tests.reports.folders import config, write_run


@pytest.fixture
def undrawn(monkeypatch) -> None:
    """The figures have tests of their own, and take seconds."""
    monkeypatch.setattr(report, "pictures", lambda runs, fits, folder: [])


def test_real_runs_of_two_algorithms_and_a_prediction(memmeta, undrawn, tmp_path) -> None:
    ran = memmeta("train", "-m", *TINY, "algorithm=proposed,anil", "hydra.sweep.dir=runs", "progress=false")
    assert ran.code == 0, ran.err
    predicted = memmeta("profile", "predict=cuda", *TINY[:-1], "hydra.run.dir=predicted")
    assert predicted.code == 0, predicted.err
    done = memmeta("report", "runs", "predicted", "out=here")
    assert done.code == 0, done.err
    assert done.out == "report: here/report.html\n"
    html = (tmp_path / "here/report.html").read_text()
    assert "3 of 3 runs finished." in html
    accuracy = (tmp_path / "here/tables/accuracy.md").read_text()
    assert accuracy.count("\n| ") == 4
    assert accuracy.index("| proposed |") < accuracy.index("| ANIL |")
    memory = (tmp_path / "here/tables/memory.md").read_text()
    assert memory.count("measured on a CPU") == 2
    assert memory.count("predicted for a GPU") == 1
    assert (tmp_path / "here/tables/commands.md").read_text().count("\n| ") == 5


def test_one_folder_gets_its_report_inside_and_others_a_folder_of_their_own(memmeta, undrawn, tmp_path) -> None:
    write_run(tmp_path / "run", config())
    assert memmeta("report", "run").out == "report: run/report/report.html\n"
    again = memmeta("report", "run")
    assert again.code == 0, "a report is no run"
    several = memmeta("report", "run", str(tmp_path / "run"))
    assert several.out.startswith("report: outputs/")
    assert several.out.endswith("-report/report.html\n")


def test_a_folder_may_have_an_equals_sign_in_its_name(memmeta, undrawn, tmp_path) -> None:
    write_run(tmp_path / "lr=1", config())
    assert memmeta("report", "lr=1", "out=out").code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "report needs folders"),
        (["nowhere"], "nowhere is not a folder"),
        (["."], ". has no run and no sweep"),
        (["--open"], "unknown flag '--open'"),
        ([".", "outt=x"], "unknown option 'outt'; did you mean 'out'?"),
    ],
)
def test_bad_input_is_one_line_and_makes_nothing(memmeta, tmp_path, arguments, words) -> None:
    done = memmeta("report", *arguments)
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert words in line
    assert list(tmp_path.iterdir()) == []


def test_neither_torch_nor_pandas_nor_wandb_is_loaded() -> None:
    program = (
        "import sys, memmeta_exp.cli, memmeta_exp.commands.report, memmeta_exp.commands.dashboard;"
        "sys.exit(', '.join({'torch', 'pandas', 'wandb', 'hydra'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_says_how(memmeta) -> None:
    done = memmeta("report", "--help")
    assert done.code == 0
    assert "memmeta report DIR" in done.out
