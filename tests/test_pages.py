"""README, docs/ and examples/: their commands compose, their links lead somewhere, and their pages are short."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from memmeta_exp.config.compose import jobs

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").glob("*.py")))
NOTHING = ("predict=", "steps=", "...")  # `memmeta profile`'s own, and what the text says above
INCOMPLETE = re.compile(r"--help|--cfg|(resume|run)=.*|\[.*|KEY=.*|.*=\.\.|.*=[A-Z]|dataset=folder")  # no folder here


def printed(page: Path) -> set[tuple[str, ...]]:
    """The arguments of every `memmeta train` and `memmeta profile` in a page that are complete."""
    text = page.read_text().replace("\\\n", " ")
    in_line = re.findall(r"`memmeta\s+(?:train|profile)\s([^`]*)`", text)  # may go on in the next line
    in_block = re.findall(r"^ *memmeta (?:train|profile) (.*)$", text, re.MULTILINE)
    found = set()
    for command in in_line + in_block:
        words = [word for word in shlex.split(command, comments=True) if not word.startswith(NOTHING)]
        if words not in ([], ["-m"]) and not any(INCOMPLETE.fullmatch(word) for word in words):
            found.add(tuple(words))
    return found


COMMANDS = sorted(set().union(*map(printed, PAGES)))


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 20
    assert any("-m" in words for words in COMMANDS)


@pytest.mark.usefixtures("plugging")
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_printed_command_composes(words: tuple[str, ...]) -> None:
    assert jobs([word for word in words if word != "-m"], multirun="-m" in words)


MARKDOWN = [ROOT / "CONTRIBUTING.md", *(page for page in PAGES if page.suffix == ".md")]
MADE = {ROOT / "docs" / "configuration.md"}  # by `memmeta keys`: as long as there are keys


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)[^):]*\)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", sorted({*MARKDOWN} - MADE), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_is_short(page: Path) -> None:
    assert len(page.read_text().splitlines()) <= (150 if page.name == "README.md" else 200)


def test_the_example_of_the_readme_leaves_a_gradient() -> None:
    program = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert program is not None
    left: dict[str, Any] = {}
    exec(compile(program[1], "README.md", "exec"), left)
    assert left["backbone"].weight.grad.norm() > 0.1
