"""The schema, and the presets against the paper's table."""

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from memmeta_exp.commands.compose import conf_dir
from memmeta_exp.config import SECTIONS, Config, ConfigError, from_dict, from_omegaconf, to_dict


def config(*overrides: str) -> Config:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return from_omegaconf(compose("config", list(overrides)))


def test_a_config_survives_the_round_trip() -> None:
    assert from_dict(to_dict(config())) == config()
    assert from_dict(to_dict(config("experiment=paper/fc100"))) == config("experiment=paper/fc100")


@pytest.mark.parametrize("dataset", ["cifar_fs", "fc100"])
def test_the_paper_presets_are_the_released_settings(dataset: str) -> None:
    """PAPER: 5-way 5-shot, 5 queries, 32 tasks, 2,000 iterations, Adam 1e-4, 64 filters; K = 20 steps of 0.1, 20 steps
    of undamped CG without tolerance and no R; tested on 640 tasks by 20 head steps of 0.05."""
    c = config(f"experiment=paper/{dataset}")
    assert (c.ways, c.shots, c.queries, c.batch_size, c.iterations, c.test_tasks) == (5, 5, 5, 32, 2000, 640)
    assert (c.dataset.name, c.backbone.name, c.backbone.filters) == (dataset, "conv4", 64)
    assert (c.optimizer.name, c.optimizer.lr, c.optimizer.schedule) == ("adam", 1e-4, "constant")
    assert (c.optimizer.weight_decay, c.precision) == (0.0, "fp32")
    a = c.algorithm
    assert (a.inner_solver, a.inner_steps, a.inner_lr, a.inner_tolerance) == ("gd", 20, 0.1, None)
    assert (a.linear_solver, a.linear_steps, a.linear_tolerance, a.mu) == ("cg", 20, None, 0.0)
    assert (a.head_start, c.eval_rule, c.eval_steps, c.eval_lr) == ("fixed", "gd", 20, 0.05)
    assert not a.inner_warm_start
    assert not a.linear_warm_start


def test_the_default_is_the_certified_pair() -> None:
    a = config().algorithm
    assert (a.inner_solver, a.linear_solver, a.mu > 0) == ("newton", "direct", True)


def test_names() -> None:
    c = config("seed=4")
    assert c.run_name == "proposed-glyphs-conv4-5w5s-s4"
    assert c.group == config("seed=9", "tracking=disabled").group
    assert c.group != config("seed=4", "algorithm.mu=0.2").group
    assert c.group.startswith("proposed-glyphs-conv4-5w5s-")


@pytest.mark.parametrize("group", SECTIONS)
def test_every_option_of_a_group_composes(group: str) -> None:
    options = [f.stem for f in (conf_dir() / group).glob("*.yaml")]
    assert options
    for option in options:
        assert getattr(config(f"{group}={option}"), group)


def test_a_section_that_is_none() -> None:
    with pytest.raises(ConfigError, match="algorithm"):
        from_dict({**to_dict(config()), "algorithm": None})
