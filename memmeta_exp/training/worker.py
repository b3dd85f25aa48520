"""Worker ranks: they run what rank 0 sends. Rank 0 alone reads the command line and writes files."""

import logging
import time
from collections.abc import Callable
from typing import Any

from memmeta_exp.config import Config, from_dict
from memmeta_exp.distributed.process_group import Group
from memmeta_exp.experiment.execution import resolve_device
from memmeta_exp.tracking import Tracker
from memmeta_exp.tracking.progress_bar import ProgressBar
from memmeta_exp.tracking.run_folder import RunFolder
from memmeta_exp.training.data_parallel import build_distributed
from memmeta_exp.training.resume import without_weights
from memmeta_exp.training.runner import translate_error
from memmeta_exp.training.state import TrainingState
from memmeta_exp.training.trainer import Trainer
from memmeta_exp.utils.errors import MemmetaError, RankLost, RunError, RunInterrupted
from memmeta_exp.utils.signals import Stopped, StopRequest


def run_worker(ranks: Group, check: Callable[[Config], None]) -> int:
    """Runs what rank 0 sends, until it sends the exit code. Rank 0 prints the line of an error."""
    logging.getLogger("memmeta").setLevel(logging.ERROR)
    try:
        return _run_orders(ranks, check)
    except Stopped as stopped:
        return 128 + stopped.signum
    except RankLost as lost:
        lost.reported = ranks.loss_already_reported()
        raise
    except (MemmetaError, OSError) as error:
        refusal = error if isinstance(error, MemmetaError) else RunError(str(error))
        refusal.reported = True
        raise refusal from None


def _run_orders(ranks: Group, check: Callable[[Config], None]) -> int:
    while True:
        order = ranks.receive()
        if "code" in order:
            return int(order["code"])
        try:
            config = from_dict(order["config"])  # fails where its plug-ins are missing here
        except MemmetaError as error:
            ranks.fail(error)
            raise
        try:
            if "folder" not in order:
                placed = ranks.with_device(config)
                check(placed)
                ranks.require_same("the kind of device", resolve_device(placed.device).type)
                continue
            _run(config, order, ranks)
        except RunInterrupted:
            continue  # rank 0 sends the code
        except (RankLost, KeyboardInterrupt, Stopped):
            raise
        except BaseException as error:
            error = translate_error(error, ranks.with_device(config))
            ranks.fail(error)
            raise error from None


def _run(config: Config, order: dict[str, Any], ranks: Group) -> None:
    started, folder = time.perf_counter(), _ReadOnlyRunFolder(order["folder"])
    with StopRequest() as stop, ProgressBar(config.iterations, enabled=False) as bar:
        ranks.listen(stop)
        with stop.leaving_at_once():
            state = TrainingState(
                build_distributed(without_weights(config) if order["saved"] else config, ranks), config
            )
        ranks.require_same("the images", state.images)
        if order["saved"] is not None:
            state.load_state_dict(order["saved"])
        trainer = _WorkerTrainer(state, folder, _NullTracker(config, folder), bar, stop, started)
        trainer.train()
        trainer.test()


class _WorkerTrainer(Trainer):
    """Trains together with rank 0 and saves nothing."""

    def _save(self) -> None:
        self.state.state_dict()  # a collective call: rank 0 gathers the warm starts of all ranks

    def _save_best(self) -> None:
        pass

    def _save_weights(self, t: int) -> None:
        pass

    def _on_rank_lost(self, lost: RankLost) -> RankLost:
        return self._with_resume_hint(lost, "its last checkpoint")


class _ReadOnlyRunFolder(RunFolder):
    def write_test_episodes(self, episodes: Any) -> None:
        pass

    def write_adaptation(self, found: Any) -> None:
        pass


class _NullTracker(Tracker):
    def log(self, iteration: int, metrics: Any) -> None:
        pass
