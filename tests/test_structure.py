"""The architecture, held by reading the source: who may import whom, and what only one module may touch."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "memmeta_exp"
MAY_IMPORT = {  # sub-package or module: what of memmeta_exp it may import, itself excepted
    "errors": set(),
    "config": {"errors", "reading"},
    "bilevel": set(),
    "reading": {"errors"},
    "data": {"bilevel", "config", "errors", "reading", "torchvision_compat", "__version__"},
    "measure": set(),
    "signals": set(),
    "allocator": set(),
    "launched": {"errors"},
    "output": set(),
    "path_keys": set(),
    "distributed": {"errors", "launched", "signals"},
    "sharded": {"algorithms", "budget", "build", "config", "data", "distributed", "signals"},
    "atomic": set(),
    "checkpoint": {"atomic", "errors", "reading", "saved"},
    "saved": {"progress", "reading"},
    "progress": set(),
    "state": {"build", "config", "data", "errors", "measure", "progress", "saved"},
    "resume": {"checkpoint", "config", "errors", "saved", "state", "tracking"},
    "out_of_memory": {"budget", "build", "config"},
    "display": set(),
    "torchvision_compat": set(),
    "backbones": {"config", "errors", "torchvision_compat"},
    "tracking": {"atomic", "config", "errors", "reading"},
    # starts jobs; never trains itself
    "sweeps": {"atomic", "commands", "config", "errors", "output", "reading", "signals", "tracking"},
    "studies": {"config", "errors", "reading", "tracking"},  # reads what runs left; never trains
    "algorithms": {"bilevel", "backbones", "config", "data", "measure"},
    "budget": {"backbones", "build", "config", "measure", "prediction"},
    "known": {"algorithms", "backbones", "bilevel", "config", "data", "measure"},
    "build": {"algorithms", "allocator", "backbones", "bilevel", "config", "data", "distributed", "errors", "known"},
    "iteration": {"algorithms", "backbones", "build", "errors", "measure"},
    "interval": set(),
    "evaluation": {"build", "data", "interval", "tracking"},
    "adaptation": {"algorithms", "build", "data", "interval"},
    "judge": {"adaptation", "build", "checkpoint", "evaluation", "known", "measure", "tracking"},
    "profile": {"build", "iteration", "measure"},
    "prediction": {"build", "config", "data", "errors", "iteration", "measure"},
    "cli": {"errors", "launched", "output", "path_keys", "signals", "__version__"},
}
ONLY_IN = {
    "wandb": {"tracking/wandb_run.py"},
    "wandb_workspaces": {"tracking/workspace.py"},
    # the last: its launchers
    "hydra": {"commands/train.py", "commands/compose.py", "commands/overrides.py", "sweeps/launch.py"},
}


def imports(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports are not the style here"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_import_direction(part: str) -> None:
    files = [f for f in sources() if f.relative_to(PACKAGE).parts[0].removesuffix(".py") == part]
    assert files, f"{part} is gone: update this table"
    for file in files:
        ours = {name.split(".")[1] for name in imports(file) if name.startswith("memmeta_exp.")}
        assert ours - {part} <= MAY_IMPORT[part], file


def test_config_the_command_line_and_the_studies_import_no_torch() -> None:
    parts = [*(PACKAGE / "config").glob("*.py"), *(PACKAGE / "studies").glob("*.py"), PACKAGE / "cli.py"]
    for file in [*parts, PACKAGE / "commands" / "report.py", PACKAGE / "commands" / "dashboard.py"]:
        assert not {name for name in imports(file) if name.split(".")[0] == "torch"}, file


def test_ranks_talk_to_each_other_in_one_module() -> None:
    users = {f.name for f in sources() if re.search(r"torch\.distributed|\bdist\.", f.read_text())}
    assert users == {"distributed.py"}


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_has_one_door(library: str) -> None:
    users = {str(f.relative_to(PACKAGE)) for f in sources() if any(n.split(".")[0] == library for n in imports(f))}
    assert users == ONLY_IN[library]


def test_the_mathematics_does_no_io() -> None:
    for file in (PACKAGE / "bilevel").glob("*.py"):
        outside = {name.split(".")[0] for name in imports(file)} - {
            "memmeta_exp",
            "torch",
            "collections",
            "contextlib",
            "dataclasses",
            "functools",
            "typing",
        }
        assert not outside, (file, outside)
        assert ".grad =" not in file.read_text()
        assert ".backward(" not in file.read_text()


def test_functions_and_files_stay_short() -> None:
    for file in sources():
        text = file.read_text()
        assert text.count("\n") <= 300, file
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 60, f"{file}: {node.name}"


def test_the_judges_that_are_named_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (PACKAGE.parent / "docs/judges.md").read_text())
    assert len(named) > 30
    for file, test in named:
        text = (PACKAGE.parent / file).read_text()
        assert not test or f"\ndef {test}(" in text, f"{file}::{test}"
