"""A model of timm as a backbone. timm is an optional dependency, imported when the first model is built."""

import importlib
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.func import functional_call

from memmeta_exp.backbones.backbone import Backbone, Keys
from memmeta_exp.backbones.weights_file import read_weights
from memmeta_exp.backbones.whole_network import by_tasks, use_batch_statistics
from memmeta_exp.config import closest, option, register
from memmeta_exp.config.components import BackboneConfig
from memmeta_exp.utils.errors import ConfigError
from memmeta_exp.utils.path_keys import home_path
from memmeta_exp.utils.torchvision_compat import import_torchvision


@register
@dataclass(frozen=True)
class TimmConfig(BackboneConfig):
    """Any model of timm, without its classifier: the features are what the classifier would take."""

    normalises: ClassVar[bool] = True
    label: ClassVar[str] = "timm"
    name: str = "timm"
    model: str = option("resnet18", "timm's name for the model")
    weights: str | None = option(
        None,
        "a file of weights (safetensors, or a state dict that torch.load takes with weights_only=True); without this "
        "and pretrained, initial values come from `seed`",
        path=True,
    )
    pretrained: bool = option(False, "timm's own weights for the model, from the hub")
    frozen: int = option(
        0,
        "number of timm's groups of layers that are not meta-learned, counted from the stem; a group is a stage of a "
        "convolutional network or a block of a transformer",
        at_least=0,
    )
    norm: str = option(
        "task",
        "statistics of batch norm: task (each task's own) or fixed (those of the weights, never updated); no effect "
        "without batch norm",
        choices=("task", "fixed"),
    )
    attention: str = option(
        "plain", "plain, or fused (one kernel, less memory, no second derivative)", choices=("plain", "fused")
    )

    def check(self) -> None:
        if self.pretrained and self.weights is not None:
            raise ConfigError("backbone.pretrained=true with backbone.weights=FILE are two sources: leave one out")
        if self.norm == "fixed" and not (self.pretrained or self.weights):
            raise ConfigError(
                "backbone.norm=fixed without weights: an untrained network has no statistics to fix; set "
                "backbone.weights=FILE or backbone.pretrained=true, or leave backbone.norm=task"
            )

    @property
    def title(self) -> str:
        return self.model.rpartition("/")[2]

    def build(
        self, channels: int, image_size: int, generator: torch.Generator, materialise: bool = True
    ) -> "TimmBackbone":
        return TimmBackbone(self, channels, image_size, generator, materialise)


class TimmBackbone(Backbone):
    """The pooled features that timm's model gives its classifier, [T, n, C, H, W] in [0, 1] -> [T, n, d].

    Images are first normalised by the mean and deviation of the model's published weights. The model is always in
    evaluation mode: no dropout and no stochastic depth. Batch norm uses each task's own statistics (norm=task; it then
    takes one task at a time) or those of the weights (norm=fixed). Frozen groups are buffers. Initial values are a
    function of the generator's seed, or of the weights.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, config: TimmConfig, channels: int, image_size: int, generator: torch.Generator, materialise: bool = True
    ) -> None:
        super().__init__()
        timm = import_timm()
        self.config, self.channels = config, channels
        self.net = _created(timm, config, channels, image_size, generator.initial_seed(), materialise)
        facts = self.net.pretrained_cfg
        for name, key in (("mean", "mean"), ("deviation", "std")):
            values = torch.tensor(facts[key])
            values = values if len(values) == channels else values.mean().expand(channels)
            self.register_buffer(name, values[:, None, None].clone())
        self.net.pretrained_cfg = {}  # it may hold a second copy of the weights
        self._freeze(timm)
        self.by_batch = config.norm == "task" and use_batch_statistics(self.net)
        for module in self.net.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = config.attention == "fused"  # pyright: ignore[reportAttributeAccessIssue]
        self.train()

    def train(self, mode: bool = True) -> "TimmBackbone":
        """The model itself stays in evaluation mode: see the class."""
        super().train(mode)
        self.net.eval()
        return self

    def checkpoint_blocks(self) -> None:
        """Turns on timm's own checkpointing; ConfigError where the model has none."""
        try:
            self.net.set_grad_checkpointing(True)
        except (AssertionError, AttributeError, NotImplementedError):
            raise ConfigError(
                f"memory.checkpoint=block: backbone.model={self.config.model} cannot run its blocks twice in timm; "
                "leave memory.checkpoint=none"
            ) from None
        super().checkpoint_blocks()

    @property
    def mixes_images(self) -> bool:
        return self.by_batch

    def features(self, image_size: int) -> int:
        """d, from a pass of the model on meta tensors; ConfigError where it does not take such images."""
        tensors = [*self.net.named_parameters(), *self.net.named_buffers()]
        shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors}
        images = torch.empty(2, self.channels, image_size, image_size, device="meta")
        try:
            z = functional_call(self.net, shapes, (images,))
        except (AssertionError, RuntimeError, ValueError, TypeError, IndexError) as error:
            raise ConfigError(
                f"backbone.model={self.config.model} does not take images of {self.channels} channels and "
                f"{image_size}x{image_size} pixels: {_line(error)}; choose another model or image size"
            ) from None
        if z.dim() != 2:
            raise ConfigError(
                f"backbone.model={self.config.model} pools to {tuple(z.shape[1:])} an image, not to one vector; "
                "choose another model"
            )
        return z.shape[1]

    def forward(self, images: Tensor, keys: Keys | None = None) -> Tensor:
        return by_tasks(self.net, (images - self.mean) / self.deviation, alone=self.by_batch)

    def _freeze(self, timm: Any) -> None:
        groups = timm.models.group_parameters(self.net, self.net.group_matcher(coarse=True))
        groups = [groups[key] for key in sorted(groups)]
        if self.config.frozen >= len(groups):
            raise ConfigError(
                f"backbone.frozen={self.config.frozen}: backbone.model={self.config.model} has {len(groups)} groups of "
                f"layers, and one at least must learn; set backbone.frozen to {len(groups) - 1} or less"
            )
        for name in [name for group in groups[: self.config.frozen] for name in group]:
            path, _, leaf = name.rpartition(".")
            module = self.net.get_submodule(path)
            weight = module.get_parameter(leaf).detach()
            delattr(module, leaf)
            module.register_buffer(leaf, weight)


def import_timm() -> Any:
    """timm; ConfigError where it is not installed or does not import."""
    try:
        import_torchvision()
        return importlib.import_module("timm")
    except ImportError as error:
        raise ConfigError(
            f"backbone=timm needs timm, which does not import ({_line(error)}): run `pip install 'memmeta[timm]'`"
        ) from None


def _created(timm: Any, config: TimmConfig, channels: int, image_size: int, seed: int, materialise: bool) -> Any:
    """The model without its classifier, with its weights if materialised."""
    name = config.model
    if ":" not in name and not timm.is_model(name):
        raise ConfigError(f"backbone.model={name} is no model of timm{closest(name, timm.list_models())}")
    if config.weights is not None and not home_path(config.weights).is_file():
        what = "is no file" if home_path(config.weights).exists() else "does not exist"
        raise ConfigError(f"backbone.weights={config.weights} {what}: name a file of weights")
    options: dict[str, Any] = {"num_classes": 0, "in_chans": channels}
    facts = timm.get_pretrained_cfg(name, allow_unregistered=True) if ":" not in name else None
    if facts is not None and facts.fixed_input_size:
        options["img_size"] = image_size
    fresh = _seeded(timm, name, seed, options)
    if not materialise or not (config.pretrained or config.weights):
        return fresh
    options["pretrained"] = True
    if config.weights is not None:
        options["pretrained_cfg_overlay"] = {
            "state_dict": read_weights(config.weights, fresh.state_dict().keys()),
            "custom_load": False,
        }
    source = f"backbone.weights={config.weights}" if config.weights else "backbone.pretrained=true"
    try:
        net = _seeded(timm, name, seed, options)
    except Exception as error:  # noqa: BLE001 - of the hub's client, the network, the file's keys and shapes
        hint = "" if config.weights else "; fetch them on another machine and set backbone.weights=FILE"
        raise ConfigError(f"{source}: the weights of {name} cannot be loaded: {_line(error)}{hint}") from None
    missing = [key for key, value in net.named_parameters() if _untouched(value, fresh.get_parameter(key))]
    if missing:
        others = f"{missing[0]} and {len(missing) - 1} others are not among them"
        raise ConfigError(f"{source}: these are not the weights of {name}: {others}")
    return net


def _seeded(timm: Any, name: str, seed: int, options: dict[str, Any]) -> Any:
    """The model with initial values from `seed`. torch's global generator, which timm draws from, is restored."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return timm.create_model(name, **options)


def _untouched(loaded: Tensor, fresh: Tensor) -> bool:
    """Whether these are still the random initial values. Of constant initial values nothing can be said: False."""
    return torch.equal(loaded, fresh) and bool((fresh != fresh.flatten()[0]).any())


def _line(error: Exception) -> str:
    """The first line of a message, without the heading that torch puts first where weights do not fit."""
    lines = [line.strip() for line in str(error).splitlines() if not line.startswith("Error(s) in loading")]
    return (lines or [""])[0] or type(error).__name__
