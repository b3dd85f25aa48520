"""The comparison with other libraries: as far as it goes without a network, our side, the network, and failure; and,
slowly, the libraries themselves."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from benchmarks import peers
from benchmarks.peer_libraries.environments import RECIPES, InstallError, Recipe, python_of
from benchmarks.peer_libraries.problem import SETTINGS, build_network, gradient_error, task_of
from benchmarks.peer_libraries.processes import WorkerError, WorkerProcess
from memmeta_exp.backbones import build_model
from memmeta_exp.backbones.conv4 import Conv4Config

TINY = ["--filters", "4", "--image-size", "16", "--tasks", "2", "--rounds", "2"]


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_our_side_alone_ends_in_json(tmp_path, capsys) -> None:
    file = tmp_path / "found.json"
    assert peers.main([*TINY, "--peers", "", "--algorithms", "anil,proposed", "--json", str(file)]) == 0
    found = last_line(capsys)
    assert found == json.loads(file.read_text())
    assert found["peers"] == found["failed"] == {}
    assert found["speedup"] == found["memory_ratio"] == {"anil": None, "proposed": None}
    for algorithm in ("anil", "proposed"):
        ours = found["ours"][algorithm]
        assert ours["seconds"] > 0
        assert ours["peak_mib"] > 0
        assert ours["gradient_error"] == 0


@pytest.mark.slow
def test_the_libraries_meta_gradients_are_ours(capsys) -> None:
    """In float64, of every algorithm each of them has; installs them where they are not yet (minutes, a network)."""
    code = peers.main([*TINY, "--rounds", "1"])
    found = last_line(capsys)
    if len(found["failed"]) == len(RECIPES):
        pytest.skip(f"no library installs here: {found['failed']}")
    assert code == 0
    for library, results in found["peers"].items():
        assert results, library
        for algorithm, result in results.items():
            assert "error" not in result, (library, algorithm, result)
            assert result["gradient_error"] <= peers.TOLERANCE, (library, algorithm)
            assert result["seconds"] > 0


@pytest.mark.slow
def test_a_peer_that_does_not_install_is_said_so(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(RECIPES, "nowhere", Recipe(str(tmp_path / "nowhere-1.0.tar.gz")))
    arguments = [*TINY, "--peers", "nowhere", "--algorithms", "anil", "--environments", str(tmp_path / "peers")]
    assert peers.main(arguments) == 0
    found = last_line(capsys)
    assert "nowhere-1.0.tar.gz" in found["failed"]["nowhere"]
    assert found["ours"]["anil"]["seconds"] > 0, "the run goes on"
    assert not list((tmp_path / "peers").iterdir()), "half an environment would pass for a whole one"


@pytest.mark.slow
def test_an_environment_sees_the_same_torch(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(RECIPES, "broken", Recipe("broken"))
    monkeypatch.setattr("benchmarks.peer_libraries.environments._install", lambda *_: None)
    python = python_of("broken", tmp_path / "peers")
    assert python_of("broken", tmp_path / "peers") == python
    with pytest.raises(WorkerError, match=r"No module named .*using_broken"):
        WorkerProcess("broken", python, threads=1)  # torch was imported before that


def test_an_unwritable_folder_is_an_install_error(tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InstallError):
        python_of("higher", tmp_path / "file")


@pytest.mark.parametrize("tuned", [False, True])
def test_the_peers_network_is_our_function(tuned: bool) -> None:
    model = build_model(Conv4Config(filters=4), 3, 32, 5, learned=True, seed=3).double()
    network = build_network(model.state_dict(), torch.float64, tuned)
    images = torch.randint(256, (5, 7, 3, 32, 32), dtype=torch.uint8)
    task = task_of(images, 3, torch.float64, tuned)
    assert task.x_s.shape == (15, 3, 32, 32)
    assert task.y_q.tolist() == [c for c in range(5) for _ in range(4)]
    with torch.no_grad():
        z = model.backbone(images[:, 3:].flatten(0, 1)[None].double() / 255)[0]
        ours = z @ model.head_start[:, :-1].T + model.head_start[:, -1]
        torch.testing.assert_close(network(task.x_q), ours, rtol=1e-12, atol=1e-12)


def test_gradient_error() -> None:
    reference = {"a": torch.tensor([3.0, 4.0]), "zero": torch.zeros(2)}
    assert gradient_error({"a": torch.tensor([3.0, 4.0])}, reference) == 0, "a missing tensor is zero"
    assert gradient_error({"a": torch.tensor([3.0, 4.5])}, reference) == pytest.approx(0.1)
    assert gradient_error({**reference, "zero": torch.tensor([1e-9, 0])}, reference) == pytest.approx(1e-9 / 5e-3)
    assert gradient_error({**reference, "extra": torch.tensor([5.0])}, reference) > 1


@dataclass
class FakeWorker:
    """A worker whose gradient is off by `error` and whose step takes `speed` seconds."""

    error: float
    speed: float
    asked: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=lambda: {"algorithms": ["anil"]})

    def ask(self, do: str, **arguments: Any) -> Any:
        self.asked.append(do)
        if do == "gradient":
            torch.save({"w": torch.tensor([1 + self.error], dtype=torch.float64)}, arguments["to"])
        return {"step": self.speed, "peak": 10 * self.speed}.get(do)


def contest(workers: dict[str, FakeWorker], folder: Path) -> dict[str, peers.Result]:
    options = SimpleNamespace(filters=4, image_size=16, tasks=1, rounds=3, dtype="float32", tuned_peers=False)
    return peers.Contest("anil", cast(Any, workers), cast(Any, options)).run(folder)


def test_a_wrong_gradient_is_reported_and_not_timed(tmp_path) -> None:
    workers = {"ours": FakeWorker(0, 1), "right": FakeWorker(1e-9, 3), "wrong": FakeWorker(1e-3, 0.1)}
    results = contest(workers, tmp_path)
    assert workers["wrong"].asked == ["load", "gradient"]
    assert results["wrong"].gradient_error == pytest.approx(1e-3)
    assert "1.0e-03" in (results["wrong"].error or "")
    assert results["right"].seconds == [3, 3, 3]
    assert peers.speedup(results) == 3
    assert peers.memory_ratio(results) == pytest.approx(1 / 3)


def test_a_peer_that_fails_on_the_way_leaves_the_others(tmp_path) -> None:
    class Dies(FakeWorker):
        def ask(self, do: str, **arguments: Any) -> Any:
            if do == "step" and self.asked.count("step") == 3:
                raise WorkerError("ended with code -9: no message")
            return super().ask(do, **arguments)

    results = contest({"ours": FakeWorker(0, 1), "dies": Dies(0, 9), "lives": FakeWorker(0, 2)}, tmp_path)
    assert results["dies"].summary()["error"] == "ended with code -9: no message"
    assert peers.speedup(results) == 2
    assert "ended with code -9" in peers.table({"anil": results})


def test_unknown_names_are_refused(capsys) -> None:
    with pytest.raises(SystemExit):
        peers.parse(["--algorithms", "reptile"])
    assert "reptile" in capsys.readouterr().err
    assert peers.parse([]).algorithms == list(SETTINGS)
