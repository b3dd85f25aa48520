"""The search path of a user's own modules, and error messages for modules that cannot be imported."""

import importlib
import os
import sys
import traceback


def search_current_folder() -> None:
    """Appends the current folder to Python's module search path, and makes new files in it importable."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)
    importlib.invalidate_caches()


def why_not_imported(module: str, error: BaseException) -> str:
    """The rest of an error message after the name of `module`, whose import raised `error`: the cause and the fix."""
    if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
        return (
            f"is not found: there is no module {error.name}; install it, start memmeta in the folder that contains it, "
            "or add that folder to PYTHONPATH"
        )
    text = " ".join(str(error).split())
    return f"cannot be imported: {type(error).__name__}{f': {text}' if text else ''}{_place(error)}"


def _place(error: BaseException) -> str:
    """The file and line of the statement that raised `error` while its module was imported."""
    if isinstance(error, SyntaxError):  # its text has the place
        return ""
    places = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.name == "<module>"]
    return f" ({os.path.basename(places[-1].filename)}, line {places[-1].lineno})" if places else ""
