"""The dashboard as code: the same JSON every time, keys that runs log, and saving, with the server stood in for.

python -m tests.tracking.test_workspace > tests/tracking/dashboard.json        (after a change that is meant)
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from memmeta_exp.cli import main
from memmeta_exp.tracking import workspace
from memmeta_exp.tracking.workspace import SECTIONS, Dashboard, metrics
from memmeta_exp.utils.errors import RunError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:wandb_workspaces")
GOLDEN = Path(__file__).with_name("dashboard.json")
DOCS = Path(__file__).parents[2] / "docs"


def golden() -> str:
    """The dashboard of one project, and the library that it is of: other versions may store other fields."""
    made_with = {"wandb_workspaces": version("wandb-workspaces")}
    return json.dumps({**made_with, **json.loads(Dashboard("memmeta", "someone").to_json())}, indent=1) + "\n"


def test_it_is_the_golden_one() -> None:
    stored = json.loads(GOLDEN.read_text())
    if stored["wandb_workspaces"] != version("wandb-workspaces"):
        pytest.skip(f"the golden file is of wandb-workspaces {stored['wandb_workspaces']}")
    assert json.loads(golden()) == stored


def test_nothing_in_it_is_left_to_chance() -> None:
    first, second, other = (Dashboard(project).to_json() for project in ("a", "a", "b"))
    assert first == second
    assert first != other
    found: list[str] = []

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            found.extend(str(value[key]) for key in ("__id__", "id") if value.get(key))
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            collect(item)

    collect(json.loads(first))
    panels = sum(len(section.panels) for section in SECTIONS)
    assert len(found) == len(set(found)) == 2 * panels + len(SECTIONS), "an id each for panels and run sets"


def test_it_has_every_section_and_only_keys_that_are_documented() -> None:
    names = [section.name for section in SECTIONS]
    assert names == ["accuracy", "convergence", "memory", "solver health", "time", "cost"]
    documented = (DOCS / "outputs.md").read_text()
    assert [key for key in metrics() if f"`{key}`" not in documented] == []
    spec = json.loads(Dashboard("p").to_json())["workspace"]["spec"]["section"]
    assert [section["name"] for section in spec["panelBankConfig"]["sections"]] == names
    assert spec["runSets"][0]["grouping"] == [{"name": "group", "section": "run"}], "seeds are one line"


@pytest.fixture
def server(monkeypatch) -> list[tuple[str, dict[str, Any]]]:
    """What was sent to W&B, answered as its server would; no network is touched."""
    import wandb
    import wandb_workspaces.reports.v2.interface as reports
    import wandb_workspaces.workspaces.interface as workspaces
    from wandb_workspaces.workspaces import internal

    sent: list[tuple[str, dict[str, Any]]] = []

    def answer(api: object, query: Any, variables: Any = None) -> dict[str, Any]:
        sent.append((str(query), dict(variables or {})))
        if "spec" not in variables:
            return {"project": {"internalId": "UHJvamVjdA=="} if variables["projectName"] != "nowhere" else None}
        stored = {"id": "Vmlldw==", "name": variables["name"], "displayName": variables["displayName"]}
        stored |= {"project": {"name": "p", "entityName": "me"}, "spec": variables["spec"], "description": ""}
        stored |= {"createdAt": "2026-01-01T00:00:00", "updatedAt": "2026-01-01T00:00:00", "type": "runs"}
        return {"upsertView": {"view": stored, "inserted": True}}

    def api(**_: object) -> object:
        return SimpleNamespace(default_entity="me", projects=lambda entity: [SimpleNamespace(name="p")])

    for module in (reports, internal):
        monkeypatch.setattr(module, "execute_graphql", answer)
    for module in (reports, workspaces):
        monkeypatch.setattr(module, "get_app_url", lambda api: "https://wandb.test")
    monkeypatch.setattr(wandb, "Api", api)
    return sent


def test_online_both_are_saved_in_the_project(server, capfd) -> None:
    assert main(["dashboard", "project=p"]) == 0
    views = {variables["type"]: variables for _, variables in server if "spec" in variables}
    assert set(views) == {"project-view", "runs"}
    for variables in views.values():
        assert (variables["entityName"], variables["projectName"]) == ("me", "p")
    sections = json.loads(views["project-view"]["spec"])["section"]["panelBankConfig"]["sections"]
    assert len(sections) == len(SECTIONS)
    grids = [b for b in json.loads(views["runs"]["spec"])["blocks"] if b["type"] == "panel-grid"]
    assert [g["metadata"]["runSets"][0]["project"]["name"] for g in grids] == ["p"] * len(SECTIONS)
    lines = capfd.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines] == ["workspace", "report"]
    assert all("https://wandb.test/me/p" in line for line in lines)


def test_another_entity_and_a_file_beside(server, tmp_path: Path, capfd) -> None:
    file = tmp_path / "new/dashboard.json"
    assert main(["dashboard", "project=p", "entity=team", f"out={file}"]) == 0
    assert {variables["entityName"] for _, variables in server} == {"team"}
    assert json.loads(file.read_text())["workspace"]["entity"] == "team"
    assert capfd.readouterr().out.splitlines()[0] == f"dashboard: {file}"


def test_a_project_that_is_not_there_is_one_line(server, capfd) -> None:
    assert main(["dashboard", "project=nowhere"]) == 1
    (line,) = [text for text in capfd.readouterr().err.splitlines() if text.startswith("memmeta:")]
    assert "W&B did not save the dashboard" in line
    assert "me/nowhere" in line
    assert "offline=true" in line


def test_out_of_reach_is_one_line_and_the_file_is_written(monkeypatch, tmp_path: Path, capfd) -> None:
    import wandb
    from wandb.errors import UsageError

    def refuse(**_: object) -> None:
        raise UsageError("No API key configured. Use `wandb login` to log in.\nmore")

    monkeypatch.setattr(wandb, "Api", refuse)
    file = tmp_path / "d.json"
    assert main(["dashboard", "project=p", f"out={file}"]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("memmeta: W&B cannot be reached (No API key configured. Use `wandb login` to log in); check")
    assert "memmeta dashboard project=p offline=true" in line
    assert file.exists()


def test_offline_needs_nobody(monkeypatch, tmp_path: Path, capfd) -> None:
    import wandb

    def unused(**_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(wandb, "Api", unused)
    monkeypatch.chdir(tmp_path)
    assert main(["dashboard", "project=p", "offline=true"]) == 0
    assert capfd.readouterr().out == "dashboard: dashboard_p.json\n"
    assert json.loads((tmp_path / "dashboard_p.json").read_text())["report"]["project"]["name"] == "p"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "needs a W&B project"),
        (["project=a/b"], "is not a W&B project name"),
        (["project=p", "offline=yes"], "offline=yes is unknown: use true or false"),
        (["projekt=p"], "unknown option 'projekt'; did you mean 'project'?"),
        (["p"], "'p' is not an option: write KEY=VALUE, such as project=p"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], words: str, capfd) -> None:
    assert main(["dashboard", *arguments]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert words in line


def test_help_says_how(capfd) -> None:
    assert main(["dashboard", "--help"]) == 0
    assert "offline=true" in capfd.readouterr().out


def test_the_module_is_light_until_it_is_used() -> None:
    assert not {name for name in vars(workspace) if name.startswith("wandb")}
    assert RunError.exit_code == 1


if __name__ == "__main__":
    sys.stdout.write(golden())
