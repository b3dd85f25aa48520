"""The architecture, held by reading the source: which room imports which, and what only one module may touch."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "memmeta_exp"
FLOORS = (  # from the ground up: a room imports itself and rooms of lower floors, no others
    {"utils", "bilevel", "profiling", "__init__"},
    {"config", "distributed"},
    {"backbones", "data", "tracking", "cli"},
    {"algorithms", "reports", "sweeps", "__main__"},
    {"experiment"},
    {"memory"},
    {"training"},
    {"prediction"},
    {"commands"},
)
MAX_LOOSE_MODULES = 5
ONLY_IN = {
    "wandb": {"tracking/wandb_run.py"},
    "wandb_workspaces": {"tracking/workspace.py"},
    "hydra": {
        "commands/train.py",
        "config/compose.py",
        "config/overrides.py",
        "sweeps/launch.py",
    },  # the last: its launchers
}
MATHEMATICS = {
    "memmeta_exp",
    "torch",
    "abc",
    "collections",
    "contextlib",
    "contextvars",
    "dataclasses",
    "functools",
    "typing",
}


@cache
def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@cache
def imports(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports are not the style here"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


def room(path: str) -> str:
    """The folder, or the loose module, that a dotted name below memmeta_exp lies in."""
    first = path.split(".")[0]
    return first if (PACKAGE / first).is_dir() or (PACKAGE / f"{first}.py").is_file() else "__init__"


def test_every_module_imports_lower_floors_alone() -> None:
    height = {name: floor for floor, names in enumerate(FLOORS) for name in names}
    found = {file.relative_to(PACKAGE).parts[0].removesuffix(".py") for file in sources()}
    assert found == set(height), "a room came or went: say on which floor it is"
    for file in sources():
        own = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for name in imports(file):
            if name.startswith("memmeta_exp."):
                other = room(name.removeprefix("memmeta_exp."))
                assert other == own or height[other] < height[own], f"{file} imports {name}, which is not below it"


def test_few_modules_lie_loose() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= MAX_LOOSE_MODULES


def test_ranks_talk_to_each_other_in_one_module() -> None:
    users = {f.name for f in sources() if re.search(r"torch\.distributed|\bdist\.", f.read_text())}
    assert users == {"process_group.py"}


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_has_one_door(library: str) -> None:
    users = {str(f.relative_to(PACKAGE)) for f in sources() if any(n.split(".")[0] == library for n in imports(f))}
    assert users == ONLY_IN[library]


def test_the_mathematics_does_no_io() -> None:
    for file in (PACKAGE / "bilevel").glob("*.py"):
        text = file.read_text()
        assert {name.split(".")[0] for name in imports(file)} <= MATHEMATICS, file
        assert ".grad =" not in text, file
        assert ".backward(" not in text, file


def test_functions_and_files_stay_short() -> None:
    for file in sources():
        text = file.read_text()
        assert text.count("\n") <= 300, file
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 60, f"{file}: {node.name}"
