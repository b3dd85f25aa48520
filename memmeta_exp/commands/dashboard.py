"""`memmeta dashboard project=NAME`: the W&B workspace and report of a project, saved online or written as JSON."""

from pathlib import Path

from memmeta_exp.commands.arguments import parse
from memmeta_exp.config import ConfigError
from memmeta_exp.tracking.wandb_run import default_entity, first_line
from memmeta_exp.tracking.workspace import Dashboard
from memmeta_exp.utils.errors import RunError

HELP = """memmeta dashboard project=NAME [entity=NAME] [out=FILE]
memmeta dashboard project=NAME offline=true [entity=NAME] [out=FILE]

The first saves a workspace and a report of a W&B project (accuracy, convergence, memory, solver health, time, cost), as
a new view and a new report each time, and prints their addresses; entity is yours by default. The second needs no
account and no network: it writes both as JSON, to dashboard_NAME.json by default. out=FILE writes that online too."""
FORBIDDEN = "/\\#?%:"  # in names of W&B projects
TIMEOUT_S = 4.0


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(HELP)
        return 0
    options = parse(arguments, {"project": None, "entity": None, "offline": "false", "out": None})
    project, offline = _project(options["project"]), _true(options["offline"])
    entity, out = options["entity"] or "", options["out"]
    if out or offline:
        file = Path(out or f"dashboard_{project}.json")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(Dashboard(project, entity).to_json(), encoding="utf-8")
        print(f"dashboard: {file}", flush=True)
    return 0 if offline else _save(project, entity)


def _project(name: str | None) -> str:
    if name is None:
        raise ConfigError("dashboard of which project? Name it: memmeta dashboard project=memmeta")
    if any(character in FORBIDDEN for character in name):
        raise ConfigError(f"project={name} is no name of a W&B project: none of {' '.join(FORBIDDEN)} may be in it")
    return name


def _true(value: str | None) -> bool:
    if value not in ("true", "false"):
        raise ConfigError(f"offline={value} is unknown: use true or false")
    return value == "true"


def _save(project: str, entity: str) -> int:
    instead = (
        f"check the network and `wandb login`, or write it as a file: memmeta dashboard project={project} offline=true"
    )
    try:
        mine = default_entity(TIMEOUT_S)
    except RunError as error:
        raise RunError(f"{error}; {instead}") from None
    try:
        workspace, report = Dashboard(project, entity or mine).save()
    except Exception as error:  # noqa: BLE001 - whatever W&B's trouble is, it is one line
        raise RunError(f"W&B did not save the dashboard ({first_line(error)}); {instead}") from None
    print(f"workspace: {workspace}\nreport: {report}", flush=True)
    return 0
