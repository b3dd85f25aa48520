"""Run folders whose files open, and hold something else than a run leaves: one line, and nothing is lost."""

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from memmeta_exp.config.registry import options
from memmeta_exp.training import checkpoint
from memmeta_exp.training.saved_state import optimizer_fault
from tests.training.conftest import same_bits
from tests.training.test_damage import killed, killed_once, whole  # noqa: F401 - fixtures
from tests.training.test_faults import last_line

SECONDS = 60  # after which a command is taken to hang


@pytest.fixture(autouse=True)
def nothing_hangs() -> Iterator[None]:
    def late(*_: object) -> None:
        raise TimeoutError(f"not done after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def at(*keys: Any, put: Any) -> Callable[[dict[str, Any]], None]:
    """Puts a value at a place of the checkpoint."""

    def change(state: dict[str, Any]) -> None:
        for key in keys[:-1]:
            state = state[key]
        state[keys[-1]] = put

    return change


CONTENT: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "iteration a text": (at("iteration", put="x"), "'iteration' is 'x', expected a whole number"),
    "iteration below 0": (at("iteration", put=-1), "'iteration' is -1, expected a whole number from 0"),
    "iterations that differ": (at("iteration", put=1), "'progress.iteration' is not 'iteration'"),
    "config a list": (at("config", put=[]), "'config' is a list, expected a mapping"),
    "config without iterations": (at("config", put={}), "'config' has no 'iterations'"),
    "config without an end": (
        lambda s: s["config"].__setitem__("memory", s["config"]),
        "'config' is a mapping, expected a mapping of plain values",
    ),
    "no metrics": (lambda s: s.pop("metrics"), "it has no 'metrics'"),
    "metrics beyond the file": (at("metrics", "bytes", put=2**50), "metrics.jsonl was cut short or altered"),
    "images a list": (at("images", put=["x"]), "'images' is a list, expected a mapping"),
    "W&B's run a number": (at("wandb_id", put=5), "'wandb_id' is 5, expected a text or nothing"),
    "progress a list": (at("progress", put=[]), "'progress' is a list, expected a mapping"),
    "a row of texts": (at("progress", "row", put={"a": "x"}), "'progress.row.a' is 'x', expected a number"),
    "no best weights": (at("progress", "best_model", put={}), "'progress.best_model' and 'progress.best_value'"),
    "a model of another shape": (at("model", "head_start", put=torch.zeros(1)), "'model.head_start' is no torch"),
    "a tensor of 16 TB": (
        at("model", "head_start", put=torch.zeros(1).expand(2**42)),
        "'model.head_start' is a Tensor, expected a dense tensor",
    ),
    "a tensor nowhere": (at("model", "head_start", put=torch.zeros(2, 3, device="meta")), "expected a dense tensor"),
    "a rate of text": (at("optimizer", "param_groups", 0, "lr", put="x"), "'optimizer.param_groups.0.lr' is 'x'"),
    "a moment of another shape": (
        at("optimizer", "state", 0, "exp_avg", put=torch.zeros(1)),
        "'optimizer.state.0.exp_avg' is no torch.float32",
    ),
    "a parameter too many": (at("optimizer", "state", 99, put={}), "'optimizer.state' has a parameter 99"),
    "a schedule with a method": (at("scheduler", "step", put=5), "'scheduler' has other keys"),
    "warm starts of another batch": (at("warm", "phi", put=torch.zeros(7, 2, 3)), "'warm.phi' is no torch.float32"),
}


@pytest.mark.parametrize("kind", CONTENT)
def test_sealed_checkpoints_of_another_structure_are_the_end(memmeta, killed, kind: str) -> None:  # noqa: F811
    change, said = CONTENT[kind]
    rows = (killed / "metrics.jsonl").read_bytes()
    for name in ("last.pt", "previous.pt"):
        state = checkpoint.load(killed / "checkpoints" / name)
        change(state)
        checkpoint.save(killed / "checkpoints" / name, state)
    assert said in last_line(memmeta("train", "resume=run"), 2)
    assert (killed / "metrics.jsonl").read_bytes() == rows


@pytest.mark.parametrize("name", sorted(options("optimizer")))
def test_the_state_of_every_optimizer_fits_it_alone(name: str) -> None:
    config = options("optimizer")[name]
    optimizer = config().build([torch.nn.Parameter(torch.ones(2, 3)), torch.nn.Parameter(torch.ones(4))], 0.1)
    for parameter in optimizer.param_groups[0]["params"]:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    found: Any = optimizer.state_dict()
    assert optimizer_fault(found, optimizer) is None
    found["state"][1] = found["state"].get(1, {}) | {"other": 1.0}
    assert optimizer_fault(found, optimizer) == "'optimizer.state.1' has other keys"


def test_one_of_another_structure_is_passed_over(memmeta, killed, whole) -> None:  # noqa: F811
    last = killed / "checkpoints" / "last.pt"
    checkpoint.save(last, checkpoint.load(last) | {"config": []})
    result = memmeta("train", "resume=run")
    assert result.code == 0, result.err
    (line,) = [line for line in result.err.splitlines() if "last.pt" in line]
    assert "last.pt is damaged, or written by another version of memmeta ('config' is a list" in line
    assert "going on from run/checkpoints/previous.pt, iteration" in line
    same_bits(whole, killed)


def test_a_fifo_in_a_checkpoints_place_is_passed_over(memmeta, killed, whole) -> None:  # noqa: F811
    last = killed / "checkpoints" / "last.pt"
    last.unlink()
    os.mkfifo(last)
    result = memmeta("train", "resume=run")
    assert result.code == 0, result.err
    assert "run/checkpoints/last.pt is a FIFO, and a regular file is expected" in result.err
    same_bits(whole, killed)


@pytest.mark.parametrize("name", [".next.pt", "last.pt", "previous.pt"])
def test_a_folder_in_a_checkpoints_place_is_named(memmeta, killed, name: str) -> None:  # noqa: F811
    file = killed / "checkpoints" / name
    file.unlink(missing_ok=True)
    file.mkdir()
    said = f"run/checkpoints/{name} is a folder, where a checkpoint belongs: move it away"
    assert said in last_line(memmeta("train", "resume=run"), 2)


@pytest.mark.parametrize("name", ["metrics.jsonl", ".lock"])
@pytest.mark.parametrize("special", ["fifo", "device"])
def test_only_regular_files_are_gone_on_with(memmeta, killed, name: str, special: str) -> None:  # noqa: F811
    file = killed / name
    file.unlink()
    os.mkfifo(file) if special == "fifo" else file.symlink_to("/dev/zero")
    kind = "a FIFO" if special == "fifo" else "a device"
    assert f"run/{name} is {kind}, and a regular file is expected" in last_line(memmeta("train", "resume=run"), 2)


@pytest.mark.parametrize("name", ["status.json", "env.json", "overrides.yaml"])
@pytest.mark.parametrize("content", ["[" * 2000, '{"earlier": 5, "pid": "x", "title": 7}', "a: &a [*a]\n"])
def test_a_file_of_another_structure_that_decides_nothing(memmeta, killed, name: str, content: str) -> None:  # noqa: F811
    (killed / name).write_text(content)
    result = memmeta("train", "resume=run")
    assert result.code == 0, result.err
    assert f"{name} cannot be read: its content is lost" in result.err


def laughs(key: str) -> str:
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    return "\n".join([*lines, f"{key}: *a11", ""])


CONFIGS = {
    "aliases of aliases": (laughs, "has an anchor or alias (& or *): write the value out"),
    "a recursive anchor": (lambda key: f"{key}: &a [*a]\n", "has an anchor or alias"),
    "2000 levels": (lambda key: f"{key}: {'[' * 2000}{']' * 2000}\n", "nests deeper than 64 levels"),
    "5000 digits": (lambda key: f"{key}: {'9' * 5000}\n", "has a number of 5000 digits"),
    "doubled 60 times": (
        lambda key: "".join(f"x{n + 1}: ${{x{n}}}${{x{n}}}\n" for n in range(60)) + f"{key}: 1\n",
        "it holds an interpolation ${..}, and a run writes values only",
    ),
}


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("command", [("train", "resume=run"), ("evaluate", "run=run")])
def test_a_configuration_that_would_not_end(memmeta, killed, kind: str, command: tuple[str, ...]) -> None:  # noqa: F811
    make, said = CONFIGS[kind]
    file = killed / "config.yaml"
    file.write_text(file.read_text() + make("more"))
    result = memmeta(*command)
    assert said in last_line(result, 2)
    assert "run/config.yaml is damaged: " in result.err
    assert len(result.err.splitlines()) == 1
