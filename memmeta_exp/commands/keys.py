"""`memmeta keys [WORD ...]`: lists the configuration keys and their meaning."""

import dataclasses
import shutil
import textwrap

from memmeta_exp.commands.arguments import parse
from memmeta_exp.commands.config_reference import Key, Table, reference
from memmeta_exp.config import ConfigError, closest
from memmeta_exp.config.compose import without_plugins

HELP = """memmeta keys [WORD ...] [format=text|markdown] [plugins=[MODULE,...]]

Lists every configuration key of memmeta train with its type, allowed values, default and meaning. WORDs select the keys
whose name, options or meaning contain every WORD: memmeta keys warm, memmeta keys algorithm=maml. format=markdown
prints the page docs/configuration.md."""
FORMATS = ("text", "markdown")
MAX_WIDTH = 120
PAGE = """# Configuration keys

This page is generated from the code by `memmeta keys format=markdown`. `memmeta keys` prints the same to a terminal,
and `memmeta keys WORD` searches it. [quickstart.md](quickstart.md)
shows how keys are set.

A key of a group exists if one of the options above its table is chosen. If options are named beside a default, only
these options have the key. The ranges are of numbers; values that the type or the meaning names (`null`, `auto`,
`0: none`) are allowed too. Combinations of keys are checked as well: an invalid one is an error before anything is
created. Numbers must fit the precision of the run: for fp32 and bf16 at most 1.8e19, and 0 or at least 1.2e-38. An
`experiment` sets several keys at once; the command line overrides it.
"""


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(HELP)
        return 0
    for argument in arguments:
        if argument.startswith("-"):
            raise ConfigError(f"unknown flag '{argument}': keys takes words, format=text|markdown and --help")
    arguments = without_plugins(arguments)
    options = parse([a for a in arguments if a.startswith("format=")], {"format": FORMATS[0]})
    if options["format"] not in FORMATS:
        raise ConfigError(f"format={options['format']} is unknown; choose from {', '.join(FORMATS)}")
    tables = matching([a for a in arguments if not a.startswith("format=")])
    print(markdown(tables) if options["format"] == "markdown" else text(tables), end="")
    return 0


def matching(words: list[str]) -> list[Table]:
    """The tables, with the keys that contain all `words` in their table's title, their name or their meaning.

    A table also stays if its title contains all `words`. Raises ConfigError if nothing is left.
    """
    every, kept = reference(), []
    for table in every:
        keys = [key for key in table.keys if all(_has(f"{table.title} {key.name} {key.meaning}", w) for w in words)]
        if keys or all(_has(table.title, w) for w in words):
            kept.append(dataclasses.replace(table, keys=tuple(keys)))
    if kept:
        return kept
    missing = [w for w in words if not any(_has(f"{t.title} {k.name} {k.meaning}", w) for t in every for k in t.keys)]
    if not missing:
        raise ConfigError(f"no key has all of {', '.join(words)} in its name, options or meaning: leave one out")
    names = {name for t in every for k in t.keys for name in (k.name, k.name.rpartition(".")[2])}
    raise ConfigError(f"no key has '{missing[0]}' in its name, options or meaning{closest(missing[0], names)}")


def _has(text: str, word: str) -> bool:
    return word.lower() in text.lower()


def text(tables: list[Table]) -> str:
    """The tables for a terminal: one heading per table, and for each key one line of facts with its meaning below."""
    width = min(shutil.get_terminal_size().columns, MAX_WIDTH)
    lines: list[str] = []
    for table in tables:
        title = f"{table.title}: {table.about}" if table.about else table.title or "Top level"
        lines += [*textwrap.wrap(title.replace("`", ""), width), ""]
        for key in table.keys:
            facts = ": ".join(part for part in (key.type, key.allowed) if part)
            lines += _wrapped(f"{key.name}  {facts}; default {key.default}", width, 2)
            lines += _wrapped(key.meaning, width, 6)
        lines += [""] if table.keys else []
    return "\n".join(lines)


def _wrapped(words: str, width: int, indent: int) -> list[str]:
    """Wrapped lines without backticks, which are markup of the page."""
    return textwrap.wrap(words.replace("`", ""), width, initial_indent=" " * indent, subsequent_indent=" " * 6)


def markdown(tables: list[Table]) -> str:
    """The page docs/configuration.md: one heading per section or group, and its tables."""
    parts, group = [PAGE], None
    for table in tables:
        if table.group != group:
            group = table.group
            parts.append(f"## {f'`{group}`' if group else 'Top level'}\n")
        parts.append(_markdown_table(table))
    return "\n".join(parts)


def _markdown_table(table: Table) -> str:
    names = [f"`{table.group}={o}`{' (default)' if o == table.chosen else ''}" for o in table.options]
    about = f"{', '.join(names)}: {table.about}" if names else f"{table.about[:1].upper()}{table.about[1:]}"
    lines = [*textwrap.wrap(_escaped(about), MAX_WIDTH, break_on_hyphens=False), ""] if table.about else []
    if table.keys:
        lines += ["| key | type | range or choices | default | meaning |", "|---|---|---|---|---|"]
        lines += [*map(_row, table.keys), ""]
    return "\n".join(lines)


def _row(key: Key) -> str:
    cells = (f"`{key.name}`", key.type, key.allowed, key.default, key.meaning)
    return f"| {' | '.join(_escaped(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def _escaped(words: str) -> str:
    """`words` with the markup characters < and * escaped."""
    return words.replace("<", "&lt;").replace("*", "\\*")
