"""A trained model as one safetensors file: the weights, and in the metadata what is needed to use them.

tensors:   those of the backbone under its own names, and head_start, phi_0 [ways, d+1]
metadata:  format, config (JSON, as config.yaml), normalised_by (JSON, [mean, deviation] of each channel, or
           [[], []]), iteration
"""

import dataclasses
import json
from os import PathLike
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from memmeta_exp.config import to_dict
from memmeta_exp.prediction.trained_model import TrainedModel
from memmeta_exp.utils.atomic_io import replacing
from memmeta_exp.utils.errors import ConfigError

FORMAT = "memmeta 1"
HEAD = "head_start"


def export(model: TrainedModel, file: str | PathLike[str]) -> Path:
    """Writes `model` to a .safetensors `file`, which `load` and any reader of safetensors can read; returns its path.
    Raises ConfigError if the file cannot be written."""
    path = Path(file).expanduser()
    if path.suffix != ".safetensors":
        raise ConfigError(f"out={path} is not a .safetensors file: give it that ending")
    weights = {HEAD: model.model.head_start} | model.backbone.state_dict()
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}
    config = dataclasses.replace(model.config, data_root=None, weights=None)
    about = {
        "format": FORMAT,
        "config": json.dumps(to_dict(config)),
        "normalised_by": json.dumps([list(model.pixels.mean), list(model.pixels.std)]),
        "iteration": str(model.iteration),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as stream:
            stream.write(save(tensors, metadata=about))
    except OSError as error:
        raise ConfigError(f"out={path}: {error.strerror}; name a file that can be written") from None
    return path


def read_exported(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a file that `export` wrote. Raises ConfigError if it cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {}), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{path} is not a file that memmeta export wrote ({reason}): name one") from None
