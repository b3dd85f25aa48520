"""Bad input by the hundred: whatever is written on the command line, in a configuration file or into a run folder, the
command ends with a known exit code in one line, and leaves nothing where it was refused."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from memmeta_exp.cli import main
from memmeta_exp.commands import train as train_command
from memmeta_exp.config import GROUPS, from_dict, to_dict
from memmeta_exp.config.compose import _keys
from memmeta_exp.training.trainer import Trainer
from memmeta_exp.utils.errors import ConfigError, RunError
from tests.training.conftest import TINY

REACHED = "training was reached"
SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
FUZZ = settings(
    derandomize=True, deadline=None, database=None, print_blob=False, suppress_health_check=SLOW_IS_FINE,
    phases=(Phase.explicit, Phase.generate),  # cases are small; making them smaller takes minutes
)  # fmt: skip

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
NUMBERS = st.one_of(
    st.integers(-(10**20), 10**20), st.floats(), st.sampled_from([0, -1, 1, 2, 0.5, 1e-300, 1e300, 2**31, 2**63])
).map(str)
WORDS = st.sampled_from(
    ["null", "true", "auto", "nan", "-inf", "''", "[]", "{}", "[1,2]", "{a:1}", "${ways}", "${oc.env:NONE}", "${a",
     "maml", "proposed", "conv4", "cpu", "cuda:7", "gd", "1,2", "choice(1,2)", "range(1,3)", "a=b", "\\", "\"", "???"]
)  # fmt: skip
VALUES = st.one_of(NUMBERS, WORDS, TEXT)


@contextmanager
def folder() -> Iterator[Path]:
    """An empty one, where the process is meanwhile."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as path:
        os.chdir(path)
        try:
            yield Path(path)
        finally:
            os.chdir(here)


def call(*arguments: str) -> tuple[int, str]:
    """Exit code and standard error; an exception that comes out is a failure of the test."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(list(arguments))
    assert "Traceback" not in err.getvalue()
    return code, err.getvalue()


def refused_in_one_line(code: int, err: str) -> bool:
    """Whether it was refused; then by one line."""
    assert code in (0, 1, 2), (code, err)
    if code == 2:
        assert err.startswith("memmeta: "), err
        assert len(err.splitlines()) == 1, err
        assert len(err) > len("memmeta: x\n"), err
    elif code == 1:
        assert REACHED in err, err
    return code == 2


@pytest.fixture(scope="module", autouse=True)
def nothing_is_trained() -> Iterator[None]:
    """What is sound gets as far as the first iteration."""

    def reached(*_: Any) -> None:
        raise RunError(REACHED)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train", reached)
        patch.setattr(train_command, "_hydra", lambda *_: reached())
        for name in [n for n in os.environ if n.startswith(("WANDB", "MEMMETA"))]:
            patch.delenv(name)
        yield


def keys() -> list[str]:
    groups = [*GROUPS, "experiment", "protocol", "settings", "hydra/launcher", "hydra.run.dir", "hydra.sweep.dir"]
    return sorted(_keys() | set(groups))


KEYS = st.one_of(
    st.deferred(lambda: st.sampled_from(keys())),
    st.deferred(lambda: st.tuples(st.sampled_from(keys()), st.integers(0, 9), st.sampled_from(["", "x", ".", "="])).map(
        lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] + 1 :]
    )),
    TEXT,
)  # fmt: skip
OVERRIDES = st.one_of(
    st.tuples(st.sampled_from(["", "", "", "+", "++", "~"]), KEYS, VALUES).map(lambda p: f"{p[0]}{p[1]}={p[2]}"),
    st.tuples(KEYS, VALUES).map(lambda p: f"{p[0]}={p[1]}"),
    TEXT,
    st.tuples(st.sampled_from(["-", "--", "--cfg ", "-m"]), TEXT).map("".join).filter(
        lambda flag: flag.partition("=")[0] not in ("-h", "--help", "--hydra-help", "--info", "--version")
    ),
    st.sampled_from(
        ["resume=", "resume=.", "resume=nowhere", "-m", "--cfg", "job", "hydra.run.dir=.", "hydra.run.dir=/"]
    ),
)  # fmt: skip


def fuzzed(check: Callable[..., None], examples: int, *drawn: Any) -> None:
    """`check` on that many draws of `drawn`."""
    settings(FUZZ, max_examples=examples)(given(*drawn)(check))()


def few_and(many: int) -> Any:
    """A few examples; many of them are a slow check."""
    return pytest.mark.parametrize("examples", [8, pytest.param(many, marks=pytest.mark.slow)])


@few_and(200)
def test_overrides(examples: int) -> None:
    fuzzed(refused_or_reached, examples, st.lists(OVERRIDES, min_size=1, max_size=3))


def refused_or_reached(overrides: list[str]) -> None:
    with folder() as here:
        if refused_in_one_line(*call("train", *overrides)):
            assert list(here.iterdir()) == [], overrides


COMMANDS = st.sampled_from(["evaluate", "profile", "data", "report", "dashboard", "nonsense", ""])
ARGUMENTS = st.one_of(
    st.tuples(st.sampled_from(["run", "checkpoint", "steps", "predict", "download", "data_root", "ways"]), VALUES)
    .map("=".join)
    .filter(lambda argument: not argument.startswith("download=cifar100")),
    TEXT,
)


@few_and(100)
def test_other_commands(examples: int) -> None:
    fuzzed(refused_or_run, examples, COMMANDS, st.lists(ARGUMENTS, min_size=1, max_size=2))


def refused_or_run(command: str, arguments: list[str]) -> None:
    with folder() as here, pytest.MonkeyPatch.context() as patch:
        patch.setattr("memmeta_exp.commands.profile._measured", lambda *_: 0)
        patch.setattr("memmeta_exp.commands.profile._predicted", lambda *_: 0)
        code, err = call(command, *arguments)
        if code == 2:
            assert refused_in_one_line(code, err)
            assert list(here.iterdir()) == []


JUNK = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(TEXT, inner, max_size=2)),
    max_leaves=4,
)


@few_and(300)
def test_configurations(examples: int) -> None:
    """A whole configuration with a few places changed: a Config, which says the same of itself, or a ConfigError."""
    fuzzed(sound_or_refused, examples, st.data())


def sound_or_refused(data: st.DataObject) -> None:
    values = to_dict(from_dict(DEFAULT))
    for _ in range(data.draw(st.integers(1, 2))):
        section = values
        key = data.draw(st.sampled_from(sorted(section)))
        if section[key] and isinstance(section[key], dict) and data.draw(st.booleans()):
            section = section[key]
            key = data.draw(st.sampled_from(sorted(section)))
        if data.draw(st.integers(0, 5)):
            section[key] = data.draw(JUNK)
        else:
            section[data.draw(TEXT)] = section.pop(key)
    try:
        config = from_dict(values)
    except ConfigError:
        return
    assert repr(from_dict(to_dict(config))) == repr(config)  # NaN is not itself


DEFAULT: dict[str, Any] = {
    "algorithm": {}, "dataset": {"name": "synthetic"}, "backbone": {}, "optimizer": {"name": "adam"}, "tracking": {},
}  # fmt: skip


@pytest.fixture(scope="module")
def run_folder(runs, tmp_path_factory) -> Path:
    base = tmp_path_factory.mktemp("fuzzed")
    assert runs(base, "train", *TINY, "hydra.run.dir=run", operation=150).status == -9
    return base / "run"


FILES = ["config.yaml", "config.yaml", "status.json", "metrics.jsonl", "env.json", "overrides.yaml",
         "checkpoints/last.pt", "checkpoints/previous.pt", ".lock"]  # fmt: skip


def damaged(content: bytes, data: st.DataObject) -> bytes | None:
    """The content of a file with something done to it; None: the file is gone."""
    kind = data.draw(st.sampled_from(["cut", "insert", "replace", "line", "value", "gone", "junk"]))
    at = data.draw(st.integers(0, len(content)))
    some = data.draw(st.binary(max_size=8))
    if kind == "cut":
        return content[:at]
    if kind == "insert":
        return content[:at] + some + content[at:]
    if kind == "replace":
        return content[:at] + some + content[at + len(some) :]
    if kind in ("line", "value"):
        lines = content.splitlines(keepends=True) or [b""]
        which = data.draw(st.integers(0, len(lines) - 1))
        value = lines[which].partition(b":")[0] + b": " + data.draw(VALUES).encode() + b"\n"
        return b"".join([*lines[:which], value if kind == "value" else b"", *lines[which + 1 :]])
    return some if kind == "junk" else None


@few_and(100)
def test_run_folders(run_folder: Path, examples: int) -> None:
    def check(data: st.DataObject, command: str) -> None:
        goes_on_or_is_refused(run_folder, data, command)

    fuzzed(check, examples, st.data(), st.sampled_from(["train", "train", "evaluate"]))


def goes_on_or_is_refused(run_folder: Path, data: st.DataObject, command: str) -> None:
    with folder() as here:
        run = Path(shutil.copytree(run_folder, here / "run"))
        file = run / data.draw(st.sampled_from(FILES))
        content = damaged(file.read_bytes(), data)
        file.unlink() if content is None else file.write_bytes(content)
        kept = {
            name: (run / name).read_bytes()
            for name in ("metrics.jsonl", "checkpoints/last.pt")
            if (run / name).exists()
        }
        if command == "evaluate":
            code, err = call("evaluate", "run=run")
            assert refused_in_one_line(code, err), "the run has no test to repeat"
            return
        code, err = call("train", "resume=run")
        assert code in (1, 2), err
        if code == 2:
            assert {name: (run / name).read_bytes() for name in kept} == kept, "nothing is lost over a refusal"
        else:
            assert REACHED in err
            json.loads((run / "status.json").read_text())
            from_dict(to_dict_of(run))


def to_dict_of(run: Path) -> dict[str, Any]:
    found = OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}
