"""`weights=RUN|FILE`: theta starts from trained weights in place of random ones."""

import logging
from pathlib import Path

import torch
from torch import Tensor, nn

from memmeta_exp.backbones.weights_file import read_weights
from memmeta_exp.utils.errors import ConfigError

BEST = "checkpoints/best.pt"  # of a run folder
NAMED = 3  # names or shapes that a refusal lists

logger = logging.getLogger("memmeta")


def weights_file(weights: str) -> Path:
    """The file that weights=`weights` means: of a run folder its best checkpoint. ConfigError where there is none."""
    path = Path(weights).expanduser()
    file = path / BEST if path.is_dir() else path
    if not file.is_file():
        what = f"a folder without {BEST}" if path.is_dir() else "no file"
        raise ConfigError(f"weights={weights} is {what}: name a run folder, or a file of weights")
    return file


def start_from(backbone: nn.Module, weights: str) -> None:
    """Copies the weights of a run or of a file into `backbone`, by name: every parameter, and of its buffers (running
    statistics, frozen stages) those that are there. Names may be those of the backbone or of the network within it
    (backbone=custom, timm), behind any prefix. What else the file holds, such as a classifier, is left out.

    ConfigError, in one line, where a parameter is missing or has another shape.
    """
    file = str(weights_file(weights))
    target, found = _matched(backbone, file)
    own = dict(target.state_dict(keep_vars=True))
    missing = [name for name, _ in target.named_parameters() if name not in found]
    if missing:
        raise ConfigError(
            f"weights={weights} lacks {len(missing)} of the {len(list(target.parameters()))} parameters of the "
            f"backbone, such as {', '.join(missing[:NAMED])}: choose the backbone that the weights are of"
        )
    other = [f"{k} {_shape(found[k])} there, {_shape(v)} here" for k, v in own.items() if _differs(found.get(k), v)]
    if other:
        more = f", and {len(other) - NAMED} more" if len(other) > NAMED else ""
        raise ConfigError(
            f"weights={weights} has other shapes ({'; '.join(other[:NAMED])}{more}): choose the backbone and the "
            "channels that the weights are of"
        )
    with torch.no_grad():
        for name, value in own.items():
            if name in found:
                value.copy_(found[name])
    left_out = len(found.keys() - own.keys())
    logger.info("theta starts from %s: %d tensors, %d of the file left out", file, len(own.keys() & found), left_out)


def _matched(backbone: nn.Module, file: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """The module whose names the file has most of, the backbone or the network within it, and the file's tensors."""
    inner = getattr(backbone, "net", None)
    candidates = [backbone, *([inner] if isinstance(inner, nn.Module) else [])]
    read = [(module, read_weights(file, module.state_dict().keys(), "weights")) for module in candidates]
    return max(read, key=lambda pair: len(pair[0].state_dict().keys() & pair[1].keys()))


def _differs(found: Tensor | None, own: Tensor) -> bool:
    return found is not None and found.shape != own.shape


def _shape(tensor: Tensor) -> list[int]:
    return list(tensor.shape)
