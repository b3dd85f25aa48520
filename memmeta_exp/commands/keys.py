"""`memmeta keys [WORD ...]`: what can be configured, and what each key means."""

import dataclasses
import shutil
import textwrap

from memmeta_exp.commands.arguments import parse
from memmeta_exp.commands.config_reference import Key, Table, reference
from memmeta_exp.config import ConfigError, closest
from memmeta_exp.config.compose import without_plugins

HELP = """memmeta keys [WORD ...] [format=text|markdown] [plugins=[MODULE,...]]

Lists every configuration key of memmeta train with its type, what it may be, its default and its meaning; with WORDs,
those of whose name, options and meaning each WORD is a part: memmeta keys warm, memmeta keys algorithm=maml.
format=markdown prints the page docs/configuration.md."""
FORMATS = ("text", "markdown")
MAX_WIDTH = 120
PAGE = """# Configuration keys

Made from the code by `memmeta keys format=markdown`; `memmeta keys` prints the same to a terminal, and
`memmeta keys WORD` searches it. [quickstart.md](quickstart.md) shows how keys are set.

A key of a group is there where one of the options above its table is chosen; where options are named beside a default,
only these have the key. A range is that of numbers: what a type or a meaning names besides (`null`, `auto`, `0: none`)
is allowed too. Combinations of keys are checked as well, and refused with a reason before anything is created. So are
numbers that the run's precision cannot compute with: beyond 1.8e19, or below 1.2e-38 but not 0, for fp32 and bf16. An
`experiment` sets several keys at once; what is set on the command line wins over it.
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
    """The tables less the keys that lack one of `words` in their own text or their table's title; ConfigError where
    nothing is left. An option that has no keys stays where its title has them all."""
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
    """For a terminal: a heading a table, and of each key one line of facts and its meaning below."""
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
    """Backticks are for the page."""
    return textwrap.wrap(words.replace("`", ""), width, initial_indent=" " * indent, subsequent_indent=" " * 6)


def markdown(tables: list[Table]) -> str:
    """The page: a heading a section or group, a table for each dataclass."""
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
    """What would be markup, as itself."""
    return words.replace("<", "&lt;").replace("*", "\\*")
