"""The report of runs and sweeps (in the making: it lists what it was given)."""

from pathlib import Path


def write_report(folders: list[Path], out: Path) -> Path:
    """Makes the report of `folders` in `out`; returns the path of report.html."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.html").write_text("<ul>" + "".join(f"<li>{folder}</li>" for folder in folders) + "</ul>\n")
    return out / "report.html"
