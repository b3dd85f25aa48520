"""Key names of other frameworks, and the override that has the same effect here, for the error message."""

VALUE = "{value}"  # the value on the command line
_OVERRIDES = {
    "optimizer.lr={value}": "lr learning_rate outer_lr meta_lr base_lr",
    "iterations={value}": "epochs epoch n_epochs num_epochs max_epochs steps max_steps num_steps iters num_iterations",
    "batch_size={value}": "batch bs meta_batch_size tasks_per_batch num_tasks",
    "ways={value}": "n_way n_ways way num_ways num_classes N",
    "shots={value}": "k_shot n_shot n_shots shot num_shots k_spt",
    "queries={value}": "n_query n_queries query num_queries k_qry",
    "algorithm={value}": "algo method alg learner",
    "dataset={value}": "data benchmark",
    "data_root={value}": "data_dir data_path root datadir",
    "backbone={value}": "model arch architecture network net",
    "backbone.filters={value}": "num_filters",
    "algorithm.inner_steps={value}": "num_inner_steps adaptation_steps adapt_steps update_step K",
    "algorithm.inner_lr={value}": "adapt_lr adaptation_lr fast_lr update_lr",
    "test_tasks={value}": "test_episodes num_test_tasks",
    "val_tasks={value}": "val_episodes num_val_tasks",
    "eval_every={value}": "val_every eval_interval eval_freq val_interval",
    "checkpoint_every={value}": "save_every save_interval save_freq",
    "workers={value}": "num_workers n_workers jobs",
    "threads={value}": "num_threads n_threads",
    "seed={value}": "random_seed rng_seed",
    "device=cuda": "gpu gpus cuda use_cuda use_gpu",
    "device=cpu": "cpu no_cuda use_cpu",
    "precision=bf16": "amp bf16 fp16 half mixed_precision",
    "hydra.run.dir={value}": "output_dir out_dir out outdir save_dir log_dir logdir run_dir exp_dir name exp_name",
    "resume={value}": "ckpt resume_from resume_from_checkpoint",
    "tracking=online": "wandb use_wandb",
    "tracking.project={value}": "wandb_project project_name",
}
COMMON_NAMES = {name: override for override, names in _OVERRIDES.items() for name in names.split()}
REMARKS = {
    "backbone": "a model of timm: backbone=timm backbone.model=NAME",
    "iterations": "a meta-step takes batch_size tasks, and there are no epochs",
    "device": "or cuda:N for one GPU of several; several at once: torchrun -m memmeta_exp train ...",
    "hydra.run.dir": "the run's folder; by default outputs/DATE/TIME",
    "resume": "a run folder, to continue it; memmeta evaluate run=DIR tests it",
}


def advice(key: str, value: str) -> str | None:
    """What to write instead of `key`=`value`; None if `key` is not one of COMMON_NAMES."""
    override = COMMON_NAMES.get(key)
    if override is None:
        return None
    remark = REMARKS.get(override.partition("=")[0])
    return f"write {override.replace(VALUE, value or 'VALUE')}" + (f" ({remark})" if remark else "")
