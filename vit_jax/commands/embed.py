"""`embed`: writes the features of the images in a folder to a file."""

import argparse
import pathlib
from collections.abc import Sequence

from vit_jax.commands.arguments import batch_size, checkpoint_step, size
from vit_jax.text import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", type=pathlib.Path, metavar="DIR", help="folder of images")
    parser.add_argument(
        "output", type=pathlib.Path, metavar="OUT", help="the file to write, .parquet or .npz"
    )
    parser.add_argument("--workdir", required=True, help="folder of a run, or a released file")
    parser.add_argument(
        "--step", type=checkpoint_step, default="latest", help="latest, best, or a number"
    )
    parser.add_argument("--image-size", type=size, help="HEIGHT or HEIGHT,WIDTH")
    parser.add_argument(
        "--features",
        choices=("head", "class", "mean", "patches"),
        default="head",
        help="the input of the head, the class token, the mean of the patches, or all patches",
    )
    parser.add_argument(
        "--layer",
        type=int,
        metavar="N",
        help="tokens after block N, from 1, or from the end, -1; unset: after the last norm",
    )
    parser.add_argument("--dtype", choices=("float32", "float16"), default="float32")
    parser.add_argument("--batch-size", type=batch_size, default=64)
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")


def run(options: argparse.Namespace, _: Sequence[str]) -> int:
    """Write the features of the images in a folder.

    Parts are kept in the folder OUT.parts until OUT is complete: the same command goes on after an
    interruption, in any number of processes that share this folder. Images that cannot be read have
    features of NaN and `broken` is true.
    """
    from vit_jax.commands import embedding
    from vit_jax.parallel import multihost

    multihost.initialize()
    summary = embedding.embed(options)
    if multihost.is_primary():
        print(printable(f"{options.output}: {summary}"))
    return 0
