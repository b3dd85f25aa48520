"""Sources of images and the tasks drawn from them."""

from memmeta_exp.data.episodes import EpisodeSampler, ImageSet, TaskBatch
from memmeta_exp.data.fingerprint import fingerprint
from memmeta_exp.data.finite import FiniteSampler, TaskIndices
from memmeta_exp.data.registry import load_split, require
from memmeta_exp.errors import DataError

__all__ = [
    "DataError",
    "EpisodeSampler",
    "FiniteSampler",
    "ImageSet",
    "TaskBatch",
    "TaskIndices",
    "fingerprint",
    "load_split",
    "require",
]
