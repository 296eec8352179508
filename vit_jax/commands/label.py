"""`label`: writes what a teacher answers for every training image to a file."""

import argparse
from collections.abc import Sequence

from vit_jax.commands import arguments
from vit_jax.text import printable

# The parts of a config that the command uses.
MATTERS = ("data", "mesh", "batch_size", "eval_batch_size")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", required=True, help="the teacher: a run or a released file")
    parser.add_argument(
        "--config", required=True, metavar="FILE[:ARGUMENT]", help="the recipe with the data"
    )
    parser.add_argument("-o", "--output", required=True, help="the file to write, .safetensors")
    parser.add_argument(
        "--logits", action="store_true", help="write the logits of all classes, not the class"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    parser.set_defaults(config_overrides=True)
    parser.epilog = arguments.HINT


def run(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Write the answers of a teacher for all training images to a file.

    The file replaces the teacher of a distilled run: --config.objective.teacher_file. The teacher
    sees the centre of each image, without augmentation.
    """
    import jax

    from vit_jax.commands import configs
    from vit_jax.parallel import multihost
    from vit_jax.training import labelling, teacher_file
    from vit_jax.workdir import place

    multihost.initialize()
    if jax.process_count() > 1:
        raise ValueError("label runs in one process: start it on one machine, without a launcher")
    configs.check_used(overrides, MATTERS, command="label reads training images and")
    config, _ = configs.read(options.config, overrides)
    target = place.folder(options.output)
    if target.suffix != ".safetensors":
        raise ValueError(f"{options.output}: the name of the file must end in .safetensors")
    if target.exists() and not (options.overwrite and target.is_file()):
        raise ValueError(f"{options.output} exists: choose another name, or give --overwrite")
    answers, summary = labelling.label(config, options.workdir, logits=options.logits)
    teacher_file.write(options.output, answers)
    print(printable(f"{options.output}: {summary}"))
    return 0
