"""A virtual environment for each peer library, made on first use and kept.

Through a .pth file it uses the torch of the current interpreter, and other packages beside it, so that all libraries
run the same build. Peers are installed with --no-deps, because their pins exclude current versions of torch.
"""

import hashlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

INSTALL_SECONDS = 900
PIP = ("-m", "pip", "--disable-pip-version-check", "--retries", "1", "--timeout", "20")


class InstallError(Exception):
    """A peer could not be installed; the text is one line."""


@dataclass(frozen=True)
class Recipe:
    """How a peer is installed. needs: packages that it imports and that may be missing. tools: packages that `pyx`
    needs.

    pyx: Cython sources of the released archive whose generated C is out of date. If the normal installation fails, the
    C is generated again.
    """

    requirement: str
    needs: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    pyx: str = ""


RECIPES = {
    "learn2learn": Recipe(
        "learn2learn==0.2.0",
        needs=("gym==0.26.2", "gym-notices", "cloudpickle", "scipy"),
        tools=("setuptools", "wheel", "cython<3"),
        pyx="learn2learn/data/*.pyx",
    ),
    "torchopt": Recipe("torchopt==0.7.3", needs=("optree", "graphviz", "typing-extensions")),
    "higher": Recipe("higher==0.2.1"),
}


def python_of(peer: str, folder: Path) -> Path:
    """The interpreter of the environment of `peer` under `folder`, installed if necessary. Raises InstallError."""
    recipe = RECIPES[peer]
    key = hashlib.sha256(repr((recipe, sys.version, sys.prefix, torch.__version__, torch.__file__)).encode())
    environment = folder / f"{peer}-{key.hexdigest()[:12]}"
    python = environment / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    if (environment / "installed").exists():
        return python
    try:
        _create(environment)
        _install(recipe, python, environment)
    except (OSError, InstallError) as error:
        shutil.rmtree(environment, ignore_errors=True)
        raise InstallError(str(error)) from None
    (environment / "installed").touch()
    return python


def _create(environment: Path) -> None:
    shutil.rmtree(environment, ignore_errors=True)
    environment.parent.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", str(environment)])
    (site,) = environment.glob("[Ll]ib/**/site-packages")
    (site / "beside_torch.pth").write_text(f"{Path(torch.__file__).parents[1]}\n")


def _install(recipe: Recipe, python: Path, environment: Path) -> None:
    pip = [str(python), *PIP]
    if recipe.needs:
        _run([*pip, "install", "--no-deps", *recipe.needs])
    try:
        _run([*pip, "install", "--no-deps", recipe.requirement])
    except InstallError:
        if not recipe.pyx:
            raise
        _install_regenerated(recipe, python, environment / "source")


def _install_regenerated(recipe: Recipe, python: Path, folder: Path) -> None:
    """Installs the released archive after regenerating its C from its Cython sources."""
    pip = [str(python), *PIP]
    _run([*pip, "install", *recipe.tools])
    isolation = ("--no-deps", "--no-build-isolation")
    _run([*pip, "download", *isolation, "--no-binary", ":all:", "--dest", str(folder), recipe.requirement])
    (archive,) = folder.iterdir()
    shutil.unpack_archive(archive, folder, filter="data")
    (source,) = (path for path in folder.iterdir() if path.is_dir())
    sources = sorted(source.glob(recipe.pyx))
    for file in sources:
        file.with_suffix(".c").unlink(missing_ok=True)
    _run([str(python), "-m", "cython", "-3", *map(str, sources)])
    _run([*pip, "install", *isolation, str(source)])
    shutil.rmtree(folder)


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        raise InstallError(f"not installed within {INSTALL_SECONDS} s") from None
    if done.returncode != 0:
        raise InstallError(_last_line(done.stderr or done.stdout))


def _last_line(text: str) -> str:
    """The last line of `text` that names an error, else its last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    return (errors or lines or ["no message"])[-1]
