"""The folder a run leaves behind: the source of truth for every reader, with W&B or without.

    config.yaml  overrides.yaml  env.json  metrics.jsonl  summary.json  test_episodes.csv  status.json

Metrics are appended and flushed line by line, so a killed run loses nothing that it logged; everything else is
replaced atomically, so a reader never sees half a file. JSON is strict: NaN and infinities are written as null.
"""

import csv
import io
import json
import math
import numbers
import os
import socket
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from omegaconf import OmegaConf

from memmeta_exp.errors import ConfigError
from memmeta_exp.tracking.environment import describe_environment

STATES = ("running", "finished", "failed", "interrupted")
EPISODE_COLUMNS = ["task", "accuracy", "loss", "classes", "items"]


@dataclass(frozen=True)
class EpisodeResult:
    """One test task. accuracy: fraction of queries right; classes: dataset class of each way; items: the image index
    (within its class) of every support and query image, way-major, so that the task can be rebuilt exactly."""

    task: int
    accuracy: float
    loss: float
    classes: tuple[int, ...]
    items: tuple[int, ...]


def claim(base: Path) -> Path:
    """Creates `base`, or the first free of `base`-1, `base`-2, ...; of several processes each gets its own."""
    base.parent.mkdir(parents=True, exist_ok=True)
    candidate, attempt = base, 0
    while True:
        try:
            candidate.mkdir(exist_ok=False)
            return candidate
        except FileExistsError:
            attempt += 1
            candidate = base.with_name(f"{base.name}-{attempt}")


class RunFolder:
    """Writes what a run leaves in the existing directory `path`."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._metrics: TextIO | None = None

    def start(self) -> None:
        """Takes possession of the folder: status.json is made, by one process alone. ConfigError where it exists."""
        try:
            with (self.path / "status.json").open("x") as stream:
                json.dump(self._status("running", 0, None, None), stream)
        except FileExistsError:
            raise ConfigError(
                f"{self.path} already holds a run: name another hydra.run.dir (hydra.sweep.dir), or remove it first"
            ) from None

    def write_config(self, config: Mapping[str, Any]) -> None:
        """config.yaml: the resolved configuration, as `Config` reads it back."""
        _replace(self.path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(config))))

    def write_overrides(self, overrides: list[str]) -> None:
        """overrides.yaml: what the command line changed, in Hydra's own form."""
        _replace(self.path / "overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(list(overrides))))

    def write_env(self, extra: Mapping[str, Any] | None = None) -> None:
        """env.json: software, hardware and source revision, with `extra` added ("device": where the run computes)."""
        self._write_json("env.json", describe_environment(extra or {}))

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """summary.json: the run's final numbers."""
        self._write_json("summary.json", summary)

    def write_profile(self, found: Mapping[str, Any]) -> None:
        """profile.json: what `memmeta profile` measured or foretold."""
        self._write_json("profile.json", found)

    def write_test_episodes(self, episodes: Iterable[EpisodeResult]) -> None:
        """test_episodes.csv: one row a test task; `read_test_episodes` is the inverse."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(EPISODE_COLUMNS)
        for episode in episodes:
            lists = (" ".join(map(str, numbers)) for numbers in (episode.classes, episode.items))
            writer.writerow([episode.task, repr(float(episode.accuracy)), repr(float(episode.loss)), *lists])
        _replace(self.path / "test_episodes.csv", text.getvalue())

    def set_status(self, state: str, iteration: int | None = None, reason: str | None = None) -> None:
        """status.json: where the run stands. `started` stays that of the first call, `iteration` the last one given."""
        assert state in STATES, state
        file = self.path / "status.json"
        before = json.loads(file.read_text()) if file.exists() else {}
        iteration = before.get("iteration") if iteration is None else iteration
        self._write_json("status.json", self._status(state, iteration, reason, before.get("started")))

    @staticmethod
    def _status(state: str, iteration: int | None, reason: str | None, started: str | None) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return {
            "state": state,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started": started or now,
            "updated": now,
            "iteration": iteration,
            "reason": reason,
        }

    def log(self, row: Mapping[str, Any]) -> None:
        """Appends one line to metrics.jsonl and flushes it."""
        if self._metrics is None:
            self._metrics = _open_for_append(self.path / "metrics.jsonl")
        self._metrics.write(json.dumps(_plain(row), allow_nan=False) + "\n")
        self._metrics.flush()

    def close(self) -> None:
        """Closes metrics.jsonl; a later `log` opens it again."""
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None

    def _write_json(self, name: str, values: Mapping[str, Any]) -> None:
        _replace(self.path / name, json.dumps(_plain(values), indent=2, allow_nan=False) + "\n")


def read_metrics(path: Path | str) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl (or of the one in a run folder), in order; null is None.

    A run that resumed from a checkpoint logs some iterations again: the later rows replace the earlier ones. A last
    line without its end, left by a killed run, is dropped.
    """
    file = Path(path) / "metrics.jsonl" if Path(path).is_dir() else Path(path)
    rows: list[dict[str, Any]] = []
    for line in file.read_text().splitlines(keepends=True):
        if not line.endswith("\n"):
            break
        row = json.loads(line)
        if rows and row["iteration"] < rows[-1]["iteration"]:
            rows = [kept for kept in rows if kept["iteration"] < row["iteration"]]
        rows.append(row)
    return rows


def read_test_episodes(path: Path | str) -> list[EpisodeResult]:
    """The rows of a test_episodes.csv (or of the one in a run folder)."""
    file = Path(path) / "test_episodes.csv" if Path(path).is_dir() else Path(path)
    with file.open(newline="") as stream:
        return [
            EpisodeResult(
                task=int(row["task"]),
                accuracy=float(row["accuracy"]),
                loss=float(row["loss"]),
                classes=tuple(map(int, row["classes"].split())),
                items=tuple(map(int, row["items"].split())),
            )
            for row in csv.DictReader(stream)
        ]


def _plain(value: Any) -> Any:
    """`value` in JSON's types: numpy and torch scalars become numbers, tuples lists, NaN and infinities None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, numbers.Real) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def _replace(file: Path, text: str) -> None:
    """Writes `text` to `file` so that a reader, or a machine that stops, finds the old text or the new, never a mix."""
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes it private, but runs are there to be read by the whole group
        os.replace(temporary, file)
    except BaseException:
        os.unlink(temporary)
        raise


def _open_for_append(file: Path) -> TextIO:
    """`file` open at its end, after cutting off a line that a killed run left unfinished."""
    if file.exists():
        content = file.read_bytes()
        if not content.endswith(b"\n"):
            os.truncate(file, content.rfind(b"\n") + 1)
    return file.open("a", encoding="utf-8")
