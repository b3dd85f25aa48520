"""The wheel carries conf/ and works from any directory."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.commands.conftest import TINY

ROOT = Path(__file__).parents[1]


def test_a_wheel_trains_from_any_directory(tmp_path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path / "dist"), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert "memmeta_exp/conf/config.yaml" in names
    assert "memmeta_exp/conf/experiment.yaml" in names
    assert not [name for name in names if name.startswith(("tests", "outputs", "conf/"))]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    script = "import sys; from memmeta_exp import cli; print(cli.__file__); sys.exit(cli.main(sys.argv[1:]))"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script, "train", *TINY, "iterations=2"]
    run = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(str(tmp_path)), "the wheel's package, not the checkout's"
    assert run.stdout.splitlines()[-1].startswith("summary: ")
    assert len(list(elsewhere.glob("outputs/*/*/summary.json"))) == 1
