"""Makes torchmeta 1.8.0 (2021) importable with a current torch and torchvision. Import it through `import_torchmeta`
only; `torchmeta_asset` reads its split lists without importing it."""

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

from memmeta_exp.utils.errors import DataError
from memmeta_exp.utils.reading import read_json
from memmeta_exp.utils.torchvision_compat import import_torchvision

_DROPPED_NAMES = ("_get_confirm_token", "_save_response_content")


def import_torchmeta(module: str) -> ModuleType:
    """The torchmeta module `module`. Raises DataError if torchmeta, or something it imports, is not installed."""
    try:
        import_torchvision()
        _restore_dropped_names()
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(
            f"cifar_fs and fc100 are read through torchmeta, which does not import ({error}): "
            "run `pip install --no-deps torchmeta==1.8.0`"
        ) from None


def torchmeta_asset(*path: str) -> Any:
    """The content of a JSON file in torchmeta's package, such as ("omniglot", "val.json"). Raises DataError if
    torchmeta is not installed."""
    spec = importlib.util.find_spec("torchmeta")
    for location in (spec.submodule_search_locations or []) if spec else []:
        file = Path(location, "datasets", "assets", *path)
        if file.is_file():
            return read_json(file)
    raise DataError(
        "the split lists are torchmeta's, which is not installed: run `pip install --no-deps torchmeta==1.8.0`"
    )


def _restore_dropped_names() -> None:
    """Adds two private functions to torchvision that torchmeta imports and torchvision has removed (Google Drive)."""
    helpers = importlib.import_module("torchvision.datasets.utils")
    for name in _DROPPED_NAMES:
        if not hasattr(helpers, name):
            setattr(helpers, name, _no_google_drive)


def _no_google_drive(*_args: object) -> None:
    raise DataError("torchmeta's downloads from Google Drive no longer work: download the file by hand")
