"""The `dataset` section: one dataclass for each dataset, with what is known of it before it is loaded."""

from dataclasses import dataclass, field

from memmeta_exp.config.facts import SPLITS, DatasetFacts
from memmeta_exp.config.folder import folder_facts
from memmeta_exp.config.validation import PATH, at_least, at_most, one_of
from memmeta_exp.utils.errors import ConfigError

SYNTHETIC_BYTES = 2**35


@dataclass(frozen=True)
class GlyphsConfig:
    """Characters of many scripts drawn from the fonts that matplotlib ships; val and test are new scripts."""

    name: str = "glyphs"

    def facts(self) -> DatasetFacts:
        return DatasetFacts({"train": 323, "val": 67, "test": 136}, 40, 1, 28)


@dataclass(frozen=True)
class CifarFsConfig:
    """CIFAR-FS (Bertinetto et al. 2019): CIFAR-100 classes split 64/16/20 at random."""

    name: str = "cifar_fs"

    def facts(self) -> DatasetFacts:
        return DatasetFacts({"train": 64, "val": 16, "test": 20}, 600, 3, 32)


@dataclass(frozen=True)
class Fc100Config:
    """FC100 (Oreshkin et al. 2018): CIFAR-100 classes split 60/20/20 by superclass."""

    name: str = "fc100"

    def facts(self) -> DatasetFacts:
        return DatasetFacts({"train": 60, "val": 20, "test": 20}, 600, 3, 32)


@dataclass(frozen=True)
class MiniImagenetConfig:
    """miniImageNet (Vinyals et al. 2016, split of Ravi and Larochelle 2017): 64/16/20 classes of ImageNet."""

    name: str = "miniimagenet"

    def facts(self) -> DatasetFacts:
        return DatasetFacts({"train": 64, "val": 16, "test": 20}, 600, 3, 84)


@dataclass(frozen=True)
class TieredImagenetConfig:
    """tieredImageNet (Ren et al. 2018): 351/97/160 classes of ImageNet by superclass, 732 to 1300 images each."""

    name: str = "tieredimagenet"

    def facts(self) -> DatasetFacts:
        totals = {"train": 448695, "val": 124261, "test": 206209}
        return DatasetFacts({"train": 351, "val": 97, "test": 160}, 732, 3, 84, totals)


@dataclass(frozen=True)
class OmniglotConfig:
    """Omniglot (Lake et al. 2015) at 28x28, split of Vinyals et al. 2016: 1028/172/423 characters, 20 images each.

    rotations: whether those by 90, 180 and 270 degrees count as classes of their own.
    """

    name: str = "omniglot"
    rotations: bool = False

    def facts(self) -> DatasetFacts:
        times = 4 if self.rotations else 1
        return DatasetFacts({"train": 1028 * times, "val": 172 * times, "test": 423 * times}, 20, 1, 28)


@dataclass(frozen=True)
class FolderConfig:
    """Your own images: a folder of folders, one a class, and a file that says which classes are train, val and test.

    path: the folder of class folders; split_file: JSON {"train": [class folders], "val": .., "test": ..} or CSV with
    the header class,split (null: split.json or split.csv in `path`); image_size: images are resized to squares of it;
    channels: 3, or 1 for grey; skip_damaged: leave out images that cannot be read, and say how many (false: list them).
    """

    name: str = "folder"
    path: str | None = field(default=None, metadata=PATH)
    split_file: str | None = field(default=None, metadata=PATH)
    image_size: int = 84
    channels: int = 3
    skip_damaged: bool = False

    def __post_init__(self) -> None:
        at_least("dataset.image_size", self.image_size, 16)
        at_most("dataset.image_size", self.image_size, 1024)
        one_of("dataset.channels", self.channels, (3, 1), use="3 (colour) or 1 (grey)")

    def facts(self) -> DatasetFacts:
        return folder_facts(self.path, self.split_file, self.channels, self.image_size)


@dataclass(frozen=True)
class SyntheticConfig:
    """Random images with a class-dependent mean: nothing to read from disk, for speed and memory at any size.

    classes: of each split; images_per_class: how many a class has; channels: of an image; image_size: an image's side,
    in pixels.
    """

    name: str = "synthetic"
    classes: int = 20
    images_per_class: int = 40
    channels: int = 3
    image_size: int = 32

    def __post_init__(self) -> None:
        for key in ("classes", "images_per_class", "channels"):
            at_least(f"dataset.{key}", getattr(self, key), 1)
        at_least("dataset.image_size", self.image_size, 16)
        pixels = self.classes * self.images_per_class * self.channels * self.image_size**2
        if pixels > SYNTHETIC_BYTES:
            raise ConfigError(
                f"dataset=synthetic would take {pixels / 2**30:.0f} GiB a split; lower dataset.classes, "
                "images_per_class, channels or image_size to stay below 32 GiB"
            )

    def facts(self) -> DatasetFacts:
        return DatasetFacts(dict.fromkeys(SPLITS, self.classes), self.images_per_class, self.channels, self.image_size)


DATASETS: dict[str, type] = {
    "glyphs": GlyphsConfig,
    "cifar_fs": CifarFsConfig,
    "fc100": Fc100Config,
    "miniimagenet": MiniImagenetConfig,
    "tieredimagenet": TieredImagenetConfig,
    "omniglot": OmniglotConfig,
    "folder": FolderConfig,
    "synthetic": SyntheticConfig,
}
