"""Weights & Biases. Training does not depend on it: the run folder has every number.

This is the only module that imports wandb, when a run opens; workspace.py imports wandb_workspaces. Failures do not
stop a run: if the server is unreachable, the run is tracked offline; if W&B cannot write, tracking ends. Each case logs
one warning. `wandb sync RUN_DIR/wandb/offline-run-*` uploads an offline run. A resumed run keeps its W&B id: online,
W&B resumes the run of that id; offline, each process writes its own folder with that id.
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

FINISH_TIMEOUT_S = 60.0  # seconds to wait for the upload at the end of a run; `wandb sync` can upload the rest
FLUSH_S = 1.0  # seconds of W&B history that a killed run may lose (wandb's default is 15)
MOST_LETTERS = 128  # longest name of a W&B run
MAXIMA = ("val/acc", "memory/peak_mib")  # metrics whose maximum is in a run's summary, as "val/acc.max"

logger = logging.getLogger("memmeta")


class WandbRun:
    """One W&B run, or none if tracking is disabled. The methods are the same in every mode, and none raises."""

    def __init__(self, run: "wandb.Run | None" = None) -> None:
        self._run = run
        self.id = run.id if run is not None else None

    @property
    def url(self) -> str | None:
        """The run's page; None offline and disabled."""
        return self._run.url if self._run is not None and not self._run.offline else None

    @property
    def path(self) -> Path | None:
        """The directory of the .wandb file; None if disabled."""
        return Path(self._run.dir).parent if self._run is not None else None

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Logs `metrics` at outer iteration `step`."""
        self._try(lambda run: run.log({**metrics, "iteration": step}, step=step))

    def summary(self, metrics: Mapping[str, Any]) -> None:
        """Writes final numbers. W&B itself adds the last value of each logged metric, and {"max": ...} of MAXIMA."""
        self._try(lambda run: run.summary.update(dict(metrics)))

    def close(self, exit_code: int) -> None:
        """Ends the run; an exit code other than 0 marks it as failed. If the upload times out, it warns how to upload
        the rest."""

        def finish(run: "wandb.Run") -> None:
            path = self.path
            try:
                run.finish(exit_code=exit_code)
            except TimeoutError:
                logger.warning("the upload to W&B is incomplete; `wandb sync %s` uploads the rest", path)

        self._try(finish)
        self._run = None

    def _try(self, action: Any) -> None:
        if self._run is None:
            return
        try:
            action(self._run)
        except Exception as error:  # noqa: BLE001 - an error of W&B must not stop training
            logger.warning("W&B failed (%s); the run continues with its local files", first_line(error))
            self._run = None


@contextmanager
def open_wandb(
    config: Config, run_dir: Path, job_type: str = "train", run_id: str | None = None, title: str | None = None
) -> Iterator[WandbRun]:
    """The W&B run of `config`, finished at the end of the block. Its files are in `run_dir`/wandb.

    run_id: the run to resume; None: a new one. title: its name in W&B; None: the run's name.
    """
    run = WandbRun(_start(config, run_dir, {"job_type": job_type, "name": _short(title or config.run_name)}, run_id))
    try:
        yield run
    except BaseException:
        run.close(exit_code=1)
        raise
    run.close(exit_code=0)


def _short(title: str) -> str:
    """`title` cut to MOST_LETTERS characters."""
    return title if len(title) <= MOST_LETTERS else f"{title[: MOST_LETTERS - 3]}..."


def _start(config: Config, run_dir: Path, called: dict[str, str], run_id: str | None) -> "wandb.Run | None":
    mode = config.tracking.mode
    if mode == "online":
        before = set(run_dir.glob("wandb/*"))
        try:
            return _init(config, run_dir, called, "online", run_id)
        except Exception as error:  # noqa: BLE001 - without a key, a network or a server, track offline
            logger.warning("W&B cannot be reached (%s); this run is tracked offline", first_line(error))
            mode = "offline"
            _remove(set(run_dir.glob("wandb/*")) - before)
    if mode == "offline":
        try:
            return _init(config, run_dir, called, "offline", run_id)
        except Exception as error:  # noqa: BLE001 - for example a full disk, which the run folder reports itself
            logger.warning("W&B could not start (%s); this run has its local files only", first_line(error))
    return None


def _remove(leftovers: set[Path]) -> None:
    """Removes the files of an online run that could not start."""
    for path in leftovers:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _init(config: Config, run_dir: Path, called: dict[str, str], mode: Any, run_id: str | None) -> "wandb.Run":
    os.environ.setdefault("WANDB_SILENT", "true")  # with Settings(silent=True), login would still print and prompt
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
    run.define_metric("*", step_metric="iteration")  # the summary has the last value
    for key in MAXIMA:
        run.define_metric(key, step_metric="iteration", summary="max")
    return run


def _variable(name: str) -> str:
    """W&B's own variable WANDB_NAME, empty where it is not set."""
    return os.environ.get(f"WANDB_{name}", "")


def _settings(init_timeout_s: float) -> "wandb.Settings":
    import wandb

    recent = {  # settings that not every version of wandb has
        "finish_timeout": FINISH_TIMEOUT_S,
        "finish_timeout_raises": True,
        "x_save_requirements": False,
        "x_transaction_log_flush_interval": FLUSH_S,
    }
    return wandb.Settings(
        console="off",
        init_timeout=init_timeout_s,
        login_timeout=init_timeout_s,
        disable_git=True,  # no source code is uploaded; env.json has the revision
        disable_code=True,
        **{name: value for name, value in recent.items() if name in wandb.Settings.model_fields},
    )


def default_entity(timeout_s: float) -> str:
    """The default entity of the logged-in user. Raises RunError without a key, or if no server answers in
    `timeout_s`."""
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    try:
        return str(wandb.Api(timeout=max(1, round(timeout_s))).default_entity)
    except Exception as error:  # noqa: BLE001 - no key, no network, no server
        raise RunError(f"W&B cannot be reached ({first_line(error)})") from None


def first_line(error: Exception) -> str:
    """The first line of an error of W&B, or the name of its class."""
    text = str(error).strip().replace("<no message>", "")  # wandb's text for some unreachable servers
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
