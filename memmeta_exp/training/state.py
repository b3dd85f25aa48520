"""The state of a training run, and what identifies the run: the content of a checkpoint."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from memmeta_exp.config import Config, progress_of_today, to_dict
from memmeta_exp.data import fingerprint
from memmeta_exp.experiment.builder import Experiment
from memmeta_exp.experiment.convergence import ConvergenceError
from memmeta_exp.experiment.optimizers import build_average, build_optimizer
from memmeta_exp.training.progress import Progress
from memmeta_exp.training.saved_state import like, optimizer_fault
from memmeta_exp.utils.errors import CheckpointError, DataError

OTHER_VERSION = "written by another version of memmeta: resume with that version, or start a new run in another folder"


class TrainingState:
    """The model (theta, phi_0, running statistics), its average, optimiser, schedule, warm starts and progress.

    config: the run's own, before memory.budget_mib changed it. No random generator is needed: initial values are a
    function of the seed, and tasks are a function of seed and position.
    """

    def __init__(self, experiment: Experiment, config: Config) -> None:
        self.experiment, self.config = experiment, config
        self.optimizer, self.scheduler = build_optimizer(experiment.config, experiment.model, experiment.smoothness)
        self.average = build_average(experiment.config, experiment.model)
        self.convergence_error = ConvergenceError()  # of the rows of metrics.jsonl, from which resuming restores it
        self.progress = Progress()
        self.images = image_digests(experiment)
        pixels = getattr(experiment.samplers["train"], "pixels", None)
        self.normalised_by = [] if pixels is None else [list(pixels.mean), list(pixels.std)]

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values. "config" and "images" identify the run that they belong to."""
        return {
            "iteration": self.progress.iteration,
            "model": self.experiment.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "warm": self.experiment.learner.warm,
            "progress": dict(vars(self.progress)),
            "config": to_dict(self.config),
            "images": self.images,
            "normalised_by": self.normalised_by,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned, on this machine's device.

        DataError where the images differ. CheckpointError where the state does not fit.
        """
        device = self.experiment.device
        try:
            require_images(self.images, state["images"])
            problem = self._fault(state)
            if problem:
                raise CheckpointError(f"the checkpoint does not fit ({problem}); {OTHER_VERSION}")
            self.experiment.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scheduler.load_state_dict(state["scheduler"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            self.experiment.learner.warm = {key: value.to(device) for key, value in state["warm"].items()}
            self.progress = Progress(**progress_of_today(state["progress"]))
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise CheckpointError(f"the checkpoint does not fit ({type(error).__name__}); {OTHER_VERSION}") from None

    def _fault(self, state: Mapping[str, Any]) -> str | None:
        """The first place where a stored state of the right types does not fit this run, in one clause; else None."""
        model, p = dict(self.experiment.model.state_dict()), state["progress"]
        if not 0 <= p["iteration"] <= self.config.iterations:
            return f"'iteration' is {p['iteration']} of {self.config.iterations}"
        if bool(p["best_model"]) == math.isnan(p["best_value"]):
            return "'progress.best_model' and 'progress.best_value' do not agree"
        start = model["head_start"]
        warm = {key: start.expand(self.config.batch_size, *start.shape) for key in state["warm"]}
        average = None if self.average is None else dict(self.average.state_dict())
        return (
            like(state["model"], model, "model")
            or (like(p["best_model"], model, "progress.best_model") if p["best_model"] else None)
            or (None if average is None else like(state.get("average"), average, "average"))
            or optimizer_fault(state["optimizer"], self.optimizer)
            or like(state["scheduler"], self.scheduler.state_dict(), "scheduler")
            or like(state["warm"], warm, "warm")
        )

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """In the block the model has the weights of its moving average, where there is one."""
        if self.average is None:
            yield
            return
        model = self.experiment.model
        own = {key: value.clone() for key, value in model.state_dict().items()}
        model.load_state_dict(self.average.module.state_dict())
        try:
            yield
        finally:
            model.load_state_dict(own)

    def keep_best(self, value: float) -> None:
        """Stores the current model as the best so far, with its `value`."""
        p = self.progress
        p.best_value, p.best_iteration = value, p.iteration
        p.best_model = {key: value.to("cpu", copy=True) for key, value in self.experiment.model.state_dict().items()}

    def weights(self) -> dict[str, Any]:
        """The content of checkpoints/iteration-N.pt: the model as it stands."""
        return {
            "iteration": self.progress.iteration,
            "model": self.experiment.model.state_dict(),
            "normalised_by": self.normalised_by,
        }

    def best(self) -> dict[str, Any]:
        """The content of checkpoints/best.pt."""
        return {
            "iteration": self.progress.best_iteration,
            "model": self.progress.best_model,
            "normalised_by": self.normalised_by,
        }


def image_digests(experiment: Experiment) -> dict[str, str]:
    """The digest of each stream's images. Streams of tasks that are generated from a seed have none."""
    streams = {n: s for n, s in experiment.samplers.items() if n != "reference" and hasattr(s, "image_set")}
    return {name: fingerprint(sampler.image_set) for name, sampler in streams.items()}


def require_images(found: Mapping[str, str], began: Mapping[str, str]) -> None:
    """DataError where the digests `found` differ from those that a run `began` with."""
    differing = [name for name, digest in found.items() if began.get(name) != digest]
    if differing:
        raise DataError(
            f"the images of {', '.join(differing)} are not those that the run began with: bring the dataset "
            "back, or start a new run in another folder"
        )
