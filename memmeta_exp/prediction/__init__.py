"""Trained models in use: loaded from a run or a file, adapted to a few images of new classes, and exported."""

from memmeta_exp.prediction.classifier import Classifier
from memmeta_exp.prediction.export import export
from memmeta_exp.prediction.load import load
from memmeta_exp.prediction.trained_model import TrainedModel

__all__ = ["Classifier", "TrainedModel", "export", "load"]
