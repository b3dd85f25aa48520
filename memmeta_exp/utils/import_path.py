"""Where a user's own modules are looked for, and what to say of one that does not import."""

import importlib
import os
import sys
import traceback


def search_current_folder() -> None:
    """From now on modules are also looked for in the current folder, after everywhere else. New files count."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)
    importlib.invalidate_caches()


def why_not_imported(module: str, error: BaseException) -> str:
    """One clause that follows the name of `module`, whose import raised `error`: what is wrong, and what to do."""
    if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
        return (
            f"is not found: there is no module {error.name} here; install it, start in the folder that holds it, or "
            "put that folder on PYTHONPATH"
        )
    text = " ".join(str(error).split())
    return f"cannot be imported: {type(error).__name__}{f': {text}' if text else ''}{_place(error)}"


def _place(error: BaseException) -> str:
    """The file and line of the statement that raised `error` while its module was imported."""
    if isinstance(error, SyntaxError):  # which says it itself
        return ""
    places = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.name == "<module>"]
    return f" ({os.path.basename(places[-1].filename)}, line {places[-1].lineno})" if places else ""
