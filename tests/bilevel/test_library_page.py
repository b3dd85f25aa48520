"""docs/library.md and its examples: every block of Python runs on its own and prints what stands below it."""

import io
import re
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from memmeta_exp import bilevel

DOCS = Path(__file__).parents[2] / "docs"
PAGE = "\n".join((DOCS / name).read_text() for name in ("library.md", "library_examples.md"))
EXAMPLES = {
    re.findall(r"^## (.*)$", PAGE[: match.start()], re.MULTILINE)[-1]: match
    for match in re.finditer(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
}


@pytest.mark.parametrize("title", EXAMPLES)
def test_an_example_prints_what_the_page_says(title: str) -> None:
    program, printed = EXAMPLES[title].groups()
    with redirect_stdout(io.StringIO()) as out:
        exec(compile(program, title, "exec"), {"__name__": "example"})
    assert out.getvalue() == printed


def test_every_block_is_one_of_them() -> None:
    assert len(EXAMPLES) == PAGE.count("```python") == 4
    assert all("assert " in match[1] and match[2] for match in EXAMPLES.values())


def test_the_page_names_what_the_library_has() -> None:
    missing = [name for name in bilevel.__all__ if f"`{name}" not in PAGE]
    assert missing == []
