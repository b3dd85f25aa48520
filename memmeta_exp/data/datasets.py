"""The `dataset` section: one dataclass per image dataset, with its facts and its loader.

Modules that read images are imported only when images are read, not for a configuration."""

from dataclasses import dataclass
from typing import Any

from memmeta_exp.config.components import DatasetConfig
from memmeta_exp.config.facts import SPLITS, DatasetFacts
from memmeta_exp.config.registry import register
from memmeta_exp.config.section import option
from memmeta_exp.data.folder import folder_facts
from memmeta_exp.data.loading import resolve_root
from memmeta_exp.utils.errors import ConfigError

SYNTHETIC_BYTES = 2**35


class _Cifar100(DatasetConfig):
    """Classes of CIFAR-100, from DATA_ROOT/cifar100/data.hdf5 with torchmeta's splits."""

    def load(self, split: str, data_root: str | None) -> Any:
        from memmeta_exp.data import cifar100_torchmeta

        return cifar100_torchmeta.load(self.name, split, resolve_root(data_root, self.name))

    def require(self, data_root: str | None) -> None:
        from memmeta_exp.data import cifar100_torchmeta

        cifar100_torchmeta.require(self.name, resolve_root(data_root, self.name))


class _Stored(DatasetConfig):
    """A dataset in DATA_ROOT/NAME, converted once to a store."""

    def load(self, split: str, data_root: str | None) -> Any:
        return self.store(data_root).load(split)

    def require(self, data_root: str | None) -> None:
        from memmeta_exp.data import stored_datasets

        stored_datasets.require(self.name, resolve_root(data_root, self.name))

    def store(self, data_root: str | None) -> Any:
        from memmeta_exp.data import stored_datasets

        return stored_datasets.open_store(self.name, resolve_root(data_root, self.name))


@register
@dataclass(frozen=True)
class GlyphsConfig(DatasetConfig):
    """Characters of eleven scripts drawn from matplotlib's fonts; no download. val and test have their own scripts."""

    name: str = "glyphs"

    def facts(self) -> DatasetFacts:
        return DatasetFacts({"train": 323, "val": 67, "test": 136}, 40, 1, 28)

    def load(self, split: str, data_root: str | None) -> Any:
        from memmeta_exp.data import glyphs

        return glyphs.load(split)


@register
@dataclass(frozen=True)
class CifarFsConfig(_Cifar100):
    """CIFAR-FS (Bertinetto et al. 2019): CIFAR-100 classes split 64/16/20 at random."""

    name: str = "cifar_fs"

    def facts(self) -> DatasetFacts:
        return DatasetFacts({"train": 64, "val": 16, "test": 20}, 600, 3, 32)


@register
@dataclass(frozen=True)
class Fc100Config(_Cifar100):
    """FC100 (Oreshkin et al. 2018): CIFAR-100 classes split 60/20/20 by superclass."""

    name: str = "fc100"

    def facts(self) -> DatasetFacts:
        return DatasetFacts({"train": 60, "val": 20, "test": 20}, 600, 3, 32)


@register
@dataclass(frozen=True)
class MiniImagenetConfig(_Stored):
    """miniImageNet (Vinyals et al. 2016, split of Ravi and Larochelle 2017): 64/16/20 classes of ImageNet."""

    name: str = "miniimagenet"

    def facts(self) -> DatasetFacts:
        return DatasetFacts({"train": 64, "val": 16, "test": 20}, 600, 3, 84)


@register
@dataclass(frozen=True)
class TieredImagenetConfig(_Stored):
    """tieredImageNet (Ren et al. 2018): 351/97/160 classes of ImageNet by superclass, 732 to 1300 images each."""

    name: str = "tieredimagenet"

    def facts(self) -> DatasetFacts:
        totals = {"train": 448695, "val": 124261, "test": 206209}
        return DatasetFacts({"train": 351, "val": 97, "test": 160}, 732, 3, 84, totals)


@register
@dataclass(frozen=True)
class OmniglotConfig(_Stored):
    """Omniglot (Lake et al. 2015) at 28x28, split of Vinyals et al. 2016: 1028/172/423 characters, 20 images each."""

    name: str = "omniglot"
    rotations: bool = option(False, "add the rotations by 90, 180 and 270 degrees as separate classes")

    def facts(self) -> DatasetFacts:
        times = 4 if self.rotations else 1
        return DatasetFacts({"train": 1028 * times, "val": 172 * times, "test": 423 * times}, 20, 1, 28)

    def load(self, split: str, data_root: str | None) -> Any:
        from memmeta_exp.data import stored_datasets

        images = super().load(split, data_root)
        return stored_datasets.rotated(images) if self.rotations else images


@register
@dataclass(frozen=True)
class FolderConfig(DatasetConfig):
    """Your own images: one folder per class, and a split file that assigns the classes to train, val and test."""

    name: str = "folder"
    path: str | None = option(None, "folder that contains the class folders", path=True)
    split_file: str | None = option(
        None,
        'JSON {"train": [class folders], "val": .., "test": ..} or CSV with the header class,split; null: split.json '
        "or split.csv in dataset.path",
        path=True,
    )
    image_size: int = option(84, "side in pixels of the squares that images are resized to", at_least=16, at_most=1024)
    channels: int = option(3, "3 (colour) or 1 (grey)", choices=(3, 1), hint="3 (colour) or 1 (grey)")
    skip_damaged: bool = option(
        False, "true: skip images that cannot be read, and log their number; false: an error that lists them"
    )

    def facts(self) -> DatasetFacts:
        return folder_facts(self.path, self.split_file, self.channels, self.image_size)

    def load(self, split: str, data_root: str | None) -> Any:
        return self.store(data_root).load(split)

    def store(self, data_root: str | None) -> Any:
        from memmeta_exp.data import stored_datasets

        return stored_datasets.folder_store(self)


@register
@dataclass(frozen=True)
class SyntheticConfig(DatasetConfig):
    """Random images with a class-dependent mean, generated in memory: for measurements of speed and memory."""

    name: str = "synthetic"
    classes: int = option(20, "classes of each split", at_least=1)
    images_per_class: int = option(40, "images per class", at_least=1)
    channels: int = option(3, "channels of an image", at_least=1)
    image_size: int = option(32, "side of an image in pixels", at_least=16)

    def check(self) -> None:
        pixels = self.classes * self.images_per_class * self.channels * self.image_size**2
        if pixels > SYNTHETIC_BYTES:
            raise ConfigError(
                f"dataset=synthetic would take {pixels / 2**30:.0f} GiB per split; lower dataset.classes, "
                "images_per_class, channels or image_size to stay below 32 GiB"
            )

    def facts(self) -> DatasetFacts:
        return DatasetFacts(dict.fromkeys(SPLITS, self.classes), self.images_per_class, self.channels, self.image_size)

    def load(self, split: str, data_root: str | None) -> Any:
        from memmeta_exp.data import synthetic

        return synthetic.load(self, split)

    def require(self, data_root: str | None) -> None:
        from memmeta_exp.data import synthetic

        synthetic.require(self)
