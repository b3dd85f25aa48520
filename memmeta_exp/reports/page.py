"""Renders report.html.j2 to one self-contained HTML page. Names and reasons are untrusted, so they are escaped."""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from memmeta_exp.reports.figures import Picture
from memmeta_exp.reports.runs import Run
from memmeta_exp.reports.table import Table

TEMPLATE = "report.html.j2"


def render(
    title: str,
    runs: Sequence[Run],
    tables: Sequence[Table],
    pictures: Sequence[Picture],
    headline: Sequence[str],
    notes: Sequence[str],
) -> str:
    """The HTML page. headline: the main results, one sentence each. notes: what could not be made, and why."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(
        title=title,
        headline=headline,
        notes=notes,
        pictures=pictures,
        first=next((table for table in tables if table.name == "comparison"), None),
        results=[table for table in tables if table.name not in ("comparison", "unfinished", "commands")],
        unfinished=next((table for table in tables if table.name == "unfinished"), None),
        commands=next((table for table in tables if table.name == "commands"), None),
        software=_software(runs),
        made_by=_made_by(),
    )


def _software(runs: Sequence[Run]) -> list[tuple[str, int]]:
    """Each distinct set of package versions, with the number of runs that had it."""
    counts: dict[str, int] = {}
    for run in runs:
        if run.env:
            versions = {"python": run.env.get("python"), **(run.env.get("versions") or {})}
            text = ", ".join(f"{name} {number}" for name, number in versions.items() if number)
            counts[text] = counts.get(text, 0) + 1
    return list(counts.items())


def _made_by() -> str:
    try:
        return f"memmeta {version('memmeta')}"
    except PackageNotFoundError:
        return "memmeta"
