"""`memmeta keys`, the page that it makes, and that no key is without a meaning.

memmeta keys format=markdown > docs/keys.md        (after a change of the keys or their meanings)
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import pytest

from memmeta_exp.commands import config_reference as module
from memmeta_exp.commands.config_reference import Key, Table, comments, described, reference
from memmeta_exp.commands.keys import markdown, matching
from memmeta_exp.config import NESTED, SECTIONS, Config
from memmeta_exp.config.overrides import conf_dir

PAGE = Path(__file__).parents[2] / "docs/keys.md"


@pytest.fixture(scope="module")
def tables() -> list[Table]:
    return reference()


def key(tables: list[Table], name: str, option: str | None = None) -> Key:
    (found,) = [k for t in tables for k in t.keys if k.name == name and (option is None or option in t.options)]
    return found


def test_the_page_is_what_the_command_prints(memmeta) -> None:
    done = memmeta("keys", "format=markdown")
    assert (done.code, done.err) == (0, "")
    assert done.out == PAGE.read_text(), "run: memmeta keys format=markdown > docs/keys.md"


def test_every_field_of_every_dataclass_is_there_once(tables) -> None:
    """With the options of conf/ that have it: `compose` refuses a key that no option's file holds."""
    sections = {*SECTIONS, *NESTED}
    wanted = [f.name for f in dataclasses.fields(Config) if f.name not in sections]
    wanted += [f"{section}.{f.name}" for section, schema in NESTED.items() for f in dataclasses.fields(schema)]
    for group, schemas in SECTIONS.items():
        for schema in dict.fromkeys(schemas.values()):
            wanted += [f"{group}.{f.name}" for f in dataclasses.fields(schema) if f.name != "name"]
    assert sorted(k.name for t in tables for k in t.keys) == sorted(wanted)
    listed = {(t.group, option) for t in tables for option in t.options}
    assert listed == {(group, file.stem) for group in SECTIONS for file in (conf_dir() / group).glob("*.yaml")}


def test_every_key_has_type_default_and_meaning_and_every_option_a_word(tables) -> None:
    assert [k.name for t in tables for k in t.keys if not (k.type and k.default and k.meaning)] == []
    assert [t.title for t in tables if t.title and not t.about] == []
    free = {"data_root", "dataset.path", "dataset.split_file", "backbone.model", "backbone.weights"}
    free |= {"tracking.project", "tracking.entity", "tracking.tags"}
    assert {k.name for t in tables for k in t.keys if not k.allowed and k.type != "bool"} == free


def test_facts_are_those_of_the_code(tables) -> None:
    assert key(tables, "device").allowed == "`auto`, `cpu`, `cuda`"
    assert key(tables, "test_tasks").allowed == "from 2 to 2^20"
    assert key(tables, "tasks_per_pass").type == "int or str"
    assert key(tables, "backbone.drop_rate").allowed == "from 0 to below 1"
    assert key(tables, "optimizer.lr").allowed == "above 0"
    assert key(tables, "optimizer.lr").default == "`0.001` (adam, adamw), `0.01` (sgd)"
    assert key(tables, "optimizer.momentum").default == "`0.0` (sgd)", "adam has no such key"
    assert key(tables, "algorithm.inner_steps", "maml").allowed == "from 0 (maml, fomaml), from 1 (anil, itd_bio)"
    assert key(tables, "algorithm.inner_tolerance", "proposed").type == "float or null"
    assert key(tables, "dataset.channels", "folder").allowed == "`3`, `1`"


@dataclass(frozen=True)
class Undocumented:
    """What it is. old: a key that has a meaning."""

    name: str = "linear"
    old: int = 1
    new: int = 2


def test_a_new_key_without_a_meaning_has_none(tables, monkeypatch, tmp_path) -> None:
    """And so fails the test above: of an option's dataclass, and of config.yaml."""
    monkeypatch.setattr(module, "SECTIONS", {"head": {"linear": Undocumented}})
    monkeypatch.setattr(module, "options", lambda group: ["linear"])
    values = {"name": "linear", "old": 1, "new": 2}
    whole = module._values("config.yaml")
    monkeypatch.setattr(module, "_values", lambda file: whole if file == "config.yaml" else values)
    found = {k.name: k.meaning for t in reference() for k in t.keys if t.group == "head"}
    assert found == {"head.old": "a key that has a meaning", "head.new": ""}
    assert comments("old: 1  # has one\nnew: 2\n") == {"old": "has one", "new": ""}


def test_meanings_are_read_from_comments_and_docstrings() -> None:
    text = "# no key's\na: 1  # one;\n      # and more\n\nsection:   # of it\n  b: x  # two\n  c: null\n"
    assert comments(text) == {"a": "one; and more", "section": "of it", "section.b": "two", "section.c": ""}
    assert described(Both) == ("What it is: two keys.", {"a": "one. Of two sentences", "b": "c: d", "e": "c: d"})


@dataclass(frozen=True)
class Both:
    """What it is: two keys.

    a: one. Of two
    sentences; b, e: c: d.
    """

    a: int = 1
    b: int = 2
    e: int = 3


def test_words_search_names_options_and_meanings(memmeta) -> None:
    assert [k.name for t in matching(["warm_start"]) for k in t.keys] == [
        "algorithm.inner_warm_start", "algorithm.linear_warm_start",
    ]  # fmt: skip
    (imaml,) = matching(["algorithm=imaml"])
    assert [k.name for k in imaml.keys][:2] == ["algorithm.lam", "algorithm.inner_steps"]
    assert [t.title for t in matching(["dataset=fc100"])] == ["dataset=fc100"], "an option without keys"
    assert {k.name for t in matching(["Damping", "lam"]) for k in t.keys} == {"algorithm.damping"}
    done = memmeta("keys", "budget_mib")
    assert done.code == 0
    assert "  memory.budget_mib  float or null: above 0; default null\n" in done.out
    assert "seed" not in done.out
    assert "`" not in memmeta("keys", "algorithm.adapted_params").out


def test_the_terminal_has_every_key(memmeta, tables, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = memmeta("keys").out
    assert [k.name for t in tables for k in t.keys if f"  {k.name}  {k.type}" not in out] == []
    assert max(map(len, out.splitlines())) <= 80


def test_markup_in_a_meaning_is_itself() -> None:
    page = markdown([Table("", (), "", "", (Key("a", "int", "`1`", "", "|x| of <f, g> and phi*"),))])
    assert page.endswith("| `a` | int |  | `1` | \\|x\\| of &lt;f, g> and phi\\* |\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["batchsize"], "no key has 'batchsize' in its name, options or meaning; did you mean 'batch_size'?"),
        (["damping", "crop"], "no key has all of damping, crop"),
        (["--all"], "unknown flag '--all'"),
        (["format=html"], "format=html is unknown; choose from text, markdown"),
    ],
)
def test_bad_input_is_one_line(memmeta, arguments, words) -> None:
    done = memmeta("keys", *arguments)
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert words in line


def test_help_says_how(memmeta) -> None:
    assert "memmeta keys [WORD ...]" in memmeta("keys", "--help").out
    assert "memmeta keys [WORD ...]" in memmeta("--help").out
