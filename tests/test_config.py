"""The schema, and the presets against the paper's table."""

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from memmeta_exp.config import (
    GROUPS,
    Config,
    ConfigError,
    ImagesConfig,
    as_of_today,
    from_dict,
    from_omegaconf,
    from_yaml,
    to_dict,
)
from memmeta_exp.config.compose import composed, group_options
from memmeta_exp.config.overrides import conf_dir, text_of


def config(*overrides: str) -> Config:
    return from_omegaconf(composed(list(overrides)))


def test_a_config_survives_the_round_trip() -> None:
    assert from_dict(to_dict(config())) == config()
    assert from_dict(to_dict(config("experiment=paper/fc100"))) == config("experiment=paper/fc100")


def test_a_removed_key_is_read_in_an_older_file_and_nowhere_else(tmp_path: Path) -> None:
    older = {**to_dict(config()), "cuda_graph": False}
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(older)))
    assert from_yaml(tmp_path / "config.yaml") == config()
    assert as_of_today(older) == to_dict(config())
    with pytest.raises(ConfigError, match="unknown key 'cuda_graph'"):
        from_dict(older)


SIZES = {"cifar_fs": 32, "fc100": 32, "miniimagenet": 84, "tieredimagenet": 84}
PAPER = {  # PAPER's table: inner steps K, inner rate, Adam's rate; imaml and fomaml are not in the paper
    (32, "proposed"): (20, 0.1, 1e-4), (84, "proposed"): (20, 0.05, 1e-3),
    (32, "itd_bio"): (20, 0.1, 1e-4), (84, "itd_bio"): (20, 0.05, 1e-4),
    (32, "anil"): (10, 0.1, 1e-4), (84, "anil"): (5, 0.1, 1e-3),
    (32, "maml"): (3, 0.5, 1e-3), (84, "maml"): (3, 0.5, 5e-3),
    (32, "fomaml"): (3, 0.5, 1e-3), (84, "fomaml"): (3, 0.5, 5e-3),
    (32, "imaml"): (16, 0.1, 1e-3), (84, "imaml"): (16, 0.1, 1e-3),
}  # fmt: skip
OWN = {
    "proposed": {
        "mu": 0.0, "inner_solver": "gd", "inner_tolerance": None, "inner_warm_start": False, "linear_solver": "cg",
        "linear_steps": 20, "linear_tolerance": None, "linear_warm_start": False, "head_start": "fixed",
    },
    "itd_bio": {"mu": 1e-4, "head_start": "fixed", "first_order": False, "adapted_params": "head"},
    "anil": {"mu": 0.0, "head_start": "learned", "first_order": False, "adapted_params": "head"},
    "maml": {"mu": 0.0, "head_start": "learned", "first_order": False, "adapted_params": "all"},
    "fomaml": {"mu": 0.0, "head_start": "learned", "first_order": True, "adapted_params": "all"},
    "imaml": {"lam": 2.0, "linear_steps": 5, "linear_tolerance": None, "damping": 0.0, "head_start": "learned"},
}  # fmt: skip


@pytest.mark.parametrize("algorithm", OWN)
@pytest.mark.parametrize("dataset", SIZES)
def test_the_paper_presets_are_the_released_settings(dataset: str, algorithm: str) -> None:
    """PAPER: 5-way 5-shot, 5 queries, 32 tasks, 2,000 iterations; tested on 640 tasks by 20 head steps of 0.05."""
    c, size = config(f"experiment=paper/{dataset}", f"algorithm={algorithm}"), SIZES[dataset]
    assert (c.ways, c.shots, c.queries, c.batch_size, c.iterations, c.test_tasks) == (5, 5, 5, 32, 2000, 640)
    assert (c.dataset.name, c.dataset.facts().image_size) == (dataset, size)
    assert (c.backbone.name, c.backbone.filters, c.backbone.norm) == ("conv4", {32: 64, 84: 32}[size], "task")
    assert (c.optimizer.name, c.optimizer.schedule, c.optimizer.weight_decay) == ("adam", "constant", 0.0)
    assert (c.precision, c.test_adaptation, c.eval_steps, c.eval_lr) == ("fp32", "gd", 20, 0.05)
    assert (c.algorithm.name, c.reference_mu) == (algorithm, 0.01)
    assert c.images == ImagesConfig()
    assert (c.algorithm.inner_steps, c.algorithm.inner_lr, c.optimizer.lr) == PAPER[size, algorithm]
    for key, value in OWN[algorithm].items():
        assert getattr(c.algorithm, key) == value, key


def test_the_command_line_wins_over_a_preset() -> None:
    c = config("experiment=paper/cifar_fs", "algorithm=anil", "algorithm.inner_steps=7", "optimizer.lr=0.5")
    assert (c.algorithm.inner_steps, c.algorithm.inner_lr, c.optimizer.lr) == (7, 0.1, 0.5)
    released = config("experiment=paper/released", "algorithm=maml")
    assert (released.dataset.name, released.algorithm.inner_lr, released.batch_size) == ("glyphs", 0.5, 32)


def test_the_default_is_the_certified_pair() -> None:
    a = config().algorithm
    assert (a.inner_solver, a.linear_solver, a.mu > 0) == ("newton", "direct", True)


def test_images_are_scaled_alone_by_default() -> None:
    assert config().images == ImagesConfig("none", 0, False, 0.0, 0.0, 0.0)


def test_names() -> None:
    c = config("seed=4")
    assert c.run_name == "proposed-glyphs-conv4-5w5s-s4"
    assert c.run_group == config("seed=9", "tracking=disabled").run_group
    assert c.run_group != config("seed=4", "algorithm.mu=0.2").run_group
    assert c.run_group.startswith("proposed-glyphs-conv4-5w5s-")


GOES_WITH = {  # options that need others
    ("backbone", "none"): ["dataset=quadratic"],
    ("backbone", "linear"): ["dataset=logistic"],
    ("backbone", "custom"): ["backbone.target=torch.nn.Flatten"],
    ("head", "regression"): ["dataset=sinusoid"],
    ("head", "cosine"): ["algorithm=anil", "convergence_gradient=own"],
}


@pytest.mark.parametrize("group", GROUPS)
def test_every_option_of_a_group_composes(group: str) -> None:
    for option in group_options(group):
        if (group, option) == ("dataset", "folder"):
            with pytest.raises(ConfigError, match=r"dataset\.path=DIR"):
                config("dataset=folder")
            continue
        assert getattr(config(f"{group}={option}", *GOES_WITH.get((group, option), [])), group)


def test_every_block_of_a_table_is_an_option() -> None:
    blocks = [line[:-1] for line in (conf_dir() / "experiment.yaml").read_text().splitlines() if line.endswith(":")]
    assert {"paper/cifar_fs", "memory/released/anil"} <= {*blocks} & {*group_options("experiment")}
    for experiment in group_options("experiment"):
        assert config(f"experiment={experiment}")


def test_a_dataset_brings_its_backbone_and_head() -> None:
    waves, quadratic = config("dataset=sinusoid"), config("dataset=quadratic", "dataset.tasks=3")
    assert (waves.backbone.name, waves.head.name) == ("mlp", "regression")
    assert (quadratic.backbone.name, quadratic.dataset.tasks) == ("none", 3)
    assert config("dataset=sinusoid", "backbone.hidden=[8]").backbone.hidden == [8]


@pytest.mark.parametrize(
    ("override", "near"),
    [
        ("experiment=paper/cifarfs", "paper/cifar_fs"),
        ("experiment=memory/fair/prposed", "memory/fair/proposed"),
        ("experiment=best/cifarfs", "best/cifar_fs"),
        ("protocol=paper23", "paper32"),
        ("dataset=cifarfs", "cifar_fs"),
    ],
)
def test_a_misspelt_option_has_a_suggestion(override: str, near: str) -> None:
    group, _, option = override.partition("=")
    with pytest.raises(ConfigError, match=rf"^unknown {group} '{option}'; did you mean '{near}'\?$"):
        config(override)


@pytest.mark.parametrize("experiment", ["best", "paper", pytest.param("ours", marks=pytest.mark.slow)])
@pytest.mark.parametrize("backbone", ["resnet12", pytest.param("wrn28_10", marks=pytest.mark.slow)])
def test_every_experiment_takes_another_backbone(experiment: str, backbone: str) -> None:
    names = [name for name in group_options("experiment") if name.startswith(f"{experiment}/")]
    assert len(names) >= 4
    for name in names:
        assert config(f"experiment={name}", f"backbone={backbone}").backbone.name == backbone


@pytest.mark.parametrize(("key", "backbone"), [("backbone.filters", "resnet12"), ("tracking.tags", "conv4")])
def test_one_number_for_a_list(key: str, backbone: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{key}=64 is not a list: write {key}=\[A,B,\.\.\.\]"):
        config(f"backbone={backbone}", f"{key}=64")


def test_a_section_that_is_none() -> None:
    with pytest.raises(ConfigError, match="algorithm"):
        from_dict({**to_dict(config()), "algorithm": None})


def test_a_run_from_before_there_was_a_choice_of_heads() -> None:
    values = to_dict(config())
    del values["head"]
    assert from_dict(values) == config()


def test_a_file_that_cannot_be_read(tmp_path) -> None:
    with pytest.raises(ConfigError, match="is a folder, and a regular file is expected"):
        from_yaml(tmp_path)


def test_the_text_of_a_value() -> None:
    """Without the quotes of Hydra's grammar."""
    assert [text_of(o) for o in ("a='my (2) runs'", "a=3")] == ["my (2) runs", "3"]


def floats(values: dict, prefix: str = "") -> list[str]:
    """The keys of a configuration that hold a number with a fraction."""
    found: list[str] = []
    for key, value in values.items():
        found += floats(value, f"{prefix}{key}.") if isinstance(value, dict) else []
        found += [f"{prefix}{key}"] if isinstance(value, float) else []
    return found


def with_number(values: dict, key: str, number: float) -> dict:
    section, _, rest = key.partition(".")
    return {**values, section: with_number(values[section], rest, number) if rest else number}


CHOICES = [
    [], ["algorithm=imaml"], ["algorithm=maml"], ["algorithm=baseline"], ["head=ridge"], ["optimizer=adamw"],
    ["dataset=quadratic", "backbone=none"], ["algorithm.inner_solver=gd", "algorithm.inner_lr=0.1"],
]  # fmt: skip


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_a_number_that_the_precision_cannot_hold_is_refused(choice: list[str]) -> None:
    values = to_dict(config(*choice))
    keys = floats(values)
    assert len(keys) > 5
    for key in keys:
        for number in (1e39, 1e38, float("inf"), float("nan"), 1e-46):
            with pytest.raises(ConfigError, match=f"^{re.escape(f'{key}={number} is ')}"):
                from_dict(with_number(values, key, number))


def test_what_the_precision_decides() -> None:
    wide = {**to_dict(config()), "precision": "fp64"}
    assert from_dict(with_number(wide, "algorithm.mu", 1e39)).algorithm.mu == 1e39
    assert from_dict(with_number(wide, "algorithm.inner_tolerance", 1e-200)).algorithm.inner_tolerance == 1e-200
    with pytest.raises(ConfigError, match=r"precision=fp64 takes at most 1.3e\+154$"):
        from_dict(with_number(wide, "algorithm.mu", 1e155))
    with pytest.raises(ConfigError, match=r"precision=bf16 takes at most 1.8e\+19, or set precision=fp64"):
        from_dict({**with_number(wide, "optimizer.lr", 1e38), "precision": "bf16"})


@pytest.mark.parametrize("key", ["iterations", "dataset.classes", "algorithm.inner_steps", "optimizer.lr", "seed"])
def test_whole_numbers_have_64_bits(key: str) -> None:
    values = to_dict(config("dataset=synthetic"))
    with pytest.raises(ConfigError, match=r"out of range|too large for a float"):
        from_dict(with_number(values, key, 10**400))
