"""`predict`: prints the most probable classes of image files."""

import argparse
import pathlib
from collections.abc import Sequence

from vit_jax.commands import arguments
from vit_jax.commands.arguments import checkpoint_step, count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="image files, folders, or patterns: 'a/*.jpg'"
    )
    parser.add_argument(
        "--workdir",
        required=True,
        action="append",
        help="folder of a run, or a released file; repeatable, to compare several",
    )
    parser.add_argument(
        "--step", type=checkpoint_step, default="latest", help="latest, best, or a number"
    )
    parser.add_argument(
        "--top", type=count, default=5, help="number of classes to show for each image"
    )
    arguments.add_classes(parser)
    output = parser.add_mutually_exclusive_group()
    output.add_argument(
        "--json", action="store_true", help="one JSON object per image and model, each on a line"
    )
    output.add_argument(
        "--csv", type=pathlib.Path, metavar="FILE", help="write a table; -: print it"
    )


def run(options: argparse.Namespace, _: Sequence[str]) -> int:
    """Show the most probable classes of images.

    The images of a folder are found at any depth. Photographs are turned as their EXIF orientation
    says. A file that cannot be read is reported, and the exit code is 2 after all others.
    """
    from vit_jax.commands import predictions

    return predictions.run(options)
