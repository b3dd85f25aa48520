"""`memmeta data`: which datasets there are, which are here and sound, and how to get the others."""

from pathlib import Path

from memmeta_exp.commands.arguments import parse
from memmeta_exp.config import ConfigError
from memmeta_exp.data import registry

HELP = """memmeta data [data_root=DIR] [download=cifar100]

Lists every dataset, whether it is present under data_root ($MEMMETA_DATA by default) and whether its content is that
of the published one, and says what to do for the rest. download=cifar100 fetches CIFAR-100 (cifar_fs, fc100) there."""


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(HELP)
        return 0
    options = parse(arguments, {"data_root": None, "download": None})
    if options["download"] is not None:
        _download(options["download"], options["data_root"])
    for row in registry.status(options["data_root"]):
        verified = {True: ", content verified", False: ", content NOT as published", None: ""}[row.verified]
        print(f"{row.name}: {'present' if row.present else 'not here'}{verified}")
        print(f"    {row.description}\n    {row.detail}")
    return 0


def _download(name: str, data_root: str | None) -> None:
    if name != "cifar100":
        raise ConfigError(f"download={name} is unknown; choose from cifar100")
    from memmeta_exp.data.torchmeta_sets import download_cifar100

    root = registry.resolve_root(data_root, name)
    download_cifar100(Path(root))
