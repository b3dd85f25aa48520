"""Reference values of the published datasets for `memmeta data verify`, each with its source."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of each channel of a split, in units of [0, 1]; () if the source has none. tolerance:
    the allowed absolute difference."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    tolerance: float
    source: str


def _exact(mean: tuple[float, ...], std: tuple[float, ...]) -> Statistics:
    return Statistics(mean, std, 1e-6, "the published pixels of CIFAR-100 in torchmeta's split")


# Two releases resized images with different programs, and their normalisation constants differ by 0.008: hence the
# tolerance. Exchanged red and blue would differ by 0.06.
_MINI = Statistics(
    (120.39586422 / 255, 115.59361427 / 255, 104.54012653 / 255),
    (70.68188272 / 255, 68.27635443 / 255, 72.54505529 / 255),
    0.02,
    "MetaOptNet, data/mini_imagenet.py",
)
# tieredImageNet is large enough to have about the means of ImageNet; the mean of blue is 0.08 below that of red.
_TIERED = Statistics((0.485, 0.456, 0.406), (), 0.03, "ImageNet as a whole, of which it is a part")

STATISTICS: dict[tuple[str, str], Statistics] = {
    ("cifar_fs", "train"): _exact((0.508796, 0.491734, 0.443741), (0.267376, 0.256383, 0.277213)),
    ("cifar_fs", "val"): _exact((0.486688, 0.478559, 0.439137), (0.26251, 0.251339, 0.26859)),
    ("cifar_fs", "test"): _exact((0.519314, 0.477051, 0.434163), (0.270852, 0.260944, 0.279347)),
    ("fc100", "train"): _exact((0.51821, 0.497561, 0.458364), (0.274252, 0.263272, 0.287416)),
    ("fc100", "val"): _exact((0.493835, 0.464883, 0.400021), (0.246306, 0.237814, 0.24401)),
    ("fc100", "test"): _exact((0.488346, 0.475882, 0.430331), (0.265598, 0.252511, 0.26771)),
    ("miniimagenet", "train"): _MINI,
    **{("tieredimagenet", split): _TIERED for split in ("train", "val", "test")},
}

_RAVI, _TORCHMETA = "Ravi and Larochelle's lists", "torchmeta's lists"

# SHA-256 of the sorted class names of a split, one per line.
CLASSES: dict[tuple[str, str], tuple[str, str]] = {
    ("miniimagenet", "train"): ("0f107a65ea80bf1e1d1e5e18d368f0d007e3e4c1885f33cc071363997e3814e9", _RAVI),
    ("miniimagenet", "val"): ("489f8af43b2560094c8766f36213842de429622b67b5e9fed1277ebb99806f7d", _RAVI),
    ("miniimagenet", "test"): ("0db5287e659efd3391c100c88f40df0f66510dfa9be94b8d0ecc66498f4e9810", _RAVI),
    ("cifar_fs", "train"): ("eece78e786672f955d0e3a4790fb1840ef2f36bb18c1f067fd12a3f7e2a8b3be", _TORCHMETA),
    ("cifar_fs", "val"): ("f842c9fe5a875dd94edf77a43a2ca57ea8199539c895f561b06e0fc3cc7e996a", _TORCHMETA),
    ("cifar_fs", "test"): ("6f9ddbccdb65fa1d6375c00b859e9edcb16c79c5a39709b6a1591da11aa7afa4", _TORCHMETA),
    ("fc100", "train"): ("52bf04dd5cab87c611c00a28d807ecaaccb6d382bd0d96ee9ca91d123110e14e", _TORCHMETA),
    ("fc100", "val"): ("801fce73c024749458fe09e617dc3cda59e105eff24a08c3e46f6df8d67c3ad3", _TORCHMETA),
    ("fc100", "test"): ("181a5d7cee7197d1e86f3158727dfeb5f8d9692a1195e8aba6359de60219dd57", _TORCHMETA),
}

COUNTS = {
    "cifar_fs": "Bertinetto et al. 2019",
    "fc100": "Oreshkin et al. 2018",
    "miniimagenet": "Ravi and Larochelle 2017",
    "tieredimagenet": "Ren et al. 2018, learn2learn's description",
    "omniglot": "Vinyals et al. 2016 as in torchmeta, 20 drawers",
    "glyphs": "this package",
    "synthetic": "the configuration",
    "folder": "the split file",
}
