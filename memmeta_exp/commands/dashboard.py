"""`memmeta dashboard project=NAME`: makes a W&B workspace and report of a project, online or as JSON."""

from pathlib import Path

from memmeta_exp.commands.arguments import parse
from memmeta_exp.config import ConfigError
from memmeta_exp.tracking.wandb_run import default_entity, first_line
from memmeta_exp.tracking.workspace import Dashboard
from memmeta_exp.utils.errors import RunError

HELP = """memmeta dashboard project=NAME [entity=NAME] [out=FILE]
memmeta dashboard project=NAME offline=true [entity=NAME] [out=FILE]

The first form saves a new workspace view and a new report of a W&B project (accuracy, convergence, memory, solver
health, time, cost) and prints their addresses. entity is your own by default. The second form needs no account and no
network: it writes both as JSON to dashboard_NAME.json. out=FILE names the JSON file, in the first form too."""
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
        raise ConfigError("dashboard needs a W&B project: name it, as in memmeta dashboard project=memmeta")
    if any(character in FORBIDDEN for character in name):
        raise ConfigError(f"project={name} is not a W&B project name: leave out {' '.join(FORBIDDEN)}")
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
    except Exception as error:  # noqa: BLE001 - W&B may raise anything; it becomes one line
        raise RunError(f"W&B did not save the dashboard ({first_line(error)}); {instead}") from None
    print(f"workspace: {workspace}\nreport: {report}", flush=True)
    return 0
