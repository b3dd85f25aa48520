"""The dashboard of a W&B project as code: one workspace and one report, built with wandb-workspaces.

This is the only module that imports wandb_workspaces. Building needs no network and no account, and is deterministic:
ids are derived from names, so the same project gives the same JSON. docs/outputs.md explains the keys.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2.interface import Report
    from wandb_workspaces.workspaces import Workspace

NAME = "memmeta"
ITERATION = "iteration"  # the step metric of all metrics
ID_LENGTH = 12
LONGEST_TITLE = 128  # characters of a report's title


@dataclass(frozen=True)
class Curve:
    """A line plot against x, by default the outer iteration. log: logarithmic y axis."""

    title: str
    keys: tuple[str, ...]
    x: str = ITERATION
    log: bool = False


@dataclass(frozen=True)
class Bars:
    """A bar plot of final numbers (summary.json), one bar per configuration."""

    title: str
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    name: str
    about: str
    panels: tuple[Curve | Bars, ...]


SECTIONS = (
    Section(
        "accuracy",
        "Query accuracy (fraction) and loss (nats) after adaptation. The test uses the best model by validation.",
        (
            Curve("validation accuracy", ("val/acc",)),
            Curve("training accuracy", ("train/acc",)),
            Bars("test accuracy", ("test/acc",)),
            Curve("validation loss", ("val/loss",)),
            Curve("training loss", ("train/loss",)),
            Curve("validation mean squared error", ("val/mse",), log=True),
            Bars("test mean squared error", ("test/mse",)),
        ),
    ),
    Section(
        "convergence",
        "Squared norm of the gradient of F on fixed tasks, and its running mean: the paper's convergence error.",
        (
            Curve("squared gradient norm", ("convergence/grad_norm_sq",), log=True),
            Curve("convergence error", ("convergence/error",), log=True),
        ),
    ),
    Section(
        "memory",
        "Peak of a training iteration, in MiB. Above the baseline: without parameters, optimiser state and data.",
        (
            Bars("peak above the baseline", ("memory/above_baseline_mib",)),
            Bars("peak in all", ("memory/peak_mib",)),
        ),
    ),
    Section(
        "solver health",
        "Whether the lower level and the linear system of each hypergradient met their tolerances.",
        (
            Curve("hypergradients with a missed solve", ("hypergrad/inexact_fraction", "convergence/inexact_fraction")),
            Curve("validation tasks left unsolved", ("val/unsolved_fraction",)),
            Curve("residual of the lower level", ("inner/grad_norm_max",), log=True),
            Curve("residual of the linear system", ("linear/residual_max",), log=True),
            Curve("condition number kappa", ("inner/kappa",), log=True),
            Curve("smoothness constant L_g", ("inner/L_g",), log=True),
        ),
    ),
    Section(
        "time",
        "Seconds of wall clock, sampling included.",
        (
            Curve("seconds per step", ("time/step_seconds",), log=True),
            Curve("tasks per second", ("time/tasks_per_second",)),
            Curve("validation accuracy against wall clock", ("val/acc",), x="RelativeTime(Wall)"),
            Bars("median step", ("time/step_seconds_median",)),
            Bars("whole run", ("time/total_seconds",)),
        ),
    ),
    Section(
        "cost",
        "Number of evaluations by the algorithm, since the start of the run.",
        (
            Curve("gradient evaluations", ("cost/gradient_evaluations",)),
            Curve("Hessian-vector products", ("cost/hessian_vector_products",)),
            Curve(
                "convergence error against evaluations", ("convergence/error",), "cost/gradient_evaluations", log=True
            ),
        ),
    ),
)


@dataclass
class Dashboard:
    """Workspace and report of `project`. entity: its owner; "" is enough to write JSON."""

    project: str
    entity: str = ""
    workspace: "Workspace" = field(init=False)
    report: "Report" = field(init=False)

    def __post_init__(self) -> None:
        self.workspace = _workspace(self.project, self.entity)
        self.report = _report(self.project, self.entity)

    def to_json(self) -> str:
        """Workspace and report as JSON, in the format of W&B's server.

        The library cannot serialise without saving, so this calls `_to_model`, as its save() does.
        """
        models = {"workspace": self.workspace._to_model(), "report": self.report._to_model()}
        values = {
            name: model.model_dump(mode="json", by_alias=True, exclude_none=True) for name, model in models.items()
        }
        return json.dumps(values, indent=2, sort_keys=True) + "\n"

    def save(self) -> tuple[str, str]:
        """Saves both on the server, as a new view and a new report of the project; returns their addresses.

        Raises the library's errors: ValueError for an unknown project, and errors of wandb and of the network.
        """
        for block in self.report.blocks:
            for runs in getattr(block, "runsets", []):
                runs.entity, runs.project = self.entity, self.project  # set late: the server is then asked for it
        return self.workspace.save().url, self.report.save().url


def metrics() -> Iterator[str]:
    """Yields every metric that a panel shows."""
    for section in SECTIONS:
        for panel in section.panels:
            yield from panel.keys
            if isinstance(panel, Curve) and "/" in panel.x:
                yield panel.x


def _workspace(project: str, entity: str) -> "Workspace":
    """The workspace, with one group of panels per section. Runs of a configuration (W&B's group) are averaged."""
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces.expr import Metric

    sections = [
        ws.Section(name=s.name, panels=_panels("workspace", s), is_open=i < 3, layout_settings=_three_columns())
        for i, s in enumerate(SECTIONS)
    ]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=sections,
        settings=ws.WorkspaceSettings(x_axis=ITERATION, max_runs=50),
        runset_settings=ws.RunsetSettings(groupby=[Metric("Group")]),
    )


def _three_columns() -> Any:
    from wandb_workspaces.workspaces import SectionLayoutSettings

    return SectionLayoutSettings(columns=3, rows=2)


def _report(project: str, entity: str) -> "Report":
    """The report, with a heading, a sentence and a grid of panels per section."""
    import wandb_workspaces.reports.v2.interface as wr

    blocks: list[Any] = [wr.TableOfContents()]
    for section in SECTIONS:
        runs = wr.Runset(name="all runs, by configuration", groupby=["group"])
        runs._id = _id("report", section.name, "runs")
        grid = wr.PanelGrid(runsets=[runs], panels=_panels("report", section))
        blocks += [wr.H2(section.name.capitalize()), wr.P(section.about), grid]
    description = "Accuracy, convergence, memory, solver health, time and cost of every configuration."
    title = f"{NAME}: {project}"[:LONGEST_TITLE]
    return wr.Report(project=project, entity=entity, title=title, description=description, blocks=blocks, width="fluid")


def _panels(where: str, section: Section) -> list[Any]:
    return [_panel(panel, _id(where, section.name, panel.title)) for panel in section.panels]


def _panel(panel: Curve | Bars, identity: str) -> Any:
    import wandb_workspaces.reports.v2.interface as wr

    if isinstance(panel, Bars):
        made: Any = wr.BarPlot(title=panel.title, metrics=list(panel.keys), orientation="h")
    else:
        made = wr.LinePlot(title=panel.title, x=panel.x, y=list(panel.keys), log_y=panel.log or None)
    made._id = identity
    return made


def _id(*names: str) -> str:
    """A deterministic id in the format of the library's random ids."""
    return hashlib.sha256("/".join(names).encode()).hexdigest()[:ID_LENGTH]
