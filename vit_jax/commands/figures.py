"""`figures`: draws pictures of a run or a model, or of the augmentations of a recipe."""

import argparse
from collections.abc import Sequence

from vit_jax.commands.arguments import checkpoint_step, count, size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "images",
        nargs="*",
        metavar="IMAGE",
        help="image files or folders; unset: those of the run. Or other runs to compare with",
    )
    parser.add_argument("--workdir", help="folder of a run, or a released file")
    parser.add_argument(
        "--step", type=checkpoint_step, default="latest", help="latest, best, or a number"
    )
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        help="only this picture, such as attention; repeatable (docs/pictures.md has all names)",
    )
    parser.add_argument("--image-size", type=size, help="HEIGHT or HEIGHT,WIDTH of the model")
    parser.add_argument(
        "--measured", type=count, help="images on which pictures of numbers are measured"
    )
    parser.add_argument(
        "--augment", action="store_true", help="draw the augmentations of --config or of the run"
    )
    parser.add_argument("--config", metavar="FILE[:ARGUMENT]", help="a recipe, for --augment")
    parser.add_argument(
        "-o", "--output", metavar="FOLDER", help="unset: pictures/ in the folder of the run"
    )
    parser.add_argument(
        "--html", metavar="FILE", help="all pictures on one page, instead of files unless -o is set"
    )
    parser.set_defaults(config_overrides=True)


def run(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Draw what a run or a released model has learned.

    Writes PNG files, or a page, and prints where they are. A picture that does not exist for the
    model is left out, with the reason on stderr; with --only, that is an error. Several runs have
    the pictures curves and ablation (a table of results): runs whose configs differ only in the
    seed are one band, and one row. With --augment, draws one
    picture for each augmentation of a recipe or a run (augment_NAME.png): a row for each image, a
    column for each random draw.
    """
    from vit_jax.commands import pictures

    return pictures.run(options, overrides)
