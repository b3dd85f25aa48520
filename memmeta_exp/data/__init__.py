"""Datasets, and the tasks drawn from them."""

from memmeta_exp.data.episodes import EpisodeSampler, GivenTask, ImageSet, TaskBatch
from memmeta_exp.data.fingerprint import fingerprint
from memmeta_exp.data.finite_tasks import FiniteSampler, TaskIndices
from memmeta_exp.data.image_transforms import UNCHANGED, ImageTransforms
from memmeta_exp.data.loading import channel_statistics, load_split
from memmeta_exp.data.sinusoid import SinusoidSampler, SinusoidTasks
from memmeta_exp.utils.errors import DataError

__all__ = [
    "UNCHANGED",
    "DataError",
    "EpisodeSampler",
    "FiniteSampler",
    "GivenTask",
    "ImageSet",
    "ImageTransforms",
    "SinusoidSampler",
    "SinusoidTasks",
    "TaskBatch",
    "TaskIndices",
    "channel_statistics",
    "fingerprint",
    "load_split",
]
