"""memmeta: memory-reduced meta-learning (Yang, Ma, Yu, AAAI-25) as an experiment framework.

    import memmeta_exp as memmeta

    run = memmeta.train("dataset=glyphs", "algorithm=anil", "iterations=200")
    classifier = memmeta.load(run.folder).adapt(images, labels)

`train` and `load` are imported, with torch, when they are first used.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_IN_PYTHON = {
    "train": "memmeta_exp.commands.in_python",
    "load": "memmeta_exp.prediction",
    "export": "memmeta_exp.prediction",
}


def __getattr__(name: str) -> Any:
    if name not in _IN_PYTHON:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_IN_PYTHON[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_IN_PYTHON})
