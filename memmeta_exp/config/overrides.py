"""Quotes paths in overrides for Hydra's grammar.

The grammar gives `=`, `,`, brackets, quotes and spaces a meaning, and rejects letters beyond ASCII. A path may hold any
of them, so the values of path keys are quoted here before Hydra parses them.
"""

import re
from functools import cache
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from memmeta_exp.utils.errors import ConfigError
from memmeta_exp.utils.path_keys import at_home, home_path, is_path_key

ONE_FOLDER = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.launcher.submitit_folder")
UNREADABLE = (HydraException, ValueError)  # ValueError: a number with too many digits
CHOICE = re.compile(r"\s*choice\s*\((.*)\)\s*", re.DOTALL)


def conf_dir() -> Path:
    """The conf/ folder: inside the package in a wheel, beside the package in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / "conf", package.parent / "conf"):
        if (candidate / "config.yaml").is_file():
            return candidate
    raise ConfigError(f"no conf/config.yaml at {package} or above: the installation is incomplete; reinstall memmeta")


@cache
def parser() -> OverridesParser:
    """Hydra's parser of overrides. It knows the options of every group, which `glob(...)` needs."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())


def quote_paths(override: str, multirun: bool = False) -> str:
    """`override` with the value of a path key quoted if Hydra's grammar needs it.

    In a multirun `KEY=A,B` and `KEY=choice(A,B)` are several paths, unless a file or folder has that whole name.
    """
    key, equals, value = override.partition("=")
    if not is_path_key(key) or value in ("", "null") or _reads_as_itself(override) or _is_quoted(override):
        return override
    paths = [value]
    if multirun and key.lstrip("+") not in ONE_FOLDER and not home_path(value).exists():
        listed = CHOICE.fullmatch(value)
        paths = _separated(listed[1] if listed else value)
    return f"{key}{equals}{','.join(_quoted(key, path) for path in paths)}"


def text_of(override: str) -> str:
    """The value of a single override as text, without the quotes of Hydra's grammar."""
    try:
        value = parser().parse_override(quote_paths(override)).value()
    except UNREADABLE:  # composing reports it
        value = None
    return value if isinstance(value, str) else override.partition("=")[2]


def draws(override: str) -> bool:
    """Whether `override` is an `interval(...)`, from which only a search can draw."""
    try:
        return parser().parse_override(quote_paths(override, multirun=True)).is_interval_sweep()
    except UNREADABLE:
        return False


def _reads_as_itself(override: str) -> bool:
    """Whether Hydra parses the value to exactly its own text."""
    try:
        parsed = parser().parse_override(override)
    except UNREADABLE:
        return False
    return not parsed.is_sweep_override() and parsed.value() == override.partition("=")[2]


def _is_quoted(override: str) -> bool:
    value = override.partition("=")[2].strip()
    if len(value) < 2 or value[0] not in "'\"" or value[-1] != value[0]:
        return False
    try:
        return isinstance(parser().parse_override(override).value(), str)
    except UNREADABLE:
        return False


def _quoted(key: str, path: str) -> str:
    if _is_quoted(f"{key}={path}"):
        return path
    return QuotedString(at_home(f"{key}={path}").partition("=")[2], Quote.single).with_quotes()


def _separated(text: str) -> list[str]:
    """Splits `text` at its commas, except those in quotes and brackets."""
    parts = re.findall(r"(?:'[^']*'|\"[^\"]*\"|\$\{[^}]*\}|\([^()]*\)|\[[^][]*\]|[^,])+", text)
    return [part.strip() for part in parts] if len(parts) > 1 else [text]
