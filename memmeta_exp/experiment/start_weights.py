"""`weights=RUN|FILE`: theta starts from trained weights instead of random ones."""

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
    """The file named by `weights`, or the best checkpoint of that run folder. Raises ConfigError if there is none."""
    path = Path(weights).expanduser()
    file = path / BEST if path.is_dir() else path
    if not file.is_file():
        what = f"a folder without {BEST}" if path.is_dir() else "not a file"
        raise ConfigError(f"weights={weights} is {what}: name a run folder, or a file of weights")
    return file


def start_from(backbone: nn.Module, weights: str) -> None:
    """Copies the weights of a run or a file into `backbone`, by name.

    The file must have every parameter; buffers (running statistics, frozen stages) are copied if it has them. Names may
    be those of the backbone or of the network in it (backbone=custom, timm), after any prefix. Other tensors, such as a
    classifier, are ignored. Raises ConfigError if a parameter is missing or a shape differs.
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
    logger.info("theta starts from %s: %d tensors, %d of the file ignored", file, len(own.keys() & found), left_out)


def _matched(backbone: nn.Module, file: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """The backbone or the network in it, whichever has more names in the file, and the file's tensors."""
    inner = getattr(backbone, "net", None)
    candidates = [backbone, *([inner] if isinstance(inner, nn.Module) else [])]
    read = [(module, read_weights(file, module.state_dict().keys(), "weights")) for module in candidates]
    return max(read, key=lambda pair: len(pair[0].state_dict().keys() & pair[1].keys()))


def _differs(found: Tensor | None, own: Tensor) -> bool:
    return found is not None and found.shape != own.shape


def _shape(tensor: Tensor) -> list[int]:
    return list(tensor.shape)
