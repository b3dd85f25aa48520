"""What a user can get wrong in a configuration is refused in one line, before anything is made: one table.

`tests/commands/test_bad_input.py` has the command lines themselves: exit code, one line, nothing left behind.
"""

import copy
import re
from functools import cache
from typing import Any

import pytest
import yaml

from memmeta_exp.commands.train import check
from memmeta_exp.config import GROUPS, Config, ConfigError, from_dict, to_dict
from memmeta_exp.config.common_names import COMMON_NAMES
from memmeta_exp.config.compose import _keys, group_values, jobs
from tests.commands.conftest import TINY

IMAGES = tuple(o for o in TINY if not o.startswith("backbone."))
RANGES = {
    "val_tasks=1000000000": "at most",
    "queries=0": "at least 1",
    "iterations=1.5": "iterations",
    "seed=null": "seed",
    "seed=99999999999999999999": "at most",
    "ways=1": "ways=1 is out of range",
    "test_tasks=1": "test_tasks=1 is out of range",
    "batch_size=1000000000": "at most",
    "threads=100000": "at most",
    "tasks_per_pass=big": "tasks_per_pass",
    "tasks_per_pass=0": "at least 1",
    "checkpoint_at=[0]": "checkpoint_at=0 is out of range: it must be at least 1",
    "checkpoint_at=[7]": "checkpoint_at holds 7, and iterations=6: leave it out or raise iterations",
    "checkpoint_at=3": "write checkpoint_at=[A,B,...]",
    "checkpoint_at=[2] backbone.norm=running": "take multiples of eval_every=3",
    "convergence_every=0": "at least 1",
    "precision=fp16": "precision=fp16 is unknown: use fp32, bf16 or fp64; bf16 is the only half precision",
    "device=cudo": "auto, cpu, cuda or cuda:N",
    "device=cuda:99": "device=cpu",
    "algorithm.mu=abc": "algorithm.mu",
    "algorithm.mu=nan": "algorithm.mu",
    "algorithm.mu=0": "set algorithm.mu above 0",
    "algorithm.inner_solver=newtn": "did you mean 'newton'?",
    "algorithm.inner_tolerance=null": "inner_solver=gd",
    "algorithm.mu=0 algorithm.inner_solver=gd algorithm.linear_solver=cg algorithm.head_start=learned":
        "or algorithm.head_start=fixed",
    "optimizer.schedule=cosin": "did you mean 'cosine'?",
    "optimizer.average=1": "optimizer.average=1.0 is out of range",
    "backbone.filters=100000000": "at most",
    "backbone.filters=[8,8]": "one for each of the 4 blocks",
    "dataset.images_per_class=100000000000": "GiB",
    "dataset.image_size=8": "image_size",
    "images.normalise=imagnet": "did you mean 'imagenet'?",
    "images.crop_padding=-1": "at least 0",
    "images.crop_padding=17": "at most 16",
    "images.brightness=1.5": "at most 1",
    "images.flip=maybe": "images.flip",
    "images.flp=true": "did you mean 'images.flip'?",
    "head=ridge head.scale=0": "above 0",
    "training.ways=1": "training.ways=1 is out of range",
    **{f"algorithm=imaml algorithm.{key}=-1": key
       for key in ("lam", "inner_steps", "inner_lr", "linear_steps", "linear_tolerance", "damping")},
    "algorithm=imaml algorithm.head_start=prototype": "is unknown",
    "algorithm=anil algorithm.inner_steps=0": "at least 1",
    "algorithm=baseline algorithm.classifier=cosines": "did you mean 'cosine'?",
    "algorithm=baseline algorithm.power=2": "algorithm.power=2.0 is out of range",
    "algorithm=baseline algorithm.power=0": "algorithm.power=0.0 is out of range",
    "algorithm=baseline algorithm.mu=0": "algorithm.mu=0.0 is out of range",
}  # fmt: skip
TOGETHER = {  # sections that do not go together
    "ways=6": "set ways to 5 or fewer",
    "shots=7": "shots=7 + queries=2 is more than the 8 images",
    "sampling=all": "needs a finite set of tasks",
    "optimizer=sgd optimizer.lr=null": "set optimizer.lr",
    "optimizer.momentum=0.9": "is for sgd",
    "backbone=none": "for dataset=quadratic",
    "backbone=linear": "for dataset=logistic",
    "head=regression": "for dataset=sinusoid",
    "training.ways=5 algorithm=anil": "learns a head with one row per class",
    "training.ways=5 algorithm=fomaml algorithm.head_start=fixed": "training.ways=5 with ways=3",
    "training.ways=6": "training.ways=6 is more than the 5 classes",
    "training.shots=7": "training.shots=7 + training.queries=2 is more than the 8 images",
    "algorithm=fomaml algorithm.inner_steps=0": "set algorithm.inner_steps to 1 or more",
    "algorithm=maml algorithm.features=once": "features=once",
    "algorithm=anil algorithm.adapted_params=all": "set algorithm.features=recompute, or algorithm.adapted_params=head",
    "algorithm=maml algorithm.head_start=prototype": "for head-only algorithms",
    "algorithm=baseline head=cosine convergence_gradient=own": "set head=linear or head=ridge",
    "algorithm=baseline memory.checkpoint=inner_step": "leave memory.checkpoint=none",
    "head=cosine algorithm=anil": "set convergence_gradient=own",
    "head=cosine convergence_gradient=own": "no Hessian to factorise",
    "head=cosine convergence_gradient=own algorithm=anil test_adaptation=exact": "set test_adaptation=own or gd",
    "head=cosine convergence_gradient=own algorithm.inner_solver=gd algorithm.inner_lr=0.1 algorithm.linear_solver=cg":
        "set algorithm.head_start to learned or prototype",
    "images.test_time_flip=true algorithm=maml": "is for head-only algorithms: maml",
    "dataset.channels=1 images.normalise=imagenet": "is for colour images, and synthetic is grey",
    "dataset.channels=1 images.saturation=0.1": "is for colour images, and synthetic is grey",
    "tasks_per_pass=2 algorithm=maml": "maml takes one task at a time here",
    "memory.mode=half_task algorithm=maml": "memory.mode=half_task is for head-only algorithms",
    "memory.mode=images algorithm=maml": "memory.mode=images is for head-only algorithms",
    "memory.mode=images workers=2": "workers=2 with memory.mode=images",
    "memory.images_per_pass=2": "is for memory.mode=images, and memory.mode=task",
    "training=3": "training=3 is not a section: set training.ways",
}  # fmt: skip
OF_TIMM = {
    "backbone.model=test_vti": "did you mean 'test_vit'?",
    "backbone.weights=nowhere.pt": "nowhere.pt does not exist",
    "backbone.frozen=99": "set backbone.frozen to 6 or less",
    "images.normalise=imagenet": "leave images.normalise=none",
    "dataset.image_size=28": "does not take images of 3 channels and 28x28",
    "algorithm=imaml backbone.attention=fused": "leave backbone.attention=plain",
    "algorithm=maml memory.checkpoint=block": "memory.checkpoint=block is for head-only algorithms",
    "backbone.model=dla46_c dataset.image_size=64 memory.checkpoint=block": "memory.checkpoint=none",
}
OF_SINE_WAVES = {
    "memory.mode=images": "dataset=sinusoid has no images to take a few at a time",
    "backbone=conv4": "set backbone=mlp",
    "backbone=linear": "set backbone=",
    "head=linear": "set head=regression",
    "head=ridge": "set head=regression",
    "head=cosine algorithm=anil convergence_gradient=own": "set head=regression",
    "ways=3": "leave ways out",
    "training.ways=7": "leave training.ways out",
    "sampling=all": "needs a finite set of tasks",
    "images.flip=true": "leave it out",
    "algorithm.head_start=prototype": "means of classes",
    "algorithm=baseline": "dataset=sinusoid has none: choose another algorithm",
    "optimizer=sgd optimizer.lr=null": "set optimizer.lr",
    "backbone.hidden=[]": "1 to 16",
    "backbone.hidden=[8,0]": "at least 1",
    "backbone.hidden=[8,x]": "backbone.hidden",
}
OF_QUADRATICS = {
    "backbone=conv4": "set backbone=none",
    "backbone=mlp": "set backbone=none",
    "sampling=all batch_size=3": "set batch_size=16",
    "sampling=al": "did you mean 'all'?",
    "optimizer.lr=null": "set optimizer.lr",
    "precision=bf16": "fp32 or fp64",
    "test_adaptation=gd": "leave test_adaptation=own",
    "test_adaptation=exact": "leave test_adaptation=own",
    "memory.budget_mib=100": "leave it null",
    "dataset.kappa=0.5": "at least 1",
    "dataset.dim_phi=100000": "below 2 GiB",
    "dataset.kapa=3": "did you mean 'dataset.kappa'?",
    "training.shots=3": "training.* makes training tasks differ",
    "images.flip=true": "dataset=quadratic has none",
    "memory.checkpoint=block": "memory.checkpoint=block is for networks",
}
OF_LOGISTIC = {
    "ways=30": "set ways to 20 or fewer",
    "algorithm.mu=0": "set algorithm.mu above 0",
    "head=ridge": "leave head=linear",
    "algorithm=baseline": "dataset=logistic has none: choose another algorithm",
    "optimizer=sgd optimizer.lr=null": "set optimizer.lr",
}
TABLE = [
    *((IMAGES, *case) for case in (RANGES | TOGETHER).items()),
    *(((*IMAGES, "backbone=timm", "backbone.model=test_vit", "dataset.image_size=32"), *c) for c in OF_TIMM.items()),
    *((("dataset=sinusoid",), *case) for case in OF_SINE_WAVES.items()),
    *((("dataset=quadratic",), *case) for case in OF_QUADRATICS.items()),
    *((("dataset=logistic",), *case) for case in OF_LOGISTIC.items()),
]
COMPOSED = {  # what Hydra would refuse in many lines
    "algorithm=propsed": "did you mean 'proposed'?",
    "batchsize=3": "did you mean 'batch_size'?",
    "algorithm.inner_step=3": "did you mean 'algorithm.inner_steps'?",
    "+algorithm.inner_step=3": "did you mean 'algorithm.inner_steps'?",
    "algorithm": "write KEY=VALUE",
    "a=b=c[": "write KEY=VALUE",
    "experiment=paper/cifar": "did you mean 'paper/cifar_fs'?",
    "optimizer.momentum=0.9": "the chosen optimizer has no key",
    "optimizer.nme=sgd": "unknown key 'optimizer.nme'",
    "optimizer.name=sgd": "write optimizer=sgd",
    "settings=paper32": "choose with protocol=NAME",
    "optimizer=null": "choose from adam, adamw, sgd",
    "algorithm=null": "proposed",
    "hydra/launcher=joblb": "memmeta train --help",
    "seed=0,1": "need the flag -m",
    "backbone=resnet13": "did you mean 'resnet12'?",
    "backbone.model=resnet18": "the chosen backbone has no key",
    "dataset=glyfs": "did you mean 'glyphs'?",
    "dataset=sinusoid dataset.amplitude=3": "unknown key 'dataset.amplitude'",
    "data_root=${oc.env:NO_SUCH_VARIABLE}": "NO_SUCH_VARIABLE",
}


@cache
def composed(overrides: tuple[str, ...]) -> dict[str, Any]:
    return to_dict(jobs(list(overrides), multirun=False)[0])


def changed(start: tuple[str, ...], changes: str) -> Config:
    """The configuration of `start` with other values, and other options of its groups; Hydra, which takes a tenth of a
    second a time, composes each start once."""
    values = copy.deepcopy(composed(start))
    for key, _, text in (change.partition("=") for change in changes.split()):
        section, _, name = key.rpartition(".")
        new = group_values(f"{key}/{text}") if key in GROUPS else yaml.safe_load(text)
        (values[section] if section else values)[name] = new
    return from_dict(values)


@pytest.mark.parametrize(("start", "changes", "said"), TABLE, ids=lambda value: value if isinstance(value, str) else "")
def test_a_configuration_is_refused(start: tuple[str, ...], changes: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check(changed(start, changes))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("start", dict.fromkeys(start for start, *_ in TABLE), ids=" ".join)
def test_without_the_changes_it_is_not(start: tuple[str, ...]) -> None:
    check(from_dict(composed(start)))


@pytest.mark.parametrize("overrides", COMPOSED)
def test_what_does_not_compose_is_refused(overrides: str) -> None:
    with pytest.raises(ConfigError) as refused:
        jobs(overrides.split(), multirun=False)
    assert COMPOSED[overrides] in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("given", "suggested"), [("mu=1", "algorithm.mu"), ("filters=8", "backbone.filters")])
def test_a_key_without_its_group_is_named(given: str, suggested: str) -> None:
    with pytest.raises(ConfigError, match=rf"unknown key '{given.partition('=')[0]}'; did you mean {suggested}\?"):
        jobs([given], multirun=False)


def test_a_common_name_is_answered_with_what_to_write() -> None:
    """Every one of the table, whose overrides set keys that there are."""
    known = {*_keys(), "hydra.run.dir", "resume"}
    for name, override in COMMON_NAMES.items():
        assert (override.partition("=")[0] in known, name in known) == (True, False), name
    for given, expected in {
        "lr=0.1": "unknown key 'lr': write optimizer.lr=0.1",
        "epochs=3": "write iterations=3 (a meta-step takes",
        "gpu=0": "write device=cuda (or cuda:N",
        "name=a": "write hydra.run.dir=a (the run's folder",
        "iterations=1e3": "iterations=1000 is not a whole number: write iterations=1000",
    }.items():
        with pytest.raises(ConfigError, match=re.escape(expected)):
            jobs([given], multirun=False)


def test_the_cosine_head_is_refused_with_keys_that_make_it_work() -> None:
    with pytest.raises(ConfigError) as refused:
        jobs(["head=cosine"], multirun=False)
    jobs(["head=cosine", *str(refused.value).partition(": set ")[2].split()], multirun=False)
