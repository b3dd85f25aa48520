"""`memmeta export run=DIR out=FILE.safetensors`: a trained model as one file."""

from memmeta_exp.commands.arguments import parse
from memmeta_exp.config import ConfigError
from memmeta_exp.config.compose import without_plugins
from memmeta_exp.prediction import export, load

HELP = """memmeta export run=DIR out=FILE.safetensors [plugins=[MODULE,...]]

Writes the model of the best checkpoint of the run folder DIR (or of a checkpoint that run= names) to FILE: the tensors
of the backbone under its own names, and head_start, phi_0 [ways, d+1]. The metadata hold the configuration of the run
and its normalisation. `memmeta predict run=FILE`, memmeta_exp.load and `memmeta train weights=FILE` take the file;
docs/prediction.md shows how plain torch loads it.
"""


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(HELP)
        return 0
    options = parse(without_plugins(arguments), {"run": None, "out": None})
    run, out = options["run"], options["out"]
    if run is None or out is None:
        raise ConfigError("export needs a run and a file: memmeta export run=outputs/DATE/TIME out=model.safetensors")
    print(f"wrote {export(load(run, device='cpu'), out)}")
    return 0
