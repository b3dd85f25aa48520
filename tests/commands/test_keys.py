"""`memmeta keys`, the page that it makes, and that no key is without a meaning.

memmeta keys format=markdown > docs/configuration.md        (after a change of the keys or their meanings)
"""

import dataclasses
from pathlib import Path

import pytest

from memmeta_exp.commands.config_reference import Key, Table, reference
from memmeta_exp.commands.keys import markdown, matching
from memmeta_exp.config import GROUPS, NESTED, Config, options
from memmeta_exp.config.compose import group_options

PAGE = Path(__file__).parents[2] / "docs/configuration.md"


@pytest.fixture(scope="module")
def tables() -> list[Table]:
    return reference()


def key(tables: list[Table], name: str, option: str | None = None) -> Key:
    (found,) = [k for t in tables for k in t.keys if k.name == name and (option is None or option in t.options)]
    return found


def test_the_page_is_what_the_command_prints(memmeta) -> None:
    done = memmeta("keys", "format=markdown")
    assert (done.code, done.err) == (0, "")
    assert done.out == PAGE.read_text(), "run: memmeta keys format=markdown > docs/configuration.md"


def test_every_field_of_every_option_is_there(tables) -> None:
    sections = {*GROUPS, *NESTED}
    assert {k.name for k in tables[0].keys} == {f.name for f in dataclasses.fields(Config)} - sections
    for section, schema in NESTED.items():
        (table,) = [t for t in tables if t.group == section]
        assert [k.name for k in table.keys] == [f"{section}.{f.name}" for f in dataclasses.fields(schema)]
    for group in GROUPS:
        listed = [option for t in tables if t.group == group for option in t.options]
        assert len(listed) == len(set(listed))
        assert set(listed) == set(group_options(group))
        for name, schema in options(group).items():
            for table in tables:
                if table.group == group and name in table.options:
                    wanted = {f"{group}.{f.name}" for f in dataclasses.fields(schema)} - {f"{group}.name"}
                    assert {k.name for k in table.keys} == wanted


def test_every_key_has_type_default_and_meaning_and_every_option_a_word(tables) -> None:
    assert [k.name for t in tables for k in t.keys if not (k.type and k.default and k.meaning)] == []
    assert [t.title for t in tables if t.title and not t.about] == []
    free = {"data_root", "device", "dataset.path", "dataset.split_file", "backbone.model", "backbone.weights"}
    free |= {
        "weights",
        "plugins",
        "backbone.target",
        "backbone.arguments",
        "tracking.project",
        "tracking.entity",
        "tracking.tags",
        "tracking.run_group",
        "tracking.run_name",
        "tracking.notes",
        "tracking.job_type",
    }
    assert {k.name for t in tables for k in t.keys if not k.allowed and k.type != "bool"} == free


def test_facts_are_those_of_the_code(tables) -> None:
    assert key(tables, "test_tasks").allowed == "from 0 to 2^20"
    assert key(tables, "tasks_per_pass").type == "int or str"
    assert key(tables, "backbone.drop_rate").allowed == "from 0 to below 1"
    assert key(tables, "optimizer.lr").allowed == "above 0"
    assert key(tables, "optimizer.lr").default == "`0.001` (adam, adamw), `0.01` (sgd)"
    assert key(tables, "optimizer.momentum").default == "`0.0` (sgd)", "adam has no such key"
    assert key(tables, "algorithm.inner_steps", "maml").allowed == "from 0"
    assert key(tables, "algorithm.inner_tolerance", "proposed").type == "float or null"
    assert key(tables, "dataset.channels", "folder").allowed == "`3`, `1`"


def test_words_search_names_options_and_meanings(memmeta) -> None:
    assert [k.name for t in matching(["warm_start"]) for k in t.keys] == [
        "algorithm.inner_warm_start", "algorithm.linear_warm_start",
    ]  # fmt: skip
    (imaml,) = matching(["algorithm=imaml"])
    assert [k.name for k in imaml.keys][:2] == ["algorithm.lam", "algorithm.inner_steps"]
    assert [t.title for t in matching(["dataset=fc100"])] == ["dataset=fc100"], "an option without keys"
    assert {k.name for t in matching(["Damping", "added to lam"]) for k in t.keys} == {"algorithm.damping"}
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
