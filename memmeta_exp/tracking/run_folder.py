"""The run folder, which holds all results of a run, with or without W&B.

    config.yaml  overrides.yaml  env.json  metrics.jsonl  summary.json  test_episodes.csv  status.json

Metrics are appended line by line, so a killed run keeps what it logged. All other files are replaced atomically, so a
reader never sees an incomplete file. JSON is strict: NaN and infinities are written as null. One process at a time
locks the folder: `with folder.claimed():`.
"""

import itertools
import json
import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from omegaconf import OmegaConf

from memmeta_exp.config import metrics_of_today, overrides_of_today
from memmeta_exp.tracking.environment import describe_environment
from memmeta_exp.tracking.expected import Env, Overrides, Row, Status, within_reach
from memmeta_exp.tracking.metrics_file import MetricsFile, plain
from memmeta_exp.utils.atomic_io import remove_partials, replace_csv, replace_text, replacing
from memmeta_exp.utils.errors import DataError
from memmeta_exp.utils.file_lock import NAME as LOCK
from memmeta_exp.utils.file_lock import FolderLock
from memmeta_exp.utils.reading import Plain, csv_rows, read_bytes, read_json, read_json_lines, read_yaml
from memmeta_exp.utils.reading.files import TEXT_LIMIT

logger = logging.getLogger("memmeta")
EPISODES_LIMIT = 2**30  # bytes
STATES = ("running", "finished", "failed", "interrupted")
DESCRIPTION = ("status.json", "overrides.yaml", "config.yaml")


@dataclass(frozen=True)
class EpisodeResult:
    """One test task. accuracy: fraction of correct queries. classes: dataset class of each way. items: index within its
    class of every support and query image, way by way. With these the task can be rebuilt."""

    task: int
    accuracy: float
    loss: float
    classes: tuple[int, ...]
    items: tuple[int, ...]


@dataclass(frozen=True)
class SinusoidResult:
    """One test task of dataset=sinusoid. mse: over its query points. x: inputs of the support points, then of the query
    points. With these the task can be rebuilt."""

    task: int
    mse: float
    amplitude: float
    phase: float
    x: tuple[float, ...]


Result = TypeVar("Result", EpisodeResult, SinusoidResult)


def claim(base: Path) -> Path:
    """Creates and returns `base`, or the first free folder of `base`-1, `base`-2, ... Safe for concurrent processes."""
    base.parent.mkdir(parents=True, exist_ok=True)
    candidate, attempt = base, 0
    while True:
        try:
            candidate.mkdir(exist_ok=False)
            return candidate
        except FileExistsError:
            attempt += 1
            candidate = base.with_name(f"{base.name}-{attempt}")


def holds_run(path: Path) -> bool:
    """Whether a run has started in the folder `path`."""
    return any((path / name).exists() for name in (LOCK, "status.json"))


def read_status(path: Path) -> dict[str, Any]:
    """The content of status.json; empty if it is missing or damaged."""
    return read_mapping(path / "status.json", Status)


def read_mapping(file: Path, expected: Any = Plain) -> dict[str, Any]:
    """The mapping in a JSON file; empty if the file is missing, damaged or not of the type `expected`."""
    with suppress(FileNotFoundError, DataError):
        return read_json(file, expected)
    return {}


class RunFolder:
    """Reads and writes the files of a run in the existing directory `path`."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.metrics = MetricsFile(self.path / "metrics.jsonl")

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Locks the folder for the block, and removes incomplete files of killed processes. Raises ConfigError if
        another process has it."""
        status, lock = read_status(self.path), FolderLock(self.path)
        lock.take(f"process {status.get('pid', '?')} on {status.get('host', '?')}")
        try:
            if not status and (self.path / "status.json").exists():
                logger.warning("%s cannot be read: its content is lost", self.path / "status.json")
            for folder in (self.path, self.checkpoints):
                remove_partials(folder)
            yield
        finally:
            lock.release()

    def description(self) -> dict[str, bytes]:
        """The content of those files of DESCRIPTION that exist: the run's status, overrides and configuration."""
        found = {}
        for name in DESCRIPTION:
            with suppress(FileNotFoundError, DataError):
                found[name] = read_bytes(self.path / name, TEXT_LIMIT)
        return found

    def restore_description(self, before: Mapping[str, bytes]) -> bool:
        """Writes back what `description` returned, as far as possible; returns whether the run is then finished."""
        try:
            for name, content in before.items():
                with replacing(self.path / name) as stream:
                    stream.write(content)
        except OSError as error:
            logger.warning("%s: its description could not be restored (%s)", self.path, error.strerror)
        return "status.json" in before and read_status(self.path).get("state") == "finished"

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Writes config.yaml: the resolved configuration."""
        replace_text(self.path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(config))))

    def write_overrides(self, overrides: list[str]) -> None:
        """Writes overrides.yaml: the overrides of the command line."""
        replace_text(self.path / "overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(list(overrides))))

    def read_overrides(self) -> list[str]:
        """The overrides in overrides.yaml; empty if it is missing or damaged."""
        file = self.path / "overrides.yaml"
        try:
            return overrides_of_today(read_yaml(file, Overrides))
        except FileNotFoundError:
            return []
        except DataError:
            logger.warning("%s cannot be read: its content is lost", file)
            return []

    def write_env(self, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Writes and returns env.json: software, hardware, source revision and `extra` ("device": the run's device).

        The previous content is kept in the list "earlier", oldest first.
        """
        env, file = describe_environment(extra or {}), self.path / "env.json"
        before = read_mapping(file, Env)
        if before:
            env["earlier"] = [*before.pop("earlier", []), before]
        elif file.exists():
            logger.warning("%s cannot be read: its content is lost", file)
        self._write_json("env.json", env)
        return env

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Writes summary.json: the run's final numbers."""
        self._write_json("summary.json", summary)

    def write_profile(self, found: Mapping[str, Any]) -> None:
        """Writes profile.json: what `memmeta profile` measured or predicted."""
        self._write_json("profile.json", found)

    def write_test_episodes(self, episodes: Sequence[EpisodeResult] | Sequence[SinusoidResult]) -> None:
        """Writes test_episodes.csv: one row per test task, one column per field. Inverse of `read_test_episodes`."""
        names = [field.name for field in fields(episodes[0])]
        rows = ([_as_text(getattr(episode, name)) for name in names] for episode in episodes)
        replace_csv(self.path / "test_episodes.csv", names, rows)

    def write_adaptation(self, found: Mapping[str, Any]) -> None:
        """Writes adaptation.json: predictions of a sine-wave model before, during and after adaptation."""
        self._write_json("adaptation.json", found)

    @property
    def title(self) -> str | None:
        """The title of the run in status.json; None if it has none."""
        title = read_status(self.path).get("title")
        return title if isinstance(title, str) and title else None

    def set_status(
        self, state: str, iteration: int | None = None, reason: str | None = None, title: str | None = None
    ) -> None:
        """Writes status.json. `started` is the time of the first call; `iteration` and `title` keep their last values
        if they are None."""
        assert state in STATES, state
        before = read_status(self.path)
        iteration = before.get("iteration") if iteration is None else iteration
        title = title or self.title
        status = self._status(state, iteration, reason, before.get("started"))
        self._write_json("status.json", status | ({"title": title} if title else {}))

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
        """Appends one line to metrics.jsonl."""
        self.metrics.log(row)

    def close(self) -> None:
        """Closes metrics.jsonl; a later `log` opens it again."""
        self.metrics.close()

    def _write_json(self, name: str, values: Mapping[str, Any]) -> None:
        replace_text(self.path / name, json.dumps(plain(values), indent=2, allow_nan=False) + "\n")


def read_metrics(path: Path | str) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl file, or of the one in a run folder, in order; null is None, and so is a
    number too large to draw.

    An incomplete last line of a killed run is dropped. Metrics of older versions get their current names. Raises
    FileNotFoundError, and DataError for an invalid row or a decreasing iteration.
    """
    file = Path(path) / "metrics.jsonl" if Path(path).is_dir() else Path(path)
    rows = read_json_lines(file, Row)
    if any(later["iteration"] < before["iteration"] for before, later in itertools.pairwise(rows)):
        raise DataError(f"{file} is damaged: a row has an earlier iteration than the row before it")
    return [within_reach(metrics_of_today(row)) for row in rows]


def read_test_episodes(path: Path | str, kind: type[Result] = EpisodeResult) -> list[Result]:
    """The rows of a test_episodes.csv file, or of the one in a run folder. Raises FileNotFoundError, and DataError,
    with the line, for an invalid row."""
    file = Path(path) / "test_episodes.csv" if Path(path).is_dir() else Path(path)
    types = get_type_hints(kind)
    found = []
    for line, row in csv_rows(file, tuple(types), EPISODES_LIMIT):
        try:
            found.append(kind(**{name: _READ[of](row[name]) for name, of in types.items()}))
        except ValueError:
            raise DataError(f"{file} is damaged: line {line} has values that are not numbers") from None
    return found


def _whole(text: str) -> int:
    if len(text) > 18:
        raise ValueError("more than 64 bits")
    return int(text)


def _as_text(value: Any) -> str:
    """`value` as exact text: repr of a float is read back as the same float."""
    return " ".join(map(_as_text, value)) if isinstance(value, tuple) else repr(value)


_READ: dict[Any, Any] = {
    int: lambda text: _whole(text),
    float: float,
    tuple[int, ...]: lambda text: tuple(map(_whole, text.split())),
    tuple[float, ...]: lambda text: tuple(map(float, text.split())),
}
