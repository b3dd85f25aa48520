"""Addresses and hashes of the published files.

Every address and hash is from the public source named beside it; none was computed here. If no source has the hash of a
file, `record` is the repository's listing, from which the hash is read at download.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class RemoteFile:
    """One file and its addresses. bytes: its size; None: unknown. hashes: the known ones, "md5:.." or "sha256:..".
    record: address of the repository's JSON with checksums and sizes, if no hash is known. at_most: most bytes that are
    accepted if the size is unknown."""

    name: str
    urls: tuple[str, ...]
    bytes: int | None = None
    hashes: tuple[str, ...] = ()
    record: str | None = None
    at_most: int = 2**30

    @property
    def most(self) -> int:
        """The size of the file, or its upper limit."""
        return self.bytes or self.at_most


@dataclass(frozen=True)
class Release:
    """The files of a dataset from one publisher."""

    publisher: str
    files: tuple[RemoteFile, ...]


def _drive(identifier: str) -> str:
    """The Google Drive address of a file that skips the warning page for large files (as in PyG's LINKXDataset)."""
    return f"https://drive.usercontent.google.com/download?id={identifier}&export=download&confirm=t"


_ZENODO = "https://zenodo.org/record/7978538/files"  # learn2learn, vision/datasets/*.py
_ZENODO_RECORD = "https://zenodo.org/api/records/7978538"

# torchmeta 1.8.0, datasets/cifar100/base.py, and torchvision: address and MD5; Keras, datasets/cifar100.py: SHA-256;
# the size is what Keras's loader prints;
# cave.cs.toronto.edu is where the official address redirects to; PaddlePaddle, dataset/cifar.py: the mirror
# with the same MD5.
_CIFAR100 = RemoteFile(
    "cifar-100-python.tar.gz",
    (
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        "https://cave.cs.toronto.edu/kriz/cifar-100-python.tar.gz",
        "https://dataset.bj.bcebos.com/cifar/cifar-100-python.tar.gz",
    ),
    169_001_437,
    hashes=(
        "sha256:85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
        "md5:eb9058c3a382ffc7106e4002c42a8d85",
    ),
)


def _learn2learn_mini(split: str, bytes_: int, md5: str, dropbox: str, drive: str) -> RemoteFile:
    """learn2learn, vision/datasets/mini_imagenet.py: the three addresses; size and MD5 as Zenodo's record 7978538 lists
    them, quoted in a public loader of these files (`_ZENODO_FILES`)."""
    name = f"mini-imagenet-cache-{split}.pkl"
    urls = (f"{_ZENODO}/{name}", f"https://www.dropbox.com/s/{dropbox}/{name}?dl=1", _drive(drive))
    return RemoteFile(name, urls, bytes_, (f"md5:{md5}",))


_MINI = (
    Release(
        "learn2learn",
        (
            _learn2learn_mini(
                "train",
                1145461190,
                "ee4e80dc7b716f3ceec891d199b5277a",
                "9g8c6w345s2ek03",
                "1I3itTXpXxGV68olxM5roceUMG8itH9Xj",
            ),
            _learn2learn_mini(
                "validation",
                292661258,
                "c1145a80890b88d54a67d6e0022d53a5",
                "ip1b7se3gij3r1b",
                "1KY5e491bkLFqJDp0-UWou3463Mo8AOco",
            ),
            _learn2learn_mini(
                "test",
                353647539,
                "389b6c59d348b2e1ae9610f00a5e6724",
                "ye9jeb5tyz0x01b",
                "1wpmY-hmiJUUlRBkO9ZDCXAcIpHEFdOhD",
            ),
        ),
    ),
    # few-shot-ssl-public, README (address); torchmeta 1.8.0, datasets/miniimagenet.py (address and MD5); PaddleFSL,
    # vision/datasets (the second address, the same MD5).
    Release(
        "few-shot-ssl-public",
        (
            RemoteFile(
                "mini-imagenet.tar.gz",
                (_drive("16V_ZlkW4SsnNDtnGmaBRq2OoPmUOc5mY"), _drive("1LLUjwSUpWGSWizl3JZxd08V30_dIaRBx")),
                hashes=("md5:b38f1eb4251fb9459ecc8e7febf9b2eb",),
                at_most=2**32,
            ),
        ),
    ),
)

_TIERED = (
    # few-shot-ssl-public, README (address); torchmeta 1.8.0, datasets/tieredimagenet.py (address and MD5).
    Release(
        "few-shot-ssl-public",
        (
            RemoteFile(
                "tiered-imagenet.tar",
                (_drive("1g1aIDy2Ar_MViF2gDXFYDBTR-HYecV07"),),
                hashes=("md5:e07e811b9f29362d159a9edd0d838c62",),
                at_most=2**35,
            ),
        ),
    ),
    # learn2learn, vision/datasets/tiered_imagenet.py: the addresses; hashes from Zenodo's record as it is served.
    Release(
        "learn2learn",
        tuple(
            RemoteFile(name, (f"{_ZENODO}/{name}",), record=_ZENODO_RECORD, at_most=2**35)
            for split in ("train", "val", "test")
            for name in (f"tiered-imagenet-{split}_labels.pkl", f"tiered-imagenet-{split}_images_png.pkl")
        ),
    ),
)


def _omniglot(part: str, md5: str) -> RemoteFile:
    """torchmeta 1.8.0, datasets/omniglot.py, and torchvision: address and MD5; the second is the repository's page."""
    name = f"images_{part}.zip"
    urls = (
        f"https://raw.githubusercontent.com/brendenlake/omniglot/master/python/{name}",
        f"https://github.com/brendenlake/omniglot/raw/master/python/{name}",
    )
    return RemoteFile(name, urls, hashes=(f"md5:{md5}",), at_most=2**26)


RELEASES: dict[str, tuple[Release, ...]] = {
    "cifar100": (Release("the author", (_CIFAR100,)),),
    "miniimagenet": _MINI,
    "tieredimagenet": _TIERED,
    "omniglot": (
        Release(
            "the authors",
            (
                _omniglot("background", "68d2efa1b9178cc56df9314c21c6e718"),
                _omniglot("evaluation", "6b91aef0f799c5bb55b94e3f2daec811"),
            ),
        ),
    ),
}
"""The releases by the name that `memmeta data fetch` takes, tried in this order."""

PAGES = {
    "cifar100": "https://www.cs.toronto.edu/~kriz/cifar.html",
    "miniimagenet": "https://zenodo.org/record/7978538",
    "tieredimagenet": "https://github.com/renmengye/few-shot-ssl-public",
    "omniglot": "https://github.com/brendenlake/omniglot",
}
"""Pages from which to download the files by hand."""
