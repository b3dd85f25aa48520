"""For `make docs`: docstrings are plain text. Their formulas and shapes are shown as written, not read as Markdown."""

import re
from typing import Any

import griffe

MARKUP = re.compile(r"([\\*_\[\]#|])")
CODE = re.compile(r"(`[^`]*`)")


class PlainText(griffe.Extension):
    """Escapes what Markdown would take for markup, but for code in backquotes and indented blocks."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring and not obj.is_alias:
            obj.docstring.value = "\n".join(map(_escaped, obj.docstring.value.splitlines()))


def _escaped(line: str) -> str:
    if line.startswith("    "):
        return line
    parts = CODE.split(line)
    return "".join(part if part.startswith("`") else MARKUP.sub(r"\\\1", part).replace("<", "&lt;") for part in parts)
