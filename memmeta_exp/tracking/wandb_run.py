"""Weights & Biases, and nothing that training depends on: the run folder holds every number in any case.

This is the only module that imports wandb, and it does so when a run opens; workspace.py has wandb_workspaces. Nothing
that a run uses raises or waits long: an online run that cannot reach its server goes on offline, and one that cannot
write goes on without, each with one warning line. `wandb sync RUN_DIR/wandb/offline-run-*` uploads an offline run. A
run that goes on keeps its id: online W&B takes up the run of that id, offline each process leaves a folder of its own
with it.
"""

import logging
import os
import secrets
import shutil
import string
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memmeta_exp.config import Config, to_dict
from memmeta_exp.utils.errors import RunError

if TYPE_CHECKING:
    import wandb

FINISH_TIMEOUT_S = 60.0  # an upload may end that long after the run; what is left stays on disk for `wandb sync`
FLUSH_S = 1.0  # a killed run loses at most this much of its W&B history (wandb's default is 15)
MOST_LETTERS = 128  # of a run's name at W&B
MAXIMA = ("val/acc", "memory/peak_mib")  # a run's summary keeps the highest of these, as "val/acc.max"

logger = logging.getLogger("memmeta")


class WandbRun:
    """One W&B run, or none: the same calls in every mode, and none of them raises."""

    def __init__(self, run: "wandb.Run | None" = None) -> None:
        self._run = run
        self.id = run.id if run is not None else None

    @property
    def url(self) -> str | None:
        """The run's page; None offline and disabled."""
        return self._run.url if self._run is not None and not self._run.offline else None

    @property
    def path(self) -> Path | None:
        """The directory that holds the .wandb file; None when disabled."""
        return Path(self._run.dir).parent if self._run is not None else None

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """One point of every metric at outer iteration `step`."""
        self._try(lambda run: run.log({**metrics, "iteration": step}, step=step))

    def summary(self, metrics: Mapping[str, Any]) -> None:
        """Final numbers, beside what wandb sums up itself: the last value, or {"max": ...} of the MAXIMA."""
        self._try(lambda run: run.summary.update(dict(metrics)))

    def close(self, exit_code: int) -> None:
        """Ends the run; an exit code other than 0 marks it failed. Where the server has not had all of it in time, one
        warning says how it gets the rest."""

        def finish(run: "wandb.Run") -> None:
            path = self.path
            try:
                run.finish(exit_code=exit_code)
            except TimeoutError:
                logger.warning("W&B has not had all of this run; `wandb sync %s` uploads the rest", path)

        self._try(finish)
        self._run = None

    def _try(self, action: Any) -> None:
        if self._run is None:
            return
        try:
            action(self._run)
        except Exception as error:  # noqa: BLE001 - whatever W&B's trouble is, training goes on
            logger.warning("W&B stopped (%s); the run goes on with its local files", first_line(error))
            self._run = None


@contextmanager
def open_wandb(
    config: Config, run_dir: Path, job_type: str = "train", run_id: str | None = None, title: str | None = None
) -> Iterator[WandbRun]:
    """The W&B run of `config`, with its files under `run_dir`/wandb, finished on leaving; see `TrackingConfig.mode`.
    run_id: of the run to go on with, None for a new one; title: its name there, the run's name by default."""
    run = WandbRun(_start(config, run_dir, {"job_type": job_type, "name": _short(title or config.run_name)}, run_id))
    try:
        yield run
    except BaseException:
        run.close(exit_code=1)
        raise
    run.close(exit_code=0)


def _short(title: str) -> str:
    """What W&B has room for."""
    return title if len(title) <= MOST_LETTERS else f"{title[: MOST_LETTERS - 3]}..."


def _start(config: Config, run_dir: Path, called: dict[str, str], run_id: str | None) -> "wandb.Run | None":
    mode = config.tracking.mode
    if mode == "online":
        before = set(run_dir.glob("wandb/*"))
        try:
            return _init(config, run_dir, called, "online", run_id)
        except Exception as error:  # noqa: BLE001 - no key, no network, no server: all mean offline
            logger.warning("W&B is out of reach (%s); this run is tracked offline", first_line(error))
            mode = "offline"
            _remove(set(run_dir.glob("wandb/*")) - before)
    if mode == "offline":
        try:
            return _init(config, run_dir, called, "offline", run_id)
        except Exception as error:  # noqa: BLE001 - a full disk, say: the run folder will report it if it matters
            logger.warning("W&B could not start (%s); this run has its local files only", first_line(error))
    return None


def _remove(leftovers: set[Path]) -> None:
    """What an online run that never began has left."""
    for path in leftovers:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _init(config: Config, run_dir: Path, called: dict[str, str], mode: Any, run_id: str | None) -> "wandb.Run":
    os.environ.setdefault("WANDB_SILENT", "true")  # Settings(silent=True) would still talk, and ask, at login
    import wandb

    asked, own = config.tracking, [config.algorithm.name, config.dataset.name, config.backbone.name]
    run = wandb.init(
        project=asked.project or _variable("PROJECT") or "memmeta",
        entity=asked.entity,  # null: wandb reads its own variables for this and the notes
        name=_short(asked.run_name) if asked.run_name else called["name"],
        group=asked.run_group or _variable("RUN_GROUP") or config.run_group,
        notes=asked.notes,
        job_type=asked.job_type or _variable("JOB_TYPE") or called["job_type"],
        tags=[tag for tag in dict.fromkeys([*asked.tags, *_variable("TAGS").split(","), *own]) if tag],
        config=to_dict(config),
        dir=run_dir,
        mode=mode,
        id=run_id or "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8)),
        resume="allow" if run_id and mode == "online" else None,
        settings=_settings(config.tracking.init_timeout_s),
    )
    run.define_metric("*", step_metric="iteration")  # its summary: the last value, plain
    for key in MAXIMA:
        run.define_metric(key, step_metric="iteration", summary="max")
    return run


def _variable(name: str) -> str:
    """W&B's own variable WANDB_NAME, empty where it is not set."""
    return os.environ.get(f"WANDB_{name}", "")


def _settings(init_timeout_s: float) -> "wandb.Settings":
    import wandb

    recent = {  # not in every version of wandb, and no run should fail over them
        "finish_timeout": FINISH_TIMEOUT_S,
        "finish_timeout_raises": True,
        "x_save_requirements": False,
        "x_transaction_log_flush_interval": FLUSH_S,
    }
    return wandb.Settings(
        console="off",
        init_timeout=init_timeout_s,
        login_timeout=init_timeout_s,
        disable_git=True,  # env.json has the revision, and no source leaves the machine
        disable_code=True,
        **{name: value for name, value in recent.items() if name in wandb.Settings.model_fields},
    )


def default_entity(timeout_s: float) -> str:
    """The entity of whoever is logged in. RunError without a key, or where no server answers within `timeout_s`."""
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    try:
        return str(wandb.Api(timeout=max(1, round(timeout_s))).default_entity)
    except Exception as error:  # noqa: BLE001 - no key, no network, no server
        raise RunError(f"W&B is out of reach ({first_line(error)})") from None


def first_line(error: Exception) -> str:
    """What a message of W&B says first."""
    text = str(error).strip().replace("<no message>", "")  # what wandb says of some unreachable servers
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
