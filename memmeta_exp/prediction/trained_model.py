"""A trained model and its adaptation to new classes."""

import threading
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from memmeta_exp.algorithms import Execution, Learner, build_algorithm
from memmeta_exp.backbones import MetaModel
from memmeta_exp.config import Config, ConfigError, channels_and_size
from memmeta_exp.data import GivenTask, ImageTransforms
from memmeta_exp.experiment.builder import configured_adaptation
from memmeta_exp.prediction.classifier import Classifier, classes_of
from memmeta_exp.prediction.images import image_bytes
from memmeta_exp.utils.errors import DataError


class TrainedModel:
    """The meta-model of a run in evaluation mode. `adapt` returns a classifier of new classes.

    config: of the run. model: backbone and head start. pixels: normalisation. iteration: of the checkpoint. Threads may
    share it; one computes at a time.
    """

    def __init__(self, config: Config, model: MetaModel, pixels: ImageTransforms, iteration: int) -> None:
        self.config, self.model, self.pixels, self.iteration = config, model.eval(), pixels, iteration
        self._lock = threading.Lock()

    @property
    def backbone(self) -> nn.Module:
        """theta as a torch.nn.Module in evaluation mode: normalised images [T, n, C, H, W] of T tasks to features
        [T, n, d]. `features` normalises for you."""
        return self.model.backbone

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of the images that the backbone takes: (C, H, W)."""
        channels, size = channels_and_size(self.config.dataset)
        return channels, size, size

    def adapt(self, images: Any, labels: Any) -> Classifier:
        """A classifier of the classes of `labels`, by the run's own test-time adaptation.

        images: n support images, in any form that `prediction.images.image_bytes` takes: numpy uint8 [n, H, W] or
        [n, H, W, C], torch uint8 [n, H, W] or [n, C, H, W], Pillow images, or paths. labels: n values of any kind, two
        classes or more, which need not have equally many images. Raises DataError and ConfigError.

            classifier = model.adapt(images, ["cat"] * 5 + ["dog"] * 5)
            classifier.predict(others)          # array(["dog", "cat", ...])
        """
        support = self.bytes_of(images)
        classes, indices = classes_of(labels)
        if len(indices) != len(support):
            raise DataError(f"{len(support)} images have {len(indices)} labels: give one label for each image")
        if len(classes) < 2:
            raise DataError(f"all {len(support)} images have the same label: give images of two classes or more")
        learner = self._learner(len(classes))

        def task(query: Tensor) -> GivenTask:
            return GivenTask(support, torch.from_numpy(indices), query, len(classes), self.pixels)

        return Classifier(classes, lambda query: self._probabilities(learner, task(self.bytes_of(query))))

    def features(self, images: Any) -> np.ndarray:
        """Features [n, d] of n images, in any form that `adapt` takes. With backbone.norm=task, the batch-norm
        statistics are those of these images."""
        x = self.bytes_of(images)
        start = self.model.head_start
        with self._lock, torch.no_grad():
            scaled = self.pixels.floats(x.to(start.device), None, start.dtype, torch.contiguous_format)[None]
            z = self.backbone(scaled)
            if self.pixels.mirrored:
                z = (z + self.backbone(scaled.flip(-1))) / 2
        return z[0].cpu().numpy()

    def bytes_of(self, images: Any) -> Tensor:
        """The images as uint8 [n, C, H, W], in the size of the model."""
        channels, size, _ = self.image_shape
        return image_bytes(images, channels, size)

    def _learner(self, ways: int) -> Learner:
        """The run's algorithm with a head of `ways` rows. Raises ConfigError if it has learned fewer."""
        require_rows(self.config, len(self.model.head_start), ways)
        algorithm = self.config.algorithm
        model, execution = self.model.with_ways(ways, self.config.seed), Execution(1, self.config.precision == "bf16")
        return build_algorithm(algorithm, model, execution, self.config.memory, self.config.head.losses())

    def _probabilities(self, learner: Learner, task: GivenTask) -> np.ndarray:
        """Class probabilities of the query images, float64 [m, ways]."""
        with self._lock:
            outputs = learner.outputs(task, configured_adaptation(self.config))[0]
            self.model.eval()  # the learner leaves it as for training
        logits = getattr(learner.losses, "logits", lambda output: output)(outputs)
        return logits.double().softmax(-1).cpu().numpy()


def require_rows(config: Config, rows: int, ways: int) -> None:
    """Raises ConfigError if phi_0 is learned and has fewer than `ways` rows."""
    algorithm = config.algorithm
    if ways > rows and (algorithm.head_start == "learned" or algorithm.adapted_params == "all"):
        raise ConfigError(
            f"{ways} classes for a model that starts from a learned head of {rows}: {algorithm.name} with "
            f"head_start=learned adapts to {rows} classes or fewer; train with ways={ways}"
        )
